"""Conditional jumps: which way they go, and what each way teaches about registers.

Rules: Linux 6.18 (check_cond_jmp_op). Beyond scalars a branch can prove a pointer not null, or
that bytes up to a pointer lie inside the packet.
"""

from __future__ import annotations

from bpfvm.insn import Insn
from bpfvm.isa import AluOp, InsnDef, JmpOp
from verifier import branch
from verifier.bounds import ZERO, Scalar, const
from verifier.domain import Domain
from verifier.env import Env, Step
from verifier.fields import check_fields
from verifier.lookups import proven
from verifier.precision import mark_reg
from verifier.privs import check_comparison
from verifier.resources import drop
from verifier.speculation import leave_mispredicted
from verifier.state import (
    ADD_CONST,
    ADD_CONST32,
    AT_PKT_END,
    BEYOND_PKT_END,
    ZERO_REG,
    Base,
    FuncState,
    LinkedReg,
    Mod,
    RegState,
    RegType,
    VerifierState,
    replace_regs,
    scalar_reg,
)
from verifier.transfer import guard, imm_operand, jmp_op, readable
from verifier.widen import find_previous, widen

__all__ = ["compile_ja", "compile_jcond", "compile_may_goto"]

#: kernel: MAX_PACKET_OFF, BPF_MAX_VAR_OFF
MAX_PACKET_OFF = 0xFFFF
MAX_VAR_OFF = 1 << 29

_SCALAR = RegType.SCALAR
_NOT_NULL = (
    Base.MAP_VALUE,
    Base.MAP_KEY,
    Base.MAP_PTR,
    Base.MEM,
    Base.SOCKET,
    Base.SOCK_COMMON,
    Base.TCP_SOCK,
)
_MAYBE = Mod.MAYBE_NULL | Mod.UNTRUSTED
_PACKET_TYPES = (RegType.PACKET, RegType.PACKET_META, RegType.PACKET_END)


def _is_surely_set(env: Env, pointer: RegState) -> bool:
    """Say whether *pointer*, of a type that is never NULL, is not moved so far that it might be.

    An arena pointer may be 0 at any time.
    """
    if pointer.type is RegType.ARENA:
        return False
    low, high = pointer.scalar.smin + pointer.off, pointer.scalar.smax + pointer.off
    return not env.rules.pointer_off_in_range or -MAX_VAR_OFF < low <= high < MAX_VAR_OFF


def compile_ja(_env: Env, _idx: int, target: int) -> Step:
    """Return the step of an unconditional jump."""
    return lambda _env, _frame: target


def compile_may_goto(_env: Env, idx: int, target: int) -> Step:
    """Return the step of may_goto: the way out is walked first, the loop's next turn is left for
    later with what changes from turn to turn forgotten, so that it ends."""

    def step(env: Env, _frame: FuncState) -> int:
        previous = find_previous(env, idx)
        again = env.push(idx + 1, enomem=True)
        again.may_goto_depth += 1
        if previous is not None:
            widen(env, previous, again)
        return target

    return step


def compile_jcond(env: Env, idx: int, insn: Insn, row: InsnDef, target: int) -> Step:
    """Return the step of a conditional jump."""
    readable(env.cur.frames[-1], insn.dst)
    check_fields(insn)
    dst, src, is_reg, width = insn.dst, insn.src, row.is_reg, row.width
    refused = guard((dst, src) if is_reg else (dst,))
    if refused:
        return refused
    op, next_idx = jmp_op(row), idx + 1
    compare = env.domain.comparison(op)
    imm = scalar_reg(imm_operand(insn))
    is_equality = width == 64 and op in (JmpOp.JEQ, JmpOp.JNE)

    def step(env: Env, frame: FuncState) -> int:
        a = readable(frame, dst)
        b = readable(frame, src) if is_reg else imm
        if b.type is not _SCALAR and not (a.type in _PACKET_TYPES and b.type in _PACKET_TYPES):
            check_comparison(env, src, b)
        taken, ways = None, None
        if dst == src and is_reg and env.rules.same_register_decided:
            taken = _same_taken(op, width, a)
        elif a.type is _SCALAR and b.type is _SCALAR:
            outcome = compare(width, a.scalar, b.scalar)
            if isinstance(outcome, bool):
                taken = outcome
            else:
                ways = outcome
        else:
            taken = _pointer_taken(op, width, a, b)
        if taken is not None:
            if a.type is _SCALAR:
                mark_reg(env, dst)
            if is_reg and b.type is _SCALAR:
                mark_reg(env, src)
            leave_mispredicted(env, next_idx if taken else target, dst, src if is_reg else None)
            if env.log.on:
                env.log.state(idx, frame)
            return target if taken else next_idx
        if is_reg and is_equality and env.rules.null_check_by_register:
            _rely_on_zero(env, src, a, b)
        linked: tuple[LinkedReg, ...] = ()
        if a.id or b.id:
            linked = _collect(env, a, b)
            a, b = frame.regs[dst], frame.regs[src] if is_reg else imm
        other = env.push(target)
        there = other.frames[-1]
        if a.type is _SCALAR and b.type is _SCALAR:
            if ways is not None and dst == src and is_reg:
                # The way that cannot be gone may lose all its members: 6.18 warns of it.
                there.regs[dst] = a._replace(scalar=branch.refine_same(op, width, a.scalar, True))
                frame.regs[dst] = a._replace(scalar=branch.refine_same(op, width, a.scalar, False))
            elif ways is not None:
                (x, y), (v, w) = ways
                there.regs[dst] = a._replace(scalar=x)
                frame.regs[dst] = a._replace(scalar=v)
                if is_reg:
                    there.regs[src] = b._replace(scalar=y)
                    frame.regs[src] = b._replace(scalar=w)
            if linked:
                if is_reg and b.id:
                    _sync(env, env.cur, src, linked)
                    _sync(env, other, src, linked)
                if a.id:
                    _sync(env, env.cur, dst, linked)
                    _sync(env, other, dst, linked)
        elif is_equality and (nullable := _null_tested(a, b)) is not None:
            if not is_reg or env.rules.null_check_by_register:
                keeps = env.rules.null_check_keeps_id or (
                    nullable.type.base is Base.MAP_VALUE and nullable.arg in env.locked_maps
                )
                _settle_null(env, env.cur, nullable.id, is_null=op is JmpOp.JNE, keeps_id=keeps)
                _settle_null(env, other, nullable.id, is_null=op is JmpOp.JEQ, keeps_id=keeps)
            else:
                check_comparison(env, dst, a)
        elif not (is_reg and width == 64 and _compare_pointers(env, other, op, dst, src, a, b)):
            check_comparison(env, dst, a)
        if env.log.on:
            env.log.state(idx, frame)
        return next_idx

    return step


# -- which way ---------------------------------------------------------------------------------


def _pointer_taken(op: JmpOp, width: int, a: RegState, b: RegState) -> bool | None:
    """Predict a comparison with a pointer on one side at least.

    Only whole pointers are predicted: their low halves may well be zero.
    """
    if width != 64:
        return None
    if a.type in _PACKET_TYPES and b.type in _PACKET_TYPES:
        return _packet_taken(op, a, b)
    pointer, zero = (a, b) if b.type is _SCALAR else (b, a)
    if zero.type is not _SCALAR or zero.scalar != ZERO:
        return None
    if pointer.type.base not in _NOT_NULL or pointer.type.mods & _MAYBE:
        return None
    if op is JmpOp.JEQ:
        return False
    return True if op is JmpOp.JNE else None


_ALWAYS_SAME = (JmpOp.JEQ, JmpOp.JGE, JmpOp.JLE, JmpOp.JSGE, JmpOp.JSLE)


def _same_taken(op: JmpOp, width: int, reg: RegState) -> bool | None:
    """Predict a comparison of a register with itself."""
    if op is not JmpOp.JSET:
        return op in _ALWAYS_SAME
    if reg.type is not _SCALAR:
        return None
    s = reg.scalar
    low, high = (s.smin, s.smax) if width == 64 else (s.s32_min, s.s32_max)
    return True if low > 0 or high < 0 else branch.is_taken(op, width, s, s)


def _null_tested(a: RegState, b: RegState) -> RegState | None:
    """Return *a* where it is a maybe-null pointer and *b* a known 0; the kernel does not ask the
    other way round."""
    return a if a.type.may_be_null and b.type is _SCALAR and b.scalar == ZERO else None


def _rely_on_zero(env: Env, src: int, a: RegState, b: RegState) -> None:
    """A register that stands for NULL in a null check must stay 0."""
    if _null_tested(a, b) is not None:
        mark_reg(env, src)


_FLIPPED = {
    JmpOp.JGT: JmpOp.JLT,
    JmpOp.JGE: JmpOp.JLE,
    JmpOp.JLT: JmpOp.JGT,
    JmpOp.JLE: JmpOp.JGE,
}


def _packet_taken(op: JmpOp, a: RegState, b: RegState) -> bool | None:
    """Predict a repeated comparison with the packet's end by the marker the first one left."""
    if b.type is RegType.PACKET_END:
        packet, flipped = a, op
    elif a.type is RegType.PACKET_END and op in _FLIPPED:
        packet, flipped = b, _FLIPPED[op]
    else:
        return None
    if packet.type is not RegType.PACKET or packet.arg >= 0:
        return None
    if flipped in (JmpOp.JGT, JmpOp.JLE):
        return flipped is JmpOp.JGT if packet.arg == BEYOND_PKT_END else None
    if flipped in (JmpOp.JGE, JmpOp.JLT):
        return flipped is JmpOp.JGE
    return None


# -- linked scalars ----------------------------------------------------------------------------


def _collect(env: Env, a: RegState, b: RegState) -> tuple[LinkedReg, ...]:
    """Return the scalars related to either operand; more than the limit lose their relation.

    Registers that nothing reads any more are left out (kernel: collect_linked_regs).
    """
    ids = {r.id & ~ADD_CONST for r in (a, b) if r.type is _SCALAR and r.id}
    if not ids:
        return ()
    limit = env.rules.linked_regs
    state = env.cur
    found: list[LinkedReg] = []
    for frame in reversed(state.frames):
        live = env.cfg.live[state.frame_insn(frame.frameno)]
        for regno, reg in enumerate(frame.regs):
            if reg.type is _SCALAR and reg.id and live >> regno & 1 and reg.id & ~ADD_CONST in ids:
                if len(found) < limit:
                    found.append((frame.frameno, True, regno))
                else:
                    frame.regs[regno] = reg._replace(id=0, off=0)
        for spi, slot in frame.stack.items():
            spilled = slot.spilled
            if spilled is None or spilled.type is not _SCALAR or not spilled.id:
                continue
            if spilled.id & ~ADD_CONST in ids:
                if len(found) < limit:
                    found.append((frame.frameno, False, spi))
                else:
                    frame.stack[spi] = slot._replace(spilled=spilled._replace(id=0, off=0))
    if len(found) < 2:
        return ()
    env.note_linked(found)
    return tuple(found)


def _sync(env: Env, state: VerifierState, regno: int, linked: tuple[LinkedReg, ...]) -> None:
    """Give what is now known of *regno* to the scalars it is linked with."""
    top = state.frames[-1]
    known = top.regs[regno]
    for frameno, is_reg, at in linked:
        frame = state.frames[frameno]
        if is_reg and frame is top and at == regno:
            continue
        slot = None if is_reg else frame.stack[at]
        reg = frame.regs[at] if slot is None else slot.spilled
        if reg is None or (reg.id ^ known.id) & ~ADD_CONST or not reg.id:
            continue
        scalar = _linked_value(env.domain, reg, known)
        if scalar is None:
            continue
        new = reg._replace(scalar=scalar)
        if slot is None:
            frame.regs[at] = new
        else:
            frame.stack[at] = slot._replace(spilled=new)


def _linked_value(domain: Domain, reg: RegState, known: RegState) -> Scalar | None:
    """Return what *known* tells of *reg*, None for nothing: one is linked in 64 bits, one in 32
    (kernel: sync_linked_regs)."""
    kinds = (reg.id | known.id) & ADD_CONST
    if kinds == ADD_CONST:
        return None
    if reg.off == known.off:
        return known.scalar
    scalar = domain.transfer[AluOp.ADD](64, known.scalar, const(reg.off - known.off))
    return domain.mov32(scalar) if kinds & ADD_CONST32 else scalar


# -- pointers ----------------------------------------------------------------------------------


def _settle_null(
    env: Env, state: VerifierState, id_: int, *, is_null: bool, keeps_id: bool
) -> None:
    """Make every copy of a maybe-null pointer what the test proved it to be."""

    def change(reg: RegState) -> RegState | None:
        if not reg.type.may_be_null or reg.id != id_:
            return None
        if is_null:
            if reg.ref == id_:
                drop(state, id_)  # nothing was acquired
            return ZERO_REG
        return proven(env, reg)._replace(id=reg.id if keeps_id else 0)

    replace_regs(state, change)


def _compare_pointers(
    env: Env,
    there: VerifierState,
    op: JmpOp,
    dst: int,
    src: int,
    a: RegState,
    b: RegState,
) -> bool:
    """Learn from comparing two registers of which one at least is a pointer; say whether they
    are a packet pointer and its bound."""
    if a.type is _SCALAR or b.type is _SCALAR:
        return False
    if a.type.may_be_null != b.type.may_be_null and op in (JmpOp.JEQ, JmpOp.JNE):
        equal = there if op is JmpOp.JEQ else env.cur
        regno, reg, pointer = (dst, a, b) if a.type.may_be_null else (src, b, a)
        if _is_surely_set(env, pointer):
            equal.frames[-1].regs[regno] = proven(env, reg)
        return False
    return _compare_packet(env.cur, there, op, dst, src, a, b)


def _is_end(pointer: RegState, end: RegState) -> bool:
    """Say whether *end* bounds *pointer*: the packet's end, or its start for the metadata."""
    if pointer.type is RegType.PACKET:
        return end.type is RegType.PACKET_END
    return (
        pointer.type is RegType.PACKET_META
        and end.type is RegType.PACKET
        and not end.off
        and not end.id
        and end.scalar == ZERO
    )


#: Per comparison `pointer op end`: whether the proof holds where the jump is taken, and whether
#: it is strict (`pointer < end`).
_PROOFS = {
    JmpOp.JGT: (False, False),
    JmpOp.JLT: (True, True),
    JmpOp.JGE: (False, True),
    JmpOp.JLE: (True, False),
}


def _compare_packet(
    here: VerifierState,
    there: VerifierState,
    op: JmpOp,
    dst: int,
    src: int,
    a: RegState,
    b: RegState,
) -> bool:
    if op not in _PROOFS:
        return False
    if _is_end(a, b):
        pointer, regno = a, dst
    elif _is_end(b, a):
        pointer, regno, op = b, src, _FLIPPED[op]
    else:
        return False
    when_taken, is_strict = _PROOFS[op]
    inside, outside = (there, here) if when_taken else (here, there)
    _prove(inside, pointer, is_strict)
    if pointer.type is RegType.PACKET:
        regs = outside.frames[-1].regs
        regs[regno] = regs[regno]._replace(arg=AT_PKT_END if is_strict else BEYOND_PKT_END)
    return True


def _prove(state: VerifierState, pointer: RegState, is_strict: bool) -> None:
    """Note that the bytes before *pointer* (and one more, if strict) are in the packet."""
    off = pointer.off
    if off < 0 or (off == 0 and is_strict) or pointer.scalar.umax + off > MAX_PACKET_OFF:
        return
    proven = off + 1 if is_strict else off

    def change(reg: RegState) -> RegState | None:
        if reg.type is pointer.type and reg.id == pointer.id and reg.arg < proven:
            return reg._replace(arg=proven)
        return None

    replace_regs(state, change)
