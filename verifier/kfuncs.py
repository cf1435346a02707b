"""Kfunc calls against their prototypes.

Rules: Linux 6.18 and 7.3 (check_kfunc_call, check_kfunc_args). Nothing here knows a kfunc by
name: prototypes say what is asked.
"""

from __future__ import annotations

from typing import assert_never

from bpfvm.bits import U32_MAX
from bpfvm.context import CTX_STRUCTS
from bpfvm.errors import InternalError
from bpfvm.insn import Insn
from bpfvm.program import LocalType
from bpfvm.proto import ArgType, DynptrType, Effect, FuncProto, KfuncFlags, RetType
from bpfvm.record import Contained, FieldKind
from verifier.bounds import UNKNOWN, ZERO
from verifier.callbacks import call_back
from verifier.callkit import (
    arg_name,
    check_memory,
    check_place,
    check_size,
    clear_caller_saved,
    note_call,
)
from verifier.conststr import check_const_str
from verifier.dynptrs import Dynptr, check_dynptr, construct
from verifier.effects import needs_sleep
from verifier.env import Env, Step
from verifier.exceptions import throw
from verifier.irqflags import IrqClass, check_irq_flag
from verifier.iterators import IterPlace, check_iter_arg, next_item
from verifier.locks import process_lock
from verifier.objects import (
    check_head,
    check_node,
    check_owned,
    give_away,
    new_object,
    node_of,
    struct_named,
)
from verifier.precision import mark_reg
from verifier.reasons import Reason, Reject
from verifier.resources import change_region, holds_lock, release, sleep_context
from verifier.state import (
    NOT_INIT_REG,
    UNKNOWN_REG,
    ZERO_REG,
    FuncState,
    Mod,
    RegState,
    RegType,
    scalar_reg,
)
from verifier.timers import check_async_field, check_same_map

__all__ = ["compile_kfunc"]

_TRUSTED = RegType.BTF_ID.having(Mod.TRUSTED)
_UNTRUSTED = RegType.BTF_ID.having(Mod.UNTRUSTED)
_SCALAR, _MAP_VALUE = RegType.SCALAR, RegType.MAP_VALUE
#: Any negative errno (kernel: MAX_ERRNO).
_ERRNO = UNKNOWN._replace(smin=-4095, smax=-1, s32_min=-4095, s32_max=-1)
_SCALARS = frozenset(
    {ArgType.SCALAR, ArgType.KF_TYPE_ID, ArgType.KF_MEM_SIZE, ArgType.KF_CONST_MEM_SIZE}
)
_ITEM = RegType.MEM.having(Mod.RDONLY | Mod.MAYBE_NULL)


def compile_kfunc(env: Env, idx: int, insn: Insn) -> Step:
    """Return the step of a kfunc call."""
    name = env.program.kfuncs[insn.imm]
    proto = env.registry.kfuncs.get(name)
    if proto is None:
        # Only a weak one comes this far: it matters where it is reached, as libbpf has it.
        raise Reject(Reason.NOT_SUPPORTED, what=f"kfunc {name}")
    if insn.off:
        raise Reject(Reason.NOT_SUPPORTED, what="kfuncs of modules")
    if proto.prog_types is not None and env.program.prog_type not in proto.prog_types:
        raise Reject(Reason.KFUNC_NOT_ALLOWED, name=name)
    if (
        proto.flags & KfuncFlags.PERFMON
        and env.rules.kfunc_capabilities
        and not env.privs.allow_ptr_leaks
    ):
        raise Reject(Reason.KFUNC_PERFMON, name=name)
    sleeps = needs_sleep(proto, env.rules)
    spinlock_safe = bool(proto.flags & KfuncFlags.SPINLOCK_SAFE)

    def step(env: Env, frame: FuncState) -> int:
        if not spinlock_safe and holds_lock(env):
            raise Reject(Reason.CALL_UNDER_LOCK)
        if sleeps and not env.cur.sleepable:
            raise Reject(Reason.KFUNC_SLEEPS, name=name)
        note_call(env, idx, proto)
        if proto.ret is RetType.LOCK_ERROR:
            _leave_unlocked(env, idx)
        call = _Call(proto)
        for position, arg in enumerate(proto.args):
            _check_kfunc_arg(env, frame, call, position + 1, arg)
        if sleeps and (context := sleep_context(env)):
            raise Reject(Reason.KFUNC_SLEEPS_IN, name=name, context=context)
        call_back(env, frame, proto)
        if proto.throws:
            return throw(env, idx)
        if proto.effect is Effect.GIVE_NODE:
            give_away(env, frame.regs[2].ref)
        elif proto.effect is not None:
            change_region(env, proto)
        if proto.releases:
            release(env, call.ref)
        clear_caller_saved(frame)
        frame.regs[0] = _result(env, idx, call)
        return idx + 1

    return step


class _Call:
    """What one kfunc call has shown so far, argument by argument."""

    __slots__ = ("dynptr", "holds", "iter_place", "mem_size", "owner", "proto", "ref", "struct")

    def __init__(self, proto: FuncProto) -> None:
        self.proto = proto
        self.owner: int | None = None  # the map whose value holds a timer or work queue
        self.struct: LocalType | None = None  # of which an object is asked for
        self.holds: Contained | None = None  # what the list in its arguments holds
        self.ref = 0  # the reference that an argument holds
        self.iter_place: IterPlace | None = None
        self.dynptr: Dynptr | None = None
        self.mem_size = 0


def _leave_unlocked(env: Env, idx: int) -> None:
    """Leave the case that a lock was not had for later."""
    frame = env.push(idx + 1).frames[-1]
    clear_caller_saved(frame)
    frame.regs[0] = scalar_reg(env.domain.sync(_ERRNO))


def _result(env: Env, idx: int, call: _Call) -> RegState:
    """Return what the call leaves in r0."""
    proto = call.proto
    match proto.ret:
        case RetType.VOID:
            return NOT_INIT_REG
        case RetType.INTEGER | RetType.INT32 | RetType.POINTER_AS_SCALAR:
            return UNKNOWN_REG
        case RetType.ITEM_OR_NULL:
            if call.iter_place is None or proto.iterates is None:
                raise InternalError(f"{proto.name} gives an item of no iterator")
            size = proto.iterates[0].item_size
            item = RegState(_ITEM, id=env.new_id(), arg=size, ref=call.ref)
            return next_item(env, idx, call.iter_place, item)
        case RetType.LOCK_ERROR:
            return ZERO_REG
        case RetType.OBJECT_OR_NULL if call.struct is not None:
            return new_object(env, call.struct)
        case RetType.NODE_OR_NULL if call.holds is not None:
            return node_of(env, call.holds)
        case RetType.SLICE_OR_NULL | RetType.RDONLY_SLICE_OR_NULL:
            return _slice(env, call)
        case (
            RetType.MAP_VALUE_OR_NULL
            | RetType.RINGBUF_MEM_OR_NULL
            | RetType.DYNPTR_MEM_OR_NULL
            | RetType.OBJECT_OR_NULL
            | RetType.NODE_OR_NULL
            | RetType.LENGTH
            | RetType.HOOK_RESULT
            | RetType.MAP_VALUE
            | RetType.SOCKET_OR_NULL
            | RetType.SOCK_COMMON_OR_NULL
            | RetType.TCP_SOCK_OR_NULL
            | RetType.CPU
            | RetType.BTF_ID
            | RetType.BTF_ID_OR_NULL
        ):
            raise InternalError(f"{proto.name}: a kfunc that returns {proto.ret.name}")
        case _:
            assert_never(proto.ret)


def _check_kfunc_arg(env: Env, frame: FuncState, call: _Call, regno: int, arg: ArgType) -> None:
    """Check one kfunc argument (kernel: check_kfunc_args)."""
    reg = frame.regs[regno]
    if arg is ArgType.KF_IGNORE:
        return
    is_scalar = arg in _SCALARS
    if not is_scalar and arg is not ArgType.KF_MEM_OR_NULL:
        _check_not_null(env, reg, regno)
    if arg is ArgType.KF_MAP and not env.rules.kfunc_args_by_register:
        _check_kfunc_map(env, call.proto, reg, regno)
    if not is_scalar or env.rules.kfunc_args_by_register:
        check_place(env, reg, regno, as_ctx=arg is ArgType.KF_CTX)
    match arg:
        case ArgType.SCALAR:
            if reg.type is not _SCALAR:
                raise Reject(Reason.KFUNC_SCALAR, reg=regno)
        case ArgType.KF_MAP:
            _check_kfunc_map(env, call.proto, reg, regno)
            if call.owner is not None:
                check_same_map(env, call.owner, regno, reg.arg)
        case ArgType.KF_TIMER | ArgType.KF_WORKQUEUE:
            if reg.type is not _MAP_VALUE:
                raise Reject(Reason.KF_FIELD_PLACE, arg=arg_name(env, regno))
            kind = FieldKind.TIMER if arg is ArgType.KF_TIMER else FieldKind.WORKQUEUE
            call.owner = check_async_field(env, frame, regno, kind)
        case ArgType.KF_TYPE_ID:
            call.struct = struct_named(env, _constant(env, reg, regno))
        case ArgType.KF_OBJECT:
            _check_object(env, call, reg, regno)
        case ArgType.KF_LIST_HEAD:
            call.holds = check_head(env, frame, regno, FieldKind.LIST_HEAD)
        case ArgType.KF_LIST_NODE:
            if call.holds is None:
                raise InternalError(f"{call.proto.name} has a node of no list")
            check_node(env, frame, regno, call.holds, FieldKind.LIST_HEAD, FieldKind.LIST_NODE)
        case ArgType.KF_FUNC:
            if reg.type is not RegType.FUNC:
                name = f"R{regno}" if env.rules.kfunc_args_by_register else f"arg{regno - 1}"
                raise Reject(Reason.KF_CALLBACK, arg=name)
        case ArgType.KF_CONST_STR:
            _check_kfunc_str(env, reg, regno)
        case ArgType.KF_MEM:
            pass  # checked with its size, the next argument
        case ArgType.KF_MEM_SIZE:
            if reg.type is not _SCALAR:
                raise Reject(Reason.KFUNC_SCALAR, reg=regno)
            _check_kfunc_size(env, frame, regno)
        case ArgType.KF_ITER:
            if call.proto.iterates is None:
                raise InternalError(f"{call.proto.name} has an iterator of no type")
            call.iter_place, call.ref = check_iter_arg(env, frame, regno, call.proto.iterates)
        case ArgType.KF_CTX:
            _check_kfunc_ctx(env, reg, regno)
        case ArgType.KF_DYNPTR | ArgType.KF_DYNPTR_UNINIT:
            _check_kfunc_dynptr(env, frame, call, regno, arg)
        case ArgType.KF_MEM_OR_NULL:
            if reg.type is _SCALAR and reg.scalar == ZERO:
                mark_reg(env, regno)  # another number would be refused
        case ArgType.KF_CONST_MEM_SIZE:
            call.mem_size = _check_const_size(env, frame, regno)
        case ArgType.KF_RES_SPIN_LOCK:
            if reg.type is not _MAP_VALUE:
                raise Reject(Reason.KF_LOCK_PLACE, arg=arg_name(env, regno))
            process_lock(env, frame, regno, call.proto.effect)
        case ArgType.KF_IRQ_FLAG:
            _check_irq_flag(env, frame, call, regno)
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
            | ArgType.ALLOC_SIZE_OR_ZERO
            | ArgType.RINGBUF_MEM
            | ArgType.FUNC
            | ArgType.TIMER
            | ArgType.CALLBACK_CTX
            | ArgType.SPIN_LOCK
            | ArgType.DYNPTR
            | ArgType.CONST_DYNPTR
            | ArgType.DYNPTR_UNINIT
            | ArgType.WRITTEN_MEM
            | ArgType.FIXED_MEM
            | ArgType.FIXED_OUT
            | ArgType.FIXED_WRITTEN
            | ArgType.SOCK_COMMON
            | ArgType.SOCKET
            | ArgType.BTF_SOCK_COMMON
            | ArgType.BTF_ID
            | ArgType.ZERO
            | ArgType.CONST_STR
        ):
            raise InternalError(f"a kfunc with helper argument {arg.name}")
        case _:
            assert_never(arg)


def _constant(env: Env, reg: RegState, regno: int) -> int:
    """Return a number that has to be known (kernel: process_kf_arg of suffix __k)."""
    if reg.type is not _SCALAR:
        raise Reject(Reason.KFUNC_SCALAR, reg=regno)
    if reg.scalar.mask:
        raise Reject(Reason.KFUNC_NOT_CONST, reg=regno)
    mark_reg(env, regno)
    return reg.scalar.value


def _check_object(env: Env, call: _Call, reg: RegState, regno: int) -> None:
    """Check an object that the call ends."""
    if not reg.ref:
        if env.rules.ids_are_references:
            raise Reject(Reason.RELEASE_UNOWNED_KFUNC, name=call.proto.name, reg=regno)
        raise Reject(Reason.KFUNC_UNTRUSTED, reg=regno)
    if reg.off or reg.scalar != ZERO:
        raise Reject(Reason.RELEASE_MOVED, reg=regno)
    check_owned(env, reg, regno)
    call.ref = reg.ref


def _check_kfunc_ctx(env: Env, reg: RegState, regno: int) -> None:
    # Where the context is no packet, the packet itself is taken.
    is_packet = reg.type is _TRUSTED and reg.info == "sk_buff"
    if is_packet and CTX_STRUCTS.get(env.program.prog_type) != "__sk_buff":
        return
    if reg.type is not RegType.CTX:
        raise Reject(Reason.KFUNC_NOT_CTX, arg=arg_name(env, regno), type=reg.type.label)


def _check_kfunc_dynptr(env: Env, frame: FuncState, call: _Call, regno: int, arg: ArgType) -> None:
    reg = frame.regs[regno]
    if reg.type not in (RegType.STACK, RegType.DYNPTR):
        raise Reject(Reason.DYNPTR_NOT_STACK, arg=arg_name(env, regno))
    if arg is ArgType.KF_DYNPTR:
        call.dynptr = check_dynptr(env, frame, regno, None)
        return
    kind, parent = call.proto.dynptr, None
    if kind is None:
        parent = call.dynptr
        kind = parent.kind if parent is not None else None
    if kind is None:
        raise InternalError(f"{call.proto.name} makes a dynptr of no kind")
    construct(env, frame, regno, kind, parent)


def _check_const_size(env: Env, frame: FuncState, regno: int) -> int:
    """Check a constant size, and the memory before it where there is any; return the size."""
    reg, buffer = frame.regs[regno], frame.regs[regno - 1]
    if env.rules.kfunc_args_by_register and reg.scalar.mask:
        raise Reject(Reason.KFUNC_NOT_CONST, reg=regno)
    if reg.type is not _SCALAR:
        raise Reject(Reason.KFUNC_SCALAR, reg=regno)
    if buffer.type is not _SCALAR or buffer.scalar != ZERO:
        _check_kfunc_size(env, frame, regno)
    if reg.scalar.mask:
        raise Reject(Reason.KFUNC_NOT_CONST, reg=regno)
    mark_reg(env, regno)
    return reg.scalar.value


def _slice(env: Env, call: _Call) -> RegState:
    """Return the pointer into a dynptr that the call gives."""
    if call.dynptr is None:
        raise InternalError(f"{call.proto.name} returns a slice of no dynptr")
    kind, id_, ref = call.dynptr
    mods = Mod.MAYBE_NULL
    if kind in (DynptrType.SKB, DynptrType.XDP):
        mods |= Mod.PACKET_SLICE
    if call.proto.ret is RetType.RDONLY_SLICE_OR_NULL:
        mods |= Mod.RDONLY
    elif not env.prog_type.packet_write:
        raise Reject(Reason.SLICE_READ_ONLY)
    size = call.mem_size & U32_MAX
    type_ = RegType.MEM.having(mods)
    return RegState(type_, id=env.new_id(), arg=size, ref=ref, info=id_)


def _check_irq_flag(env: Env, frame: FuncState, call: _Call, regno: int) -> None:
    effect = call.proto.effect
    of = IrqClass.NATIVE if effect in (Effect.IRQ_SAVE, Effect.IRQ_RESTORE) else IrqClass.LOCK
    saves = effect in (Effect.IRQ_SAVE, Effect.RES_SPIN_LOCK_IRQ)
    check_irq_flag(env, frame, regno, saves=saves, of=of)


def _check_not_null(env: Env, reg: RegState, regno: int) -> None:
    """Refuse NULL, or what may be, where a pointer is asked for."""
    is_null = reg.type is _SCALAR and reg.scalar == ZERO
    if is_null or reg.type.may_be_null:
        if env.rules.kfunc_args_by_register:
            raise Reject(Reason.KFUNC_NULL_REG, reg=regno)
        raise Reject(Reason.KFUNC_NULL, arg=regno - 1)


def _check_kfunc_map(env: Env, proto: FuncProto, reg: RegState, regno: int) -> None:
    if reg.type is RegType.MAP_PTR:
        return
    if reg.type in (_TRUSTED, _UNTRUSTED) and env.rules.kfunc_args_by_register:
        if reg.type is _TRUSTED and reg.info == "bpf_map":
            return
        if reg.type is _TRUSTED:
            raise Reject(
                Reason.KFUNC_MAP_STRUCT,
                name=proto.name,
                arg=f"R{regno}",
                reg=regno,
                struct=reg.info,
            )
        raise Reject(Reason.KFUNC_NOT_MAP_REG, reg=regno, type=f"{reg.type.label}{reg.info}")
    if env.rules.kfunc_args_by_register:
        raise Reject(Reason.KFUNC_NOT_MAP_REG, reg=regno, type=reg.type.label)
    raise Reject(Reason.KFUNC_NOT_MAP, reg=regno)


def _check_kfunc_str(env: Env, reg: RegState, regno: int) -> None:
    """Check a constant string argument (kernel: check_reg_const_str)."""
    if reg.type is not _MAP_VALUE:
        if env.rules.kfunc_args_by_register:
            raise Reject(Reason.KFUNC_STR_REG, reg=regno)
        raise Reject(Reason.KFUNC_STR, arg=regno - 1)
    check_const_str(env, reg, regno)


def _check_kfunc_size(env: Env, frame: FuncState, regno: int) -> None:
    """Check memory and its size; the kernel says what was wrong, and then which pair."""
    try:
        check_size(env, frame, regno, write=False, zero_ok=True)
        if frame.regs[regno - 1].type is not _SCALAR:
            size = frame.regs[regno].scalar.umax
            check_memory(env, frame, regno - 1, size, write=True, zero_ok=True)
    except Reject as e:
        is_access = e.reason.errno == Reason.KFUNC_MEM_LEN_ACCESS.errno
        if env.rules.kfunc_args_by_register:
            raise Reject(
                Reason.KFUNC_MEM_LEN_REG_ACCESS if is_access else Reason.KFUNC_MEM_LEN_REG,
                before=e.lines,
                reg=regno - 1,
                len_reg=regno,
            ) from None
        raise Reject(
            Reason.KFUNC_MEM_LEN_ACCESS if is_access else Reason.KFUNC_MEM_LEN,
            before=e.lines,
            arg=regno - 2,
            len_arg=regno - 1,
        ) from None
