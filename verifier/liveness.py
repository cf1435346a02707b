"""Which stack slots may still be read: a slot that isn't cannot make two states differ.

Per subprog, over the CFG: a forward pass tells which registers hold the frame pointer plus a
constant, a backward pass which slots are read from there on. Where a frame's address gets out
(stored, or handed to a subprog), all its slots count as live everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from bpfvm.insn import Insn
from bpfvm.isa import AluOp, AtomicOp, CallKind, InsnDef, Kind
from verifier.cfg import Cfg, successors
from verifier.state import FP_REG

__all__ = ["ALL_SLOTS", "live_slots"]

#: Every slot of a frame.
ALL_SLOTS = (1 << 64) - 1
#: Beside constants: no frame address, and one with an unknown offset.
_NONE, _ANY = None, "any"
_Offset = int | str | None
_Regs = tuple[_Offset, ...]

_ENTRY: _Regs = (_NONE,) * FP_REG + (0,)


class _EscapedError(Exception):
    """The frame's address gets out."""


def live_slots(insns: Sequence[Insn], cfg: Cfg) -> list[int]:
    """Return, per slot of the program, the bits of the frame's stack slots live before it."""
    live = [ALL_SLOTS] * len(insns)
    ends = [*cfg.starts[1:], len(insns)]
    for start, end in zip(cfg.starts, ends, strict=True):
        try:
            regs = _trace_fp(insns, cfg, start)
            effects = {idx: _effect(insns[idx], cfg.rows[idx], at) for idx, at in regs.items()}
        except _EscapedError:
            continue
        _backward(insns, start, end, effects, live)
    return live


def _trace_fp(insns: Sequence[Insn], cfg: Cfg, start: int) -> dict[int, _Regs]:
    """Return what the registers hold of the frame's address before each insn of a subprog."""
    before: dict[int, _Regs] = {start: _ENTRY}
    todo = [start]
    while todo:
        idx = todo.pop()
        insn = insns[idx]
        row = cfg.rows[idx]
        regs = before[idx]
        after = regs if row is None else _after(insn, row, regs)
        for nxt in successors(idx, insn):
            known = before.get(nxt)
            merged = after if known is None else _merged(known, after)
            if merged != known:
                before[nxt] = merged
                todo.append(nxt)
    return before


def _merged(a: _Regs, b: _Regs) -> _Regs:
    return tuple(x if x == y else _ANY for x, y in zip(a, b, strict=True))


def _after(insn: Insn, row: InsnDef, regs: _Regs) -> _Regs:
    new: _Offset
    match row.kind:
        case Kind.MOV if row.is_reg:
            new = _get(regs, insn.src)
        case Kind.ALU:
            new = _sum(insn, row, regs)
        case Kind.CALL | Kind.CALLX | Kind.LD_ABS | Kind.LD_IND:
            return (_NONE,) * 6 + regs[6:]
        case Kind.ATOMIC if row.fetch:
            return _set(regs, 0 if row.op is AtomicOp.CMPXCHG else insn.src, _NONE)
        case Kind.NEG | Kind.END | Kind.MOV | Kind.MOVSX | Kind.LDIMM64 | Kind.LDX | Kind.LOAD_ACQ:
            new = _NONE
        case Kind.CAST_KERN | Kind.CAST_USER:
            new = _NONE
        case _:
            return regs
    return _set(regs, insn.dst, new)


def _get(regs: _Regs, regno: int) -> _Offset:
    return regs[regno] if regno <= FP_REG else _NONE


def _set(regs: _Regs, regno: int, value: _Offset) -> _Regs:
    if regno >= FP_REG or regs[regno] == value:
        return regs
    return (*regs[:regno], value, *regs[regno + 1 :])


def _sum(insn: Insn, row: InsnDef, regs: _Regs) -> _Offset:
    dst = _get(regs, insn.dst)
    if row.is_reg and _get(regs, insn.src) is not _NONE:
        return _ANY
    if dst is _NONE:
        return _NONE
    if isinstance(dst, int) and not row.is_reg and row.op is AluOp.ADD and row.width == 64:
        return dst + insn.imm
    return _ANY


def _effect(insn: Insn, row: InsnDef | None, regs: _Regs) -> tuple[int, int]:
    """Return the bits of the slots that an insn reads and wholly overwrites."""
    if row is None:
        return 0, 0
    match row.kind:
        case Kind.LDX | Kind.LOAD_ACQ:
            return _span(_get(regs, insn.src), insn.off, row.size), 0
        case Kind.ATOMIC:
            if _get(regs, insn.src) is not _NONE:
                raise _EscapedError
            return _span(_get(regs, insn.dst), insn.off, row.size), 0
        case Kind.STX | Kind.STORE_REL if _get(regs, insn.src) is not _NONE:
            raise _EscapedError
        case Kind.ST | Kind.STX | Kind.STORE_REL:
            base = _get(regs, insn.dst)
            if isinstance(base, int) and row.size == 8 and (base + insn.off) % 8 == 0:
                return 0, _span(base, insn.off, 8)
            return 0, 0
        case Kind.CALL if row.op is CallKind.LOCAL:
            if any(at is not _NONE for at in regs[1:6]):
                raise _EscapedError
            return 0, 0
        case Kind.CALL | Kind.CALLX:
            # A callee reads upwards from the address it is given, how far is its own affair.
            reads = 0
            for at in regs[1:6]:
                reads |= _span(at, 0, -at if isinstance(at, int) and at < 0 else 8)
            return reads, 0
        case _:
            return 0, 0


def _span(base: _Offset, off: int, size: int) -> int:
    """Return the bits of the slots that [base + off, + size) touches."""
    if base is _NONE:
        return 0
    if not isinstance(base, int):
        return ALL_SLOTS
    low = base + off
    bits = 0
    for spi in range(max(0, -(low + size) // 8), (-low - 1) // 8 + 1):
        if 0 <= spi < 64:
            bits |= 1 << spi
    return bits


def _backward(
    insns: Sequence[Insn],
    start: int,
    end: int,
    effects: dict[int, tuple[int, int]],
    live: list[int],
) -> None:
    for idx in effects:
        live[idx] = 0
    changed = True
    while changed:
        changed = False
        for idx in range(end - 1, start - 1, -1):
            effect = effects.get(idx)
            if effect is None:
                continue
            after = 0
            for nxt in successors(idx, insns[idx]):
                after |= live[nxt]
            before = (after & ~effect[1]) | effect[0]
            if before != live[idx]:
                live[idx] = before
                changed = True
