"""Calls of helpers and kfuncs, against their prototypes.

Rules: Linux 6.18 (check_helper_call). Nothing here knows a
helper, kfunc or map by name: prototypes and map traits say what is asked.
"""

from __future__ import annotations

from typing import assert_never

from bpfvm.errors import InternalError
from bpfvm.insn import Insn
from bpfvm.isa import CallKind, InsnDef
from bpfvm.maps.base import Lookup, MapFlags
from bpfvm.program import MapDef
from bpfvm.proto import POSSIBLE_CPUS, ArgType, DynptrType, Effect, FuncProto, RetType
from verifier.args import Call, check_arg
from verifier.bounds import UNKNOWN, Scalar
from verifier.callbacks import call_back
from verifier.callkit import (
    clear_caller_saved,
    note_call,
)
from verifier.caps import grants_helper
from verifier.dynptrs import release_dynptr
from verifier.env import Env, Step
from verifier.exits import check_range, leave_early
from verifier.kfuncs import compile_kfunc
from verifier.ldabs import in_callback
from verifier.lookups import acquires, found, is_inner
from verifier.packets import forget_packets
from verifier.precision import mark_reg
from verifier.reasons import Reason, Reject
from verifier.resources import (
    acquire,
    check_resource_leak,
    holds_lock,
    release,
    sleep_context,
)
from verifier.speculation import note_tail_call
from verifier.state import (
    NOT_INIT_REG,
    UNKNOWN_REG,
    FuncState,
    Mod,
    RegState,
    RegType,
)

__all__ = ["compile_call"]

#: The first helper number the kernel doesn't know.
MAX_HELPER = 212
_UPDATES = frozenset({"bpf_map_update_elem", "bpf_map_delete_elem"})
#: Programs of iterators (kernel: BPF_TRACE_ITER).
_ITER = ("tracing", 28)
#: Programs that may have a hook return anything (kernel: BPF_CGROUP_GETSOCKOPT).
_FREE_RESULT = ("cgroup_sockopt", 21)
#: kernel: MAX_ERRNO
MAX_ERRNO = 4095

_MAP_VALUE = RegType.MAP_VALUE
_MEM_OR_NULL = RegType.MEM.having(Mod.MAYBE_NULL)
_TRUSTED = RegType.BTF_ID.having(Mod.TRUSTED)
_SOCKETS = {
    RetType.SOCKET_OR_NULL: RegType.SOCKET.having(Mod.MAYBE_NULL),
    RetType.SOCK_COMMON_OR_NULL: RegType.SOCK_COMMON.having(Mod.MAYBE_NULL),
    RetType.TCP_SOCK_OR_NULL: RegType.TCP_SOCK.having(Mod.MAYBE_NULL),
}
_RINGBUF_MEM = RegType.MEM.having(Mod.RINGBUF | Mod.MAYBE_NULL)
_PROBES = frozenset({"kprobe", "tracing"})


def compile_call(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a helper's or kfunc's call."""
    match row.op:
        case CallKind.KFUNC:
            return compile_kfunc(env, idx, insn)
        case CallKind.HELPER:
            return _compile_helper(env, idx, insn.imm)
        case _:
            raise InternalError(f"{row.mnemonic} is no call")


# -- helpers -----------------------------------------------------------------------------------


def _compile_helper(env: Env, idx: int, number: int) -> Step:
    proto = env.registry.helper(number, env.program.prog_type)
    if proto is None:
        if number == 0:
            raise Reject(Reason.HELPER_PROG_TYPE, name="bpf_unspec", id=0)
        if not 0 < number < MAX_HELPER:
            raise Reject(Reason.HELPER_INVALID, name="unknown", id=number)
        raise Reject(Reason.NOT_SUPPORTED, what=f"helper #{number}")
    program = env.program
    offered = proto.is_offered(program.prog_type, program.expected_attach_type)
    anywhere = (number, program.prog_type, None)
    here = (number, program.prog_type, program.expected_attach_type)
    withheld = env.rules.helpers_withheld.intersection((anywhere, here))
    if not offered or withheld or not grants_helper(env.privs, number):
        raise Reject(Reason.HELPER_PROG_TYPE, name=proto.name, id=number)
    if proto.gpl_only and not env.program.is_gpl:
        raise Reject(Reason.HELPER_GPL)
    if proto.only_tracing and program.prog_type != "tracing":
        raise Reject(Reason.HELPER_NOT_IN_PROBE)

    def step(env: Env, frame: FuncState) -> int:
        if proto.effect is not Effect.SPIN_UNLOCK and holds_lock(env):
            raise Reject(Reason.CALL_UNDER_LOCK)
        call = Call(proto)
        if proto.might_sleep:
            _check_may_sleep(env, proto)
        for position, arg in enumerate(proto.args):
            check_arg(env, frame, call, position + 1, arg)
        if proto.releases and call.dynptr is not None:
            release_dynptr(env, call.dynptr)
        elif proto.releases and not release(env, call.ref):
            raise Reject(Reason.RELEASE_UNKNOWN, name=proto.name, id=proto.helper_id)
        if proto.tail_call:
            _check_tail_call(env, call)
        call_back(env, frame, proto)
        if proto.only_probes and program.prog_type not in _PROBES:
            type_ = env.prog_type.number
            raise Reject(Reason.HELPER_NOT_IN_TYPE, name=proto.name, id=number, type=type_)
        if proto.sets_result and env.rules.hook_result_bounded:
            _check_hook_result(env, frame)
        if proto.dynptr is DynptrType.LOCAL and frame.regs[1].type is not _MAP_VALUE:
            raise Reject(Reason.DYNPTR_DATA, type=frame.regs[1].type.label)
        result = _result(env, call)
        if proto.dynptr_may_move_packet and call.dynptr and call.dynptr.kind is DynptrType.SKB:
            forget_packets(env)
        if proto.acquires or _finds_socket(env, call):
            id_ = acquire(env)
            result = result._replace(id=id_, ref=id_)
        elif proto.is_cast:
            result = result._replace(ref=call.ref)
        # The other program may move the packet; on this path there was none.
        stays = proto.tail_call and env.rules.tail_call_keeps_packets
        if proto.changes_packet and not stays:
            forget_packets(env)
        clear_caller_saved(frame)
        frame.regs[0] = result
        _check_map_use(env, call)
        note_call(env, idx, proto)
        if proto.tail_call and len(env.cur.frames) > 1:
            return _return_by_tail_call(env, frame, idx)
        return idx + 1

    return step


def _check_tail_call(env: Env, call: Call) -> None:
    if call.map_index is None:
        raise Reject(Reason.TAIL_CALL_MAP)
    defn = env.facts[call.map_index].defn
    if call.name not in env.map_types.traits(defn).helpers:
        raise Reject(Reason.TAIL_CALL_MAP)
    note_tail_call(env, call.map_index)
    index = env.cur.frames[-1].regs[3].scalar
    if not index.mask and index.value < defn.max_entries:  # kernel: record_func_key
        mark_reg(env, 3)
    if not env.rules.early_returns_in_callbacks and in_callback(env):
        raise Reject(Reason.TAIL_CALL_IN_CALLBACK)
    check_resource_leak(env, "tail_call")


def _return_by_tail_call(env: Env, frame: FuncState, idx: int) -> int:
    """Go on in the caller with what another program returned, and leave the path for later on
    which there was none."""
    env.push(idx + 1)
    frame.regs[0] = UNKNOWN_REG
    forget_packets(env)
    return leave_early(env, frame, idx)


def _check_hook_result(env: Env, frame: FuncState) -> None:
    """Check what is to be returned instead of the hook's own result."""
    reg = frame.regs[1]
    if reg.type is not RegType.SCALAR:
        raise Reject(Reason.KFUNC_SCALAR, reg=1)
    if _is_bounded(env):
        allowed = (-MAX_ERRNO, 0)
        check_range(env, frame, 1, allowed, "At bpf_set_retval", width=32)


def _is_bounded(env: Env) -> bool:
    """Say whether the hook returns 0 or a negative errno."""
    return (env.program.prog_type, env.program.expected_attach_type) != _FREE_RESULT


def _check_may_sleep(env: Env, proto: FuncProto) -> None:
    context = sleep_context(env)
    if not context:
        return
    if env.rules.sleep_context_named:
        raise Reject(Reason.HELPER_SLEEPS_IN, name=proto.name, id=proto.helper_id, context=context)
    raise Reject(Reason.HELPER_SLEEPS)


def _result(env: Env, call: Call) -> RegState:
    """Return what the call leaves in r0."""
    match call.proto.ret:
        case RetType.VOID:
            return NOT_INIT_REG
        case RetType.HOOK_RESULT if env.rules.hook_result_bounded and _is_bounded(env):
            return RegState(RegType.SCALAR, _length(env, 0))
        case RetType.HOOK_RESULT:
            return UNKNOWN_REG
        case RetType.INTEGER | RetType.INT32 | RetType.POINTER_AS_SCALAR:
            return UNKNOWN_REG
        case RetType.CPU:
            return RegState(RegType.SCALAR, _below(env, POSSIBLE_CPUS))
        case RetType.MAP_VALUE_OR_NULL:
            if call.map_index is None:
                raise InternalError(f"{call.name} returns a map value but takes no map")
            defn = env.facts[call.map_index].defn
            elided = env.rules.inner_key_elision or not is_inner(env, call.map_index)
            # One that is asked for more than a key, such as a CPU, may still find nothing.
            elided &= call.proto.args[-1] is ArgType.MAP_KEY
            if elided and call.key is not None and call.key < defn.max_entries:
                id_ = env.new_id() if call.map_index in env.locked_maps else 0
                return RegState(_MAP_VALUE, id=id_, arg=call.map_index)
            return found(env, call.map_index)
        case RetType.LENGTH:
            return RegState(RegType.SCALAR, _length(env, call.size))
        case RetType.MAP_VALUE:
            if call.map_index is None:
                raise InternalError(f"{call.name} returns a map value but takes no map")
            return RegState(_MAP_VALUE, arg=call.map_index)
        case (
            RetType.SOCKET_OR_NULL | RetType.SOCK_COMMON_OR_NULL | RetType.TCP_SOCK_OR_NULL
        ) as ret:
            return RegState(_SOCKETS[ret], id=env.new_id())
        case RetType.BTF_ID:
            return RegState(_TRUSTED, info=call.proto.ret_struct)
        case RetType.BTF_ID_OR_NULL:
            kind = RegType.BTF_ID.having(Mod.MAYBE_NULL)
            return RegState(kind, id=env.new_id(), info=call.proto.ret_struct)
        case RetType.RINGBUF_MEM_OR_NULL:
            return RegState(_RINGBUF_MEM, id=env.new_id(), arg=call.mem_size)
        case RetType.DYNPTR_MEM_OR_NULL:
            if call.dynptr is None:
                raise InternalError(f"{call.name} returns memory of no dynptr")
            _, id_, ref = call.dynptr
            return RegState(_MEM_OR_NULL, id=env.new_id(), arg=call.mem_size, ref=ref, info=id_)
        case (
            RetType.ITEM_OR_NULL
            | RetType.OBJECT_OR_NULL
            | RetType.NODE_OR_NULL
            | RetType.LOCK_ERROR
            | RetType.SLICE_OR_NULL
            | RetType.RDONLY_SLICE_OR_NULL
        ):
            raise InternalError(f"{call.name}: a helper that returns {call.proto.ret.name}")
        case ret:
            assert_never(ret)


def _below(env: Env, count: int) -> Scalar:
    """Return what a number of one of *count* things may be (kernel: do_refine_retval_range)."""
    most = count - 1
    return env.domain.sync(
        UNKNOWN._replace(smin=0, smax=most, umax=most, s32_min=0, s32_max=most, u32_max=most)
    )


def _length(env: Env, most: int) -> Scalar:
    """Return what a length of at most *most*, or an errno, may be (kernel:
    do_refine_retval_range)."""
    least = -MAX_ERRNO
    return env.domain.sync(UNKNOWN._replace(smin=least, smax=most, s32_min=least, s32_max=most))


def _finds_socket(env: Env, call: Call) -> bool:
    is_lookup = call.proto.ret is RetType.MAP_VALUE_OR_NULL and call.map_index is not None
    return is_lookup and acquires(env, call.map_index or 0)


def _check_sockmap_update(env: Env, call: Call, defn: MapDef) -> None:
    """Kernel: may_update_sockmap."""
    prog_type = env.program.prog_type
    is_delete = call.proto.ret is RetType.INTEGER and ArgType.MAP_VALUE not in call.proto.args
    is_iter = (prog_type, env.program.expected_attach_type) == _ITER
    if (
        is_iter
        or prog_type in env.rules.sockmap_updaters
        or (prog_type == "sock_ops" and is_delete)
    ):
        return
    raise Reject(
        Reason.MAP_FUNC,
        before=["cannot update sockmap in this context"],
        map_type=defn.map_type,
        name=call.name,
        id=call.id,
    )


def _check_map_use(env: Env, call: Call) -> None:
    if call.map_index is None or call.timer_map is not None:
        return
    defn = env.facts[call.map_index].defn
    traits = env.map_types.traits(defn)
    if traits.lookup is Lookup.SOCKET and call.name in _UPDATES:
        _check_sockmap_update(env, call, defn)
    if call.name not in traits.helpers:
        raise Reject(Reason.MAP_FUNC, map_type=defn.map_type, name=call.name, id=call.id)
    if call.proto.changes_map and defn.flags & MapFlags.RDONLY_PROG:
        raise Reject(Reason.MAP_WRITE)
