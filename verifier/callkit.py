"""What helper and kfunc calls have in common: memory and size arguments, what a call leaves.

Rules: Linux 6.18 (check_helper_mem_access, check_mem_size_reg, __check_ptr_off_reg).
"""

from __future__ import annotations

from bpfvm.bits import s64
from bpfvm.proto import FuncProto
from verifier import stack
from verifier.bounds import UNKNOWN, ZERO, var_off_text
from verifier.ctx import access_ctx, access_ctx_freely, moves_freely
from verifier.env import CallFacts, Env, arg_name
from verifier.memory import (
    check_key_access,
    check_map_access,
    check_mem_access,
    check_packet_access,
)
from verifier.precision import mark_reg
from verifier.reasons import Reason, Reject
from verifier.resources import sleep_context
from verifier.sockets import check_buffer, check_struct
from verifier.state import NOT_INIT_REG, Base, FuncState, RegState, RegType
from verifier.structs import load_member

__all__ = [
    "arg_name",
    "check_memory",
    "check_place",
    "check_size",
    "check_unmoved",
    "clear_caller_saved",
    "note_call",
]

#: kernel: BPF_MAX_VAR_SIZ
MAX_SIZE = 1 << 29

_SCALAR, _STACK, _MAP_VALUE = RegType.SCALAR, RegType.STACK, RegType.MAP_VALUE
_PACKETS = (RegType.PACKET, RegType.PACKET_META)
_CALLER_SAVED = range(6)


def note_call(env: Env, idx: int, proto: FuncProto) -> None:
    """Record that slot *idx* calls *proto*, and whether it may sleep there on this path."""
    facts = env.calls.get(idx)
    if facts is None:
        facts = env.calls[idx] = CallFacts(proto)
    facts.context = facts.context or sleep_context(env)


def clear_caller_saved(frame: FuncState) -> None:
    """Forget r0 to r5, which no call keeps, and what was passed on the stack."""
    regs = frame.regs
    frame.stack_args, frame.has_called = (), True
    for regno in _CALLER_SAVED:
        regs[regno] = NOT_INIT_REG


def check_unmoved(reg: RegState, regno: int, *, first_variable: bool = False) -> None:
    """Refuse a pointer argument that was moved (kernel: __check_ptr_off_reg)."""
    label = reg.type.label
    if first_variable and reg.scalar.mask:
        raise Reject(Reason.PTR_ARG_VARIABLE, type=label, var_off=var_off_text(reg.scalar))
    if reg.off < 0:
        raise Reject(Reason.PTR_ARG_NEGATIVE, type=label, reg=regno, off=reg.off)
    if reg.off:
        raise Reject(Reason.PTR_ARG_MODIFIED, type=label, reg=regno, off=reg.off)
    if reg.scalar != ZERO:
        raise Reject(Reason.PTR_ARG_VARIABLE, type=label, var_off=var_off_text(reg.scalar))


#: Pointers that calls take wherever they were moved to, and what is none.
_MAY_BE_MOVED = frozenset(
    {
        Base.STACK,
        Base.PACKET,
        Base.PACKET_META,
        Base.MAP_KEY,
        Base.MAP_VALUE,
        Base.MEM,
        Base.BUF,
        Base.ARENA,
        Base.SCALAR,
    }
)


def check_place(env: Env, reg: RegState, regno: int, *, as_ctx: bool = False) -> None:
    """Refuse a pointer argument that was moved and may not be (kernel: check_func_arg_reg_off).
    *as_ctx*: the context is asked for, not memory."""
    base = reg.type.base
    if base in _MAY_BE_MOVED or (base is Base.CTX and moves_freely(env) and not as_ctx):
        return
    if base is Base.NOT_INIT:
        raise Reject(Reason.PTR_ARG_VARIABLE, type="?", var_off=var_off_text(UNKNOWN))
    if base is Base.BTF_ID:
        reg = reg._replace(off=min(reg.off, 0))
    check_unmoved(reg, regno, first_variable=env.rules.pointer_off_in_range)


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
    elif kind is RegType.MAP_KEY:
        if write:
            raise Reject(Reason.RDONLY_WRITE, reg=regno, type=kind.label)
        check_key_access(env, regno, reg, reg.off, size, write=False, zero_ok=zero_ok)
    elif kind.base is Base.MEM and not kind.may_be_null:
        check_mem_access(env, regno, reg, reg.off, size, write=write, zero_ok=zero_ok)
    elif kind.base is Base.BUF and not kind.may_be_null:
        if size or not zero_ok:
            check_buffer(env, reg, regno, reg.off, size, write=write)
    elif kind is RegType.CTX and moves_freely(env):
        access_ctx_freely(env, regno, reg, reg.off, size, zero_ok=zero_ok)
    elif kind is RegType.CTX and not env.prog_type.rewritten and not env.rules.ctx_const_offset:
        # Whoever is given it can't know its size: the last byte tells.
        if size:
            access_ctx(env, env.insn_idx, regno, reg, size - 1, 1, write=write, sx=False)
        elif not zero_ok:
            raise Reject(Reason.ZERO_SIZED)
    elif kind.base is Base.BTF_ID and not kind.may_be_null:
        struct = check_struct(env, reg, regno, reg.off, write=write)
        load_member(env, struct, reg.off, size, reg)
    elif kind in _PACKETS:
        check_packet_access(env, regno, reg, reg.off, size, zero_ok=zero_ok)
        if write and not env.prog_type.packet_write:
            raise Reject(Reason.PACKET_READ_ONLY)
    elif not (zero_ok and size == 0 and kind is _SCALAR and reg.scalar == ZERO):
        raise Reject(Reason.ARG_TYPE, reg=regno, type=kind.label, expected=_STACK.label)


def check_size(
    env: Env,
    frame: FuncState,
    regno: int,
    *,
    write: bool,
    zero_ok: bool,
    raw: bool | None = None,
) -> None:
    """Check a size argument, and the memory before it for the largest size it may have."""
    s = frame.regs[regno].scalar
    if s.smin < 0:
        raise Reject(Reason.SIZE_NEGATIVE, reg=regno)
    if s.umin == 0 and not zero_ok:
        raise Reject(Reason.SIZE_ZERO, reg=regno, umin=s64(s.umin), umax=s64(s.umax))
    if s.umax >= MAX_SIZE:
        raise Reject(Reason.SIZE_UNBOUNDED, reg=regno)
    check_memory(
        env,
        frame,
        regno - 1,
        s.umax,
        write=write,
        raw=(write if raw is None else raw) and not s.mask,
        zero_ok=zero_ok,
    )
    mark_reg(env, regno)
