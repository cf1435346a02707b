"""Calls: helpers and kfuncs against their prototypes, subprogs as frames, exits.

Rules: Linux 6.18 (check_helper_call, check_kfunc_call, check_func_call). Nothing here knows a
helper, kfunc or map by name: prototypes and map traits say what is asked.
"""

from __future__ import annotations

from typing import assert_never

from bpfvm.bits import s64
from bpfvm.errors import InternalError
from bpfvm.insn import Insn
from bpfvm.isa import CallKind, InsnDef
from bpfvm.maps.base import MapFlags
from bpfvm.program import Linkage
from bpfvm.proto import ArgType, FuncProto, KfuncFlags, RetType
from verifier import stack
from verifier.bounds import ZERO, var_off_text
from verifier.cfg import subprog_name
from verifier.env import PATH_END, CallFacts, Env, Step
from verifier.memory import (
    check_ctx_pointer,
    check_map_access,
    check_mem_access,
    check_packet_access,
    check_region,
)
from verifier.precision import mark_reg, mark_slot
from verifier.reasons import Reason, Reject
from verifier.state import (
    LOCKS,
    NOT_INIT_REG,
    UNKNOWN_REG,
    FuncState,
    RefKind,
    RegState,
    RegType,
    VerifierState,
)
from verifier.transfer import readable

__all__ = ["compile_call", "compile_exit", "fp_reg"]

#: kernel: BPF_MAX_VAR_SIZ; the first helper number the kernel doesn't know
MAX_SIZE = 1 << 29
MAX_HELPER = 212

_SCALAR, _STACK, _MAP_VALUE = RegType.SCALAR, RegType.STACK, RegType.MAP_VALUE
_PACKETS = (RegType.PACKET, RegType.PACKET_META)
_CALLER_SAVED = range(6)

_MEMORY = (
    RegType.STACK,
    RegType.PACKET,
    RegType.PACKET_META,
    RegType.MAP_VALUE,
    RegType.MEM,
)
_MEMORY_WORDS = "fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_"

#: Per kind of argument: register types it takes, and how a complaint lists them.
_ACCEPTED: dict[ArgType, tuple[tuple[RegType, ...], str]] = {
    ArgType.CONST_MAP_PTR: ((RegType.MAP_PTR,), "map_ptr"),
    ArgType.MAP_KEY: (_MEMORY, _MEMORY_WORDS),
    ArgType.MAP_VALUE: (_MEMORY, _MEMORY_WORDS),
    ArgType.UNINIT_MAP_VALUE: (_MEMORY, _MEMORY_WORDS),
    ArgType.MEM_RDONLY: (_MEMORY, _MEMORY_WORDS),
    ArgType.UNINIT_MEM: (_MEMORY, _MEMORY_WORDS),
    ArgType.CONST_SIZE: ((RegType.SCALAR,), "scalar"),
    ArgType.CONST_SIZE_OR_ZERO: ((RegType.SCALAR,), "scalar"),
    ArgType.CTX: ((RegType.CTX,), "ctx"),
    ArgType.SCALAR: ((RegType.SCALAR,), "scalar"),
}


def fp_reg(frameno: int) -> RegState:
    """Return r10 of frame *frameno*."""
    return RegState(_STACK, arg=frameno)


def compile_call(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a call."""
    match row.op:
        case CallKind.LOCAL:
            return _compile_local(env, idx, idx + 1 + insn.imm)
        case CallKind.KFUNC:
            return _compile_kfunc(env, idx, insn)
        case CallKind.HELPER:
            return _compile_helper(env, idx, insn.imm)
        case _:
            raise InternalError(f"{row.mnemonic} is no call")


def sleep_context(env: Env) -> str:
    """Return why the current context can't sleep, in the kernel's words, or "" (kernel:
    in_sleepable_context, non_sleepable_context_description)."""
    cur = env.cur
    if cur.rcu_depth:
        return "rcu_read_lock region"
    if cur.preempt_depth:
        return "non-preemptible region"
    kinds = {ref.kind for ref in cur.refs}
    if RefKind.IRQ in kinds:
        return "IRQ-disabled region"
    if kinds & LOCKS:
        return "lock region"
    return "" if cur.sleepable else "non-sleepable prog"


def _note_call(env: Env, idx: int, proto: FuncProto) -> None:
    facts = env.calls.get(idx)
    if facts is None:
        facts = env.calls[idx] = CallFacts(proto)
    facts.context = facts.context or sleep_context(env)


def _clear_caller_saved(frame: FuncState) -> None:
    regs = frame.regs
    for regno in _CALLER_SAVED:
        regs[regno] = NOT_INIT_REG


# -- helpers -----------------------------------------------------------------------------------


class _Call:
    """What one helper call has shown so far, argument by argument."""

    __slots__ = ("id", "key", "map_index", "name", "proto")

    def __init__(self, proto: FuncProto) -> None:
        self.proto = proto
        self.name, self.id = proto.name, proto.helper_id
        self.map_index: int | None = None
        self.key: int | None = None  # a map key that is a known constant


def _compile_helper(env: Env, idx: int, number: int) -> Step:
    proto = env.registry.helpers.get(number)
    if proto is None:
        if number == 0:
            raise Reject(Reason.HELPER_PROG_TYPE, name="bpf_unspec", id=0)
        if not 0 < number < MAX_HELPER:
            raise Reject(Reason.HELPER_INVALID, name="unknown", id=number)
        raise Reject(Reason.NOT_SUPPORTED, what=f"helper #{number}")
    if proto.prog_types is not None and env.program.prog_type not in proto.prog_types:
        raise Reject(Reason.HELPER_PROG_TYPE, name=proto.name, id=number)
    if proto.gpl_only and not env.program.is_gpl:
        raise Reject(Reason.HELPER_GPL)

    def step(env: Env, frame: FuncState) -> int:
        call = _Call(proto)
        if proto.might_sleep:
            _check_may_sleep(env, proto)
        for position, arg in enumerate(proto.args):
            _check_arg(env, frame, call, position + 1, arg)
        result = _result(env, call)
        _clear_caller_saved(frame)
        frame.regs[0] = result
        _check_map_use(env, call)
        _note_call(env, idx, proto)
        return idx + 1

    return step


def _check_may_sleep(env: Env, proto: FuncProto) -> None:
    context = sleep_context(env)
    if not context:
        return
    if env.rules.sleep_context_named:
        raise Reject(Reason.HELPER_SLEEPS_IN, name=proto.name, id=proto.helper_id, context=context)
    raise Reject(Reason.HELPER_SLEEPS)


def _check_arg(env: Env, frame: FuncState, call: _Call, regno: int, arg: ArgType) -> None:
    """Check one helper argument (kernel: check_func_arg)."""
    reg = readable(frame, regno)
    if arg is ArgType.ANYTHING:
        return
    kind = reg.type
    if kind in _PACKETS and not (call.proto.pkt_access and env.prog_type.packet):
        raise Reject(Reason.PACKET_ARG)
    accepted, words = _ACCEPTED.get(arg, ((), ""))
    if kind not in accepted:
        raise Reject(Reason.ARG_TYPE, reg=regno, type=kind.label, expected=words)
    if kind is RegType.CTX:
        check_ctx_pointer(env, regno, reg, may_move=False)
    match arg:
        case ArgType.CONST_MAP_PTR:
            _check_unmoved(reg, regno)
            call.map_index = reg.arg
        case ArgType.MAP_KEY:
            if call.map_index is None:
                raise Reject(Reason.NO_MAP_FOR_KEY)
            defn = env.facts[call.map_index].defn
            check_memory(env, frame, regno, defn.key_size)
            if env.map_types.traits(defn).constant_key_elision:
                call.key = _constant_key(env, reg, defn.key_size)
        case ArgType.MAP_VALUE | ArgType.UNINIT_MAP_VALUE:
            if call.map_index is None:
                raise Reject(Reason.NO_MAP_FOR_VALUE)
            size = env.facts[call.map_index].defn.value_size
            is_out = arg is ArgType.UNINIT_MAP_VALUE
            check_memory(env, frame, regno, size, write=is_out, raw=is_out)
        case ArgType.CONST_SIZE | ArgType.CONST_SIZE_OR_ZERO:
            _check_size(
                env,
                frame,
                regno,
                write=call.proto.args[regno - 2] is ArgType.UNINIT_MEM,
                zero_ok=arg is ArgType.CONST_SIZE_OR_ZERO,
            )
        case ArgType.MEM_RDONLY | ArgType.UNINIT_MEM | ArgType.CTX | ArgType.SCALAR:
            pass  # memory is checked with its size, the next argument
        case (
            ArgType.KF_MAP
            | ArgType.KF_IGNORE
            | ArgType.KF_CONST_STR
            | ArgType.KF_MEM
            | ArgType.KF_MEM_SIZE
        ):
            raise InternalError(f"{call.name}: a helper with kfunc argument {arg.name}")
        case _:
            assert_never(arg)


def _check_unmoved(reg: RegState, regno: int) -> None:
    """Refuse a pointer argument that was moved (kernel: __check_ptr_off_reg)."""
    label = reg.type.label
    if reg.off < 0:
        raise Reject(Reason.PTR_ARG_NEGATIVE, type=label, reg=regno, off=reg.off)
    if reg.off:
        raise Reject(Reason.PTR_ARG_MODIFIED, type=label, reg=regno, off=reg.off)
    if reg.scalar != ZERO:
        raise Reject(Reason.PTR_ARG_VARIABLE, type=label, var_off=var_off_text(reg.scalar))


def check_memory(
    env: Env,
    frame: FuncState,
    regno: int,
    size: int,
    *,
    write: bool = False,
    raw: bool = False,
    zero_ok: bool = False,
) -> None:
    """Check *size* bytes that a callee reads or writes at register *regno* (kernel:
    check_helper_mem_access). *raw*: it writes all of them."""
    reg = frame.regs[regno]
    kind = reg.type
    if kind is _STACK:
        stack.check_helper_range(
            env, regno, reg, reg.off, size, zero_ok=zero_ok, write=write, raw=raw
        )
    elif kind is _MAP_VALUE:
        check_map_access(env, regno, reg, reg.off, size, write=write, zero_ok=zero_ok)
    elif kind is RegType.MEM:
        check_mem_access(env, regno, reg, reg.off, size, zero_ok=zero_ok)
    elif kind in _PACKETS:
        check_packet_access(env, regno, reg, reg.off, size, zero_ok=zero_ok)
        if write and not env.prog_type.packet_write:
            raise Reject(Reason.PACKET_READ_ONLY)
    elif not (zero_ok and size == 0 and kind is _SCALAR and reg.scalar == ZERO):
        raise Reject(Reason.ARG_TYPE, reg=regno, type=kind.label, expected=_STACK.label)


def _check_size(env: Env, frame: FuncState, regno: int, *, write: bool, zero_ok: bool) -> None:
    """Check a size argument, and the memory before it for the largest size it may have."""
    s = frame.regs[regno].scalar
    if s.smin < 0:
        raise Reject(Reason.SIZE_NEGATIVE, reg=regno)
    if s.umin == 0 and not zero_ok:
        raise Reject(Reason.SIZE_ZERO, reg=regno, umin=s64(s.umin), umax=s64(s.umax))
    if s.umax >= MAX_SIZE:
        raise Reject(Reason.SIZE_UNBOUNDED, reg=regno)
    check_memory(
        env, frame, regno - 1, s.umax, write=write, raw=write and not s.mask, zero_ok=zero_ok
    )
    mark_reg(env, regno)


def _constant_key(env: Env, reg: RegState, size: int) -> int | None:
    """Return the key at stack pointer *reg* where its bytes are a known constant."""
    if reg.type is not _STACK or reg.scalar.mask:
        return None
    owner = env.cur.frames[reg.arg]
    spi, at = divmod(-(reg.off + s64(reg.scalar.value)) - 1, 8)
    slot = owner.stack.get(spi)
    if slot is None or at - size + 1 < 0:
        return None
    if slot.types[at - size + 1 : at + 1] == "0" * size:
        return 0
    spilled = slot.spilled
    if spilled is None or spilled.type is not _SCALAR or spilled.scalar.mask:
        return None
    spill_size = slot.types.count("r")
    if at != 7 or spill_size != size:
        return None
    mark_slot(env, owner.frameno, spi)
    return spilled.scalar.value


def _result(env: Env, call: _Call) -> RegState:
    """Return what the call leaves in r0."""
    match call.proto.ret:
        case RetType.VOID:
            return NOT_INIT_REG
        case RetType.INTEGER | RetType.INT32 | RetType.POINTER_AS_SCALAR:
            return UNKNOWN_REG
        case RetType.MAP_VALUE_OR_NULL:
            if call.map_index is None:
                raise InternalError(f"{call.name} returns a map value but takes no map")
            defn = env.facts[call.map_index].defn
            if call.key is not None and call.key < defn.max_entries:
                return RegState(_MAP_VALUE, arg=call.map_index)
            return RegState(RegType.MAP_VALUE_OR_NULL, id=env.new_id(), arg=call.map_index)
        case ret:
            assert_never(ret)


def _check_map_use(env: Env, call: _Call) -> None:
    if call.map_index is None:
        return
    defn = env.facts[call.map_index].defn
    traits = env.map_types.traits(defn)
    if call.name not in traits.helpers:
        raise Reject(Reason.MAP_FUNC, map_type=defn.map_type, name=call.name, id=call.id)
    writes = any(a in (ArgType.MAP_VALUE, ArgType.MAP_KEY) for a in call.proto.args)
    changes = writes and call.proto.ret is not RetType.MAP_VALUE_OR_NULL
    if changes and defn.flags & MapFlags.RDONLY_PROG:
        raise Reject(Reason.MAP_WRITE)


# -- kfuncs ------------------------------------------------------------------------------------

_ARENA_FLAGS = KfuncFlags.ARENA_RET | KfuncFlags.ARENA_ARG2


def _compile_kfunc(env: Env, idx: int, insn: Insn) -> Step:
    name = env.program.kfuncs[insn.imm]
    proto = env.registry.kfuncs.get(name)
    if proto is None:
        # Only a weak one comes this far: it matters where it is reached, as libbpf has it.
        raise Reject(Reason.NOT_SUPPORTED, what=f"kfunc {name}")
    if insn.off:
        raise Reject(Reason.NOT_SUPPORTED, what="kfuncs of modules")
    if proto.prog_types is not None and env.program.prog_type not in proto.prog_types:
        raise Reject(Reason.KFUNC_NOT_ALLOWED, name=name)
    sleeps = proto.might_sleep or (
        bool(proto.flags & _ARENA_FLAGS) and not env.rules.arena_kfuncs_any_context
    )

    def step(env: Env, frame: FuncState) -> int:
        context = sleep_context(env)
        if sleeps and context == "non-sleepable prog":
            raise Reject(Reason.KFUNC_SLEEPS, name=name)
        if sleeps and context:
            raise Reject(Reason.KFUNC_SLEEPS_IN, name=name, context=context)
        for position, arg in enumerate(proto.args):
            _check_kfunc_arg(env, frame, position + 1, arg)
        _clear_caller_saved(frame)
        if proto.ret is not RetType.VOID:
            frame.regs[0] = UNKNOWN_REG
        _note_call(env, idx, proto)
        return idx + 1

    return step


def _check_kfunc_arg(env: Env, frame: FuncState, regno: int, arg: ArgType) -> None:
    """Check one kfunc argument (kernel: check_kfunc_args)."""
    reg = frame.regs[regno]
    match arg:
        case ArgType.KF_IGNORE:
            return
        case ArgType.SCALAR:
            if reg.type is not _SCALAR:
                raise Reject(Reason.KFUNC_SCALAR, reg=regno)
        case ArgType.KF_MAP:
            _check_kfunc_pointer(env, reg, regno)
            _check_kfunc_map(env, reg, regno)
        case ArgType.KF_CONST_STR:
            _check_kfunc_pointer(env, reg, regno)
            _check_kfunc_str(env, reg, regno)
        case ArgType.KF_MEM:
            _check_kfunc_pointer(env, reg, regno)
            if reg.type is RegType.NOT_INIT:
                raise Reject(Reason.NOT_READABLE, reg=regno)
        case ArgType.KF_MEM_SIZE:
            if reg.type is not _SCALAR:
                raise Reject(Reason.KFUNC_SCALAR, reg=regno)
            _check_kfunc_size(env, frame, regno)
        case (
            ArgType.ANYTHING
            | ArgType.CONST_MAP_PTR
            | ArgType.MAP_KEY
            | ArgType.MAP_VALUE
            | ArgType.UNINIT_MAP_VALUE
            | ArgType.MEM_RDONLY
            | ArgType.UNINIT_MEM
            | ArgType.CONST_SIZE
            | ArgType.CONST_SIZE_OR_ZERO
            | ArgType.CTX
        ):
            raise InternalError(f"a kfunc with helper argument {arg.name}")
        case _:
            assert_never(arg)


def _check_kfunc_pointer(env: Env, reg: RegState, regno: int) -> None:
    """Refuse NULL, or what may be, where a pointer is asked for."""
    is_null = reg.type is _SCALAR and reg.scalar == ZERO
    if is_null or reg.type.may_be_null:
        if env.rules.kfunc_args_by_register:
            raise Reject(Reason.KFUNC_NULL_REG, reg=regno)
        raise Reject(Reason.KFUNC_NULL, arg=regno - 1)


def _check_kfunc_map(env: Env, reg: RegState, regno: int) -> None:
    if reg.type is RegType.MAP_PTR:
        _check_unmoved(reg, regno)
        return
    if env.rules.kfunc_args_by_register:
        raise Reject(Reason.KFUNC_NOT_MAP_REG, reg=regno, type=reg.type.label)
    raise Reject(Reason.KFUNC_NOT_MAP, reg=regno)


def _check_kfunc_str(env: Env, reg: RegState, regno: int) -> None:
    """Check a constant string argument (kernel: check_reg_const_str)."""
    if reg.type is not _MAP_VALUE:
        if env.rules.kfunc_args_by_register:
            raise Reject(Reason.KFUNC_STR_REG, reg=regno)
        raise Reject(Reason.KFUNC_STR, arg=regno - 1)
    facts = env.facts[reg.arg]
    if facts.contents is None or not facts.defn.flags & MapFlags.RDONLY_PROG:
        raise Reject(Reason.STR_NOT_READ_ONLY, reg=regno)
    if reg.scalar.mask:
        raise Reject(Reason.STR_NOT_CONST, reg=regno)
    size = facts.defn.value_size
    detail = f"invalid access to map value, value_size={size} off={{off}} size={{size}}"
    check_region(env, regno, reg, reg.off, size - reg.off, size, detail)
    start = reg.off + s64(reg.scalar.value)
    if b"\0" not in facts.contents[start:]:
        raise Reject(Reason.STR_NOT_TERMINATED)


def _check_kfunc_size(env: Env, frame: FuncState, regno: int) -> None:
    """Check memory and its size; the kernel says what was wrong, and then which pair."""
    try:
        _check_size(env, frame, regno, write=False, zero_ok=True)
        if frame.regs[regno - 1].type is not _SCALAR:
            size = frame.regs[regno].scalar.umax
            check_memory(env, frame, regno - 1, size, write=True, zero_ok=True)
    except Reject as e:
        if env.rules.kfunc_args_by_register:
            raise Reject(
                Reason.KFUNC_MEM_LEN_REG, before=e.lines, reg=regno - 1, len_reg=regno
            ) from None
        raise Reject(
            Reason.KFUNC_MEM_LEN, before=e.lines, arg=regno - 2, len_arg=regno - 1
        ) from None


# -- subprogs ----------------------------------------------------------------------------------


def _compile_local(env: Env, idx: int, target: int) -> Step:
    number = env.cfg.subprog_at(target)
    program = env.program
    is_global = any(s.start == target and s.linkage is Linkage.GLOBAL for s in program.subprogs)
    if is_global:
        name = subprog_name(program, target)
        raise Reject(Reason.NOT_SUPPORTED, what=f"global subprogram {name}")

    def step(env: Env, frame: FuncState) -> int:
        cur = env.cur
        frameno = len(cur.frames)
        if frameno >= env.rules.call_frames:
            raise Reject(Reason.CALL_FRAMES, frames=frameno + 1)
        regs = [NOT_INIT_REG, *frame.regs[1:6], *[NOT_INIT_REG] * 4, fp_reg(frameno)]
        callee = FuncState(frameno, number, idx, regs, {})
        _clear_caller_saved(frame)
        cur.frames.append(callee)
        if env.log.on:
            env.log.line("caller:")
            env.log.full_state("", frame)
            env.log.line("callee:")
            env.log.full_state("", callee)
            env.log.touch_all()
        return target

    return step


def compile_exit(_env: Env, _idx: int) -> Step:
    """Return the step of an exit: the end of the path, or the way back to the caller."""

    def step(env: Env, frame: FuncState) -> int:
        cur = env.cur
        if len(cur.frames) == 1:
            readable(frame, 0)
            return PATH_END
        return _leave(env, cur, frame)

    return step


def _leave(env: Env, cur: VerifierState, callee: FuncState) -> int:
    r0 = callee.regs[0]
    if r0.type is _STACK:
        raise Reject(Reason.RETURN_FP)
    cur.frames.pop()
    caller = cur.frames[-1]
    caller.regs[0] = r0
    next_idx = callee.callsite + 1
    if env.log.on:
        env.log.line("returning from callee:")
        env.log.full_state("", callee)
        env.log.line(f"to caller at {next_idx}:")
        env.log.full_state("", caller)
        env.log.touch_all()
    return next_idx
