"""What each insn does to registers: arithmetic, moves, casts, jumps.

Each `compile_*` makes the step of one insn, once, when the walk first reaches it; a step takes
the environment and the current frame, changes the frame, and returns the next slot. Checks come
in the kernel's order: reading operands, the operation's own, writing the destination.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from bpfvm.bits import S32_MAX, S32_MIN, S64_MAX, S64_MIN, U32_MAX, s64, to_unsigned, u32
from bpfvm.errors import InternalError
from bpfvm.insn import Insn
from bpfvm.isa import MAX_REG, AluOp, EndOp, InsnDef, JmpOp, Kind
from verifier import bounds
from verifier.bounds import UNKNOWN, ZERO, Scalar
from verifier.env import Env, Step
from verifier.precision import mark_reg
from verifier.privs import check_mov, check_unary
from verifier.reasons import Reason, Reject
from verifier.speculation import check_scalar_sum, confine, watch
from verifier.state import (
    ADD_CONST,
    ADD_CONST32,
    ADD_CONST64,
    FP_REG,
    UNKNOWN_REG,
    FuncState,
    RegState,
    RegType,
    const_reg,
)

__all__ = ["compile_alu", "compile_end", "compile_mov", "compile_neg", "guard", "readable"]

#: kernel: BPF_MAX_VAR_OFF
MAX_VAR_OFF = 1 << 29

_SCALAR, _NOT_INIT, _ARENA = RegType.SCALAR, RegType.NOT_INIT, RegType.ARENA
_ARENA_REG = RegState(_ARENA)
_PACKETS = (RegType.PACKET, RegType.PACKET_META)


def readable(frame: FuncState, regno: int) -> RegState:
    """Return register *regno*, which the insn reads.

    Raises:
        Reject: it was never written.
    """
    if regno > MAX_REG:
        raise Reject(Reason.INVALID_REG, reg=regno)
    reg = frame.regs[regno]
    if reg.type is _NOT_INIT:
        raise Reject(Reason.NOT_READABLE, reg=regno)
    return reg


def check_writable(regno: int) -> None:
    """Refuse to write the frame pointer, or a register that isn't there."""
    if regno > MAX_REG:
        raise Reject(Reason.INVALID_REG, reg=regno)
    if regno == FP_REG:
        raise Reject(Reason.FP_READ_ONLY)


def guard(
    reads: Sequence[int], write: int | None = None, refusal: Reject | None = None
) -> Step | None:
    """Return a step that always refuses, where the operands alone tell so, else None.

    *reads* are checked first, then *refusal* is raised, then *write* is checked.
    """
    if max(reads, default=0) <= MAX_REG and (write is None or write < FP_REG) and not refusal:
        return None

    def refuse(_env: Env, frame: FuncState) -> int:
        for regno in reads:
            readable(frame, regno)
        if refusal is not None:
            raise refusal
        if write is not None:
            check_writable(write)
        raise InternalError("a guarded insn has nothing wrong")

    return refuse


def compile_alu(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a binary operation other than a move."""
    op, width, dst, src, is_reg = row.op, row.width, insn.dst, insn.src, row.is_reg
    if not isinstance(op, AluOp):
        raise InternalError(f"{row.mnemonic} has no ALU operation")
    refused = guard((src, dst) if is_reg else (dst,), dst, _bad_operand(op, insn, row))
    if refused:
        return refused
    transfer, next_idx = env.domain.transfer[op], idx + 1
    imm = const_reg(insn.imm)
    regno_src = src if is_reg else None
    links = op in (AluOp.ADD, AluOp.SUB) and env.privs.bpf_capable
    link_kind = ADD_CONST64 if width == 64 else ADD_CONST32
    forks = op in (AluOp.AND, AluOp.OR)
    is_self = is_reg and src == dst
    spied = op in (AluOp.ADD, AluOp.SUB) and is_reg and not env.privs.bypass_spec_v1

    def step(env: Env, frame: FuncState) -> int:
        regs = frame.regs
        b = regs[src] if is_reg else imm
        if b.type is _NOT_INIT:
            raise Reject(Reason.NOT_READABLE, reg=src)
        a = regs[dst]
        if a.type is not _SCALAR or b.type is not _SCALAR:
            if a.type is _NOT_INIT:
                raise Reject(Reason.NOT_READABLE, reg=dst)
            if a.type is _ARENA or b.type is _ARENA:
                _note_arena(env, idx, width, with_arena=True)
                regs[dst] = _ARENA_REG
                return next_idx
            if env.cfg.arena is not None:
                _note_arena(env, idx, width, with_arena=False)
            regs[dst] = _alu_pointer(env, op, width, dst, regno_src, a, b)
            return next_idx
        if width == 64 and env.cfg.arena is not None:
            _note_arena(env, idx, width, with_arena=False)
        if spied:
            check_scalar_sum(env, idx, op, dst)
        if forks and not b.scalar.mask and _is_mask(width, a.scalar):
            a = _fork(env, idx, dst, width, a)
        result = transfer(width, a.scalar, b.scalar)
        if links and a.id and (delta := _link_delta(op, width, a, b, is_self)) is not None:
            regs[dst] = RegState(_SCALAR, result, delta, a.id | link_kind)
            return next_idx
        regs[dst] = RegState(_SCALAR, result)
        return next_idx

    return step


def _link_delta(op: AluOp, width: int, a: RegState, b: RegState, is_self: bool) -> int | None:
    """Return how far `a op= b` moves a linked scalar, where the link can be kept.

    A 32-bit insn keeps it only where the upper half, which it drops, is zero.
    """
    if a.id & ADD_CONST or is_self:
        return None
    k = b.scalar
    if width == 32:
        if k.mask & U32_MAX or not bounds.is_u32(a.scalar):
            return None
        delta = k.s32_min
    elif k.mask or not S32_MIN <= k.smin <= S32_MAX:
        return None
    else:
        delta = k.smin
    if op is AluOp.ADD:
        return delta
    return None if delta == S32_MIN else -delta


def _is_mask(width: int, s: Scalar) -> bool:
    """Say whether *s* is all ones or all zeros and nothing else is known: an arithmetic shift."""
    low, high = (s.smin, s.smax) if width == 64 else (s.s32_min, s.s32_max)
    return low == -1 and high == 0


def _fork(env: Env, idx: int, dst: int, width: int, reg: RegState) -> RegState:
    """Leave the all-zeros case for later, return the all-ones one (kernel: maybe_fork_scalars).

    Both halves of what the mask may be are walked, so nothing is lost.
    """
    other = env.push(idx)
    # Of a 32-bit insn's operand only the low half counts: the insn drops the upper one.
    other.frames[-1].regs[dst] = reg._replace(scalar=ZERO)
    return reg._replace(scalar=bounds.const(-1 if width == 64 else U32_MAX))


def _bad_operand(op: AluOp, insn: Insn, row: InsnDef) -> Reject | None:
    if row.is_reg:
        return None
    if op in (AluOp.DIV, AluOp.MOD, AluOp.SDIV, AluOp.SMOD) and insn.imm == 0:
        return Reject(Reason.DIV_BY_ZERO)
    if op in (AluOp.LSH, AluOp.RSH, AluOp.ARSH) and not 0 <= insn.imm < row.width:
        return Reject(Reason.INVALID_SHIFT, count=insn.imm)
    return None


def _note_arena(env: Env, idx: int, width: int, *, with_arena: bool) -> None:
    """One ALU64 insn becomes ALU32 where it works on an arena pointer; then it may not meet
    anything else, whose upper half it would drop."""
    if width != 64:
        return
    if with_arena:
        env.with_arena.add(idx)
    else:
        env.without_arena.add(idx)
    if idx in env.with_arena and idx in env.without_arena:
        if env.rules.arena_alu64_mix_refused:
            raise Reject(Reason.ARENA_ALU64_MIX)
        raise Reject(
            Reason.NOT_SUPPORTED, what="ALU64 insn reached with and without an arena pointer"
        )


def _alu_pointer(
    env: Env, op: AluOp, width: int, dst: int, src: int | None, a: RegState, b: RegState
) -> RegState:
    """Return the result of arithmetic of which at least one side is a pointer."""
    if a.type is not _SCALAR and b.type is not _SCALAR:
        if op is AluOp.SUB and env.privs.allow_ptr_leaks:
            return UNKNOWN_REG
        raise Reject(Reason.PTR_PTR, reg=dst, op=op.symbol)
    pointer, delta = (a, b) if b.type is _SCALAR else (b, a)
    if pointer is b:
        mark_reg(env, dst)
    elif src is not None:
        mark_reg(env, src)
    if bounds.is_broken(delta.scalar):
        return UNKNOWN_REG
    if width == 32:
        if op is AluOp.SUB and env.privs.allow_ptr_leaks:
            return UNKNOWN_REG
        raise Reject(Reason.PTR_ALU32, reg=dst)
    label = pointer.type.label
    if pointer.type.may_be_null:
        raise Reject(Reason.PTR_MAYBE_NULL, reg=dst, type=label)
    if not pointer.type.may_move and not _stays(pointer, delta.scalar, op):
        raise Reject(Reason.PTR_PROHIBITED, reg=dst, type=label)
    _check_sane(delta.scalar, 0, label)
    _check_place(env, pointer, label)
    window = watch(env, op, dst, src, pointer, delta)
    match op:
        case AluOp.ADD:
            moved = _moved(env, pointer, delta.scalar)
        case AluOp.SUB:
            if pointer is b:
                raise Reject(Reason.SCALAR_MINUS_PTR, reg=dst)
            if pointer.type is RegType.STACK:
                raise Reject(Reason.FP_SUBTRACT, reg=dst)
            moved = _moved_back(env, pointer, delta.scalar)
        case AluOp.AND | AluOp.OR | AluOp.XOR:
            raise Reject(Reason.PTR_BITWISE, reg=dst, op=op.symbol)
        case _:
            raise Reject(Reason.PTR_OPERATOR, reg=dst, op=op.symbol.removeprefix("s"))
    _check_place(env, moved, label)
    moved = moved._replace(scalar=env.domain.sync(moved.scalar))
    confine(env, op, dst, src, moved, window)
    return moved


def _stays(pointer: RegState, delta: Scalar, op: AluOp) -> bool:
    """Say whether a pointer that may not be moved may be moved so, after all."""
    if pointer.type is RegType.FLOW_KEYS:
        return not delta.mask
    return pointer.type is RegType.MAP_PTR and delta == ZERO and op is AluOp.ADD


def _check_sane(scalar: Scalar, off: int, label: str) -> None:
    """Refuse offsets that could overflow later sums (kernel: check_reg_sane_offset)."""
    value = s64(scalar.value)
    if not scalar.mask and not -MAX_VAR_OFF < value < MAX_VAR_OFF:
        raise Reject(Reason.PTR_MATH, type=label, value=value)
    if not -MAX_VAR_OFF < off < MAX_VAR_OFF:
        raise Reject(Reason.PTR_OFFSET, type=label, off=off)
    if scalar.smin == S64_MIN:
        raise Reject(Reason.PTR_UNBOUNDED, type=label)
    if not -MAX_VAR_OFF < scalar.smin < MAX_VAR_OFF:
        raise Reject(Reason.PTR_OUT_OF_BOUNDS, value=scalar.smin, type=label)


def _check_place(env: Env, pointer: RegState, label: str) -> None:
    """Refuse a pointer that may lie too far away (kernel: check_reg_sane_offset_ptr)."""
    s, off = pointer.scalar, pointer.off
    if not env.rules.pointer_off_in_range:
        _check_sane(s, off, label)
        return
    if not s.mask:
        least = s64(s.value + off)
    elif s.smin + off >= S64_MIN and s.smax + off <= S64_MAX:
        least = s.smin + off
    else:
        least = S64_MIN  # the sum wraps
    if not -MAX_VAR_OFF < least < MAX_VAR_OFF:
        raise Reject(Reason.PTR_OFFSET, type=label, off=least)


def _shifted(pointer: RegState, by: int) -> RegState:
    # A marker tells where this very pointer stands to the packet's end; 6.18 keeps it, wrongly.
    marked = pointer.type in _PACKETS and pointer.arg < 0 and by
    return pointer._replace(off=pointer.off + by, arg=0 if marked else pointer.arg)


def _moved(env: Env, pointer: RegState, delta: Scalar) -> RegState:
    if not delta.mask:
        return _shifted(pointer, delta.smin)
    scalar = env.domain.add_ptr(pointer.scalar, delta)
    if pointer.type in _PACKETS:
        return pointer._replace(scalar=scalar, id=env.new_id(), arg=0)
    return pointer._replace(scalar=scalar)


def _moved_back(env: Env, pointer: RegState, delta: Scalar) -> RegState:
    if not delta.mask:
        return _shifted(pointer, -delta.smin)
    scalar = env.domain.sub_ptr(pointer.scalar, delta)
    if pointer.type in _PACKETS:
        # What was proven after the old place lies at least `smin` further after the new one.
        keeps = env.rules.packet_keeps_range and delta.smin >= 0 and pointer.arg > 0
        proven = pointer.arg + delta.smin if keeps else 0
        return pointer._replace(scalar=scalar, id=env.new_id(), arg=proven)
    return pointer._replace(scalar=scalar)


def compile_neg(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a negation."""
    return _unary(idx, insn.dst, partial(env.domain.neg, row.width))


def compile_end(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a byte order operation."""
    op = row.op
    if not isinstance(op, EndOp):
        raise InternalError(f"{row.mnemonic} has no byte order operation")
    return _unary(idx, insn.dst, partial(env.domain.end, op, row.width))


def _unary(idx: int, dst: int, transfer: Callable[[Scalar], Scalar]) -> Step:
    refused = guard((dst,), dst)
    if refused:
        return refused

    def step(env: Env, frame: FuncState) -> int:
        reg = readable(frame, dst)
        check_unary(env, dst, reg)
        frame.regs[dst] = (
            RegState(_SCALAR, transfer(reg.scalar)) if reg.type is _SCALAR else UNKNOWN_REG
        )
        return idx + 1

    return step


def compile_mov(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of a move, sign-extending move or address space cast."""
    dst, src = insn.dst, insn.src
    if not row.is_reg:
        return guard((), dst) or _mov_imm(idx, insn, row)
    if row.kind in (Kind.CAST_KERN, Kind.CAST_USER):
        if env.cfg.arena is None:
            raise Reject(Reason.CAST_NO_ARENA)
        return guard((src,), dst) or _cast(idx, insn, row)
    refused = guard((src,), dst)
    if refused:
        return refused
    if row.kind is Kind.MOVSX:
        return _movsx(idx, insn, row)
    return _mov64(idx, insn) if row.width == 64 else _mov32(idx, insn)


def _mov_imm(idx: int, insn: Insn, row: InsnDef) -> Step:
    dst = insn.dst
    value = const_reg(insn.imm if row.width == 64 else u32(insn.imm))

    def step(_env: Env, frame: FuncState) -> int:
        frame.regs[dst] = value
        return idx + 1

    return step


def _cast(idx: int, insn: Insn, row: InsnDef) -> Step:
    dst, src = insn.dst, insn.src
    result = _ARENA_REG if row.kind is Kind.CAST_KERN else UNKNOWN_REG

    def step(_env: Env, frame: FuncState) -> int:
        readable(frame, src)
        frame.regs[dst] = result
        return idx + 1

    return step


def with_id(env: Env, reg: RegState) -> RegState:
    """Return scalar *reg* fit to be related to a copy (kernel: assign_scalar_id_before_mov)."""
    if reg.id & ADD_CONST:
        reg = reg._replace(id=0, off=0)
    if not reg.id and reg.scalar.mask:
        return reg._replace(id=env.new_id())
    return reg


def _mov64(idx: int, insn: Insn) -> Step:
    dst, src, next_idx = insn.dst, insn.src, idx + 1

    def step(env: Env, frame: FuncState) -> int:
        regs = frame.regs
        reg = regs[src]
        if reg.type is _SCALAR:
            if reg.id & ADD_CONST or (reg.scalar.mask and not reg.id):
                regs[src] = reg = with_id(env, reg)
        elif reg.type is _NOT_INIT:
            raise Reject(Reason.NOT_READABLE, reg=src)
        regs[dst] = reg
        return next_idx

    return step


def _mov32(idx: int, insn: Insn) -> Step:
    dst, src = insn.dst, insn.src

    def step(env: Env, frame: FuncState) -> int:
        reg = readable(frame, src)
        if reg.type is not _SCALAR:
            check_mov(env, src, reg, 32)
            frame.regs[dst] = RegState(_SCALAR, env.domain.mov32(UNKNOWN))
            return idx + 1
        fits = bounds.is_u32(reg.scalar)
        if fits:
            frame.regs[src] = reg = with_id(env, reg)
        frame.regs[dst] = RegState(
            _SCALAR, env.domain.mov32(reg.scalar), reg.off if fits else 0, reg.id if fits else 0
        )
        return idx + 1

    return step


def _movsx(idx: int, insn: Insn, row: InsnDef) -> Step:
    dst, src, bits, width = insn.dst, insn.src, row.sx, row.width
    keeps_below = 1 << (bits - 1)

    def step(env: Env, frame: FuncState) -> int:
        reg = readable(frame, src)
        if reg.type is not _SCALAR:
            check_mov(env, src, reg, width)
            unknown = UNKNOWN if width == 64 else env.domain.mov32(UNKNOWN)
            frame.regs[dst] = RegState(_SCALAR, unknown)
            return idx + 1
        keeps = reg.scalar.umax < keeps_below
        if keeps:
            frame.regs[src] = reg = with_id(env, reg)
        result = env.domain.movsx(width, bits, reg.scalar)
        frame.regs[dst] = RegState(_SCALAR, result, reg.off if keeps else 0, reg.id if keeps else 0)
        return idx + 1

    return step


def imm_operand(insn: Insn) -> Scalar:
    """Return a jump's immediate as the walk compares it: sign-extended."""
    return bounds.const(to_unsigned(insn.imm, 64))


def jmp_op(row: InsnDef) -> JmpOp:
    """Return the condition of jump *row*."""
    if not isinstance(row.op, JmpOp):
        raise InternalError(f"{row.mnemonic} has no condition")
    return row.op
