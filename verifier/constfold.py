"""What registers hold whatever path is taken, and the branches that this decides.

Kernel 7.3 looks for constants before the walk and makes a `goto` of a branch that can only go one
way, so that nothing behind its other side counts (bpf_compute_const_regs,
bpf_prune_dead_branches). Nothing is learnt from branches, and nothing survives a call but r6-r9.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, unique
from typing import NamedTuple

from bpfvm import isa
from bpfvm.bits import U32_MAX, U64_MAX, s32, s64, sext
from bpfvm.insn import Insn
from bpfvm.isa import AluOp, JmpOp, Kind, LdKind
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import MapFacts
from verifier.graph import successors

__all__ = ["Known", "Knowns", "What", "find_constants", "fold"]

_JA = 0x05
_FIRST_SAVED = 6


@unique
class What(Enum):
    """What is known of a register."""

    NOTHING = "nothing"
    NUMBER = "number"
    MAP = "map"
    MAP_VALUE = "map value"
    SUBPROG = "subprog"


class Known(NamedTuple):
    """Of one register: a number, an offset into a map's value, or a subprog's first slot; and
    which map. As in the kernel, one that is of no use here stays as it was, and two that differ in
    it are not the same."""

    what: What
    value: int = 0
    map: int = 0


#: Of r0-r10, before an insn.
Knowns = tuple[Known, ...]

_NOTHING = Known(What.NOTHING)
_ENTRY: Knowns = (_NOTHING,) * 11


def find_constants(
    insns: Sequence[Insn],
    rows: Sequence[isa.InsnDef | None],
    orders: Sequence[Sequence[int]],
    facts: Sequence[MapFacts],
) -> list[Knowns | None]:
    """Return what is known before each slot; None where no subprog's *orders* leads."""
    before: list[Knowns | None] = [None] * len(insns)
    for order in orders:
        before[order[-1]] = _ENTRY
        changed = True
        while changed:
            changed = False
            for idx in reversed(order):
                known = before[idx]
                assert known is not None  # narrowing: an insn that leads here came first
                after = _transfer(known, idx, insns, rows[idx], facts)
                for nxt in successors(idx, insns[idx]):
                    old = before[nxt]
                    if old is None:
                        before[nxt], changed = after, True
                    elif old != after:
                        joined = _join(old, after)
                        if joined != old:
                            before[nxt], changed = joined, True
    return before


def _join(old: Knowns, new: Knowns) -> Knowns:
    return tuple(
        a if a == b or a.what is What.NOTHING else a._replace(what=What.NOTHING)
        for a, b in zip(old, new, strict=True)
    )


def _transfer(
    known: Knowns,
    idx: int,
    insns: Sequence[Insn],
    row: isa.InsnDef | None,
    facts: Sequence[MapFacts],
) -> Knowns:
    """Return what is known after slot *idx*."""
    if row is None:
        return known
    insn = insns[idx]
    match row.kind:
        case Kind.CALL | Kind.LD_ABS | Kind.LD_IND:
            return (_NOTHING,) * _FIRST_SAVED + known[_FIRST_SAVED:]
        case Kind.ALU | Kind.MOV | Kind.MOVSX:
            new = _computed(known, insn, row)
        case Kind.NEG | Kind.END | Kind.CAST_KERN | Kind.CAST_USER | Kind.LOAD_ACQ:
            new = _NOTHING
        case Kind.LDIMM64:
            new = _constant(known[insn.dst], idx, insns, row)
        case Kind.LDX if insn.src > isa.MAX_REG:
            new = _NOTHING  # an argument on the stack
        case Kind.LDX:
            new = _loaded(known, insn, row, facts)
        case Kind.ATOMIC if row.fetch or row.op is isa.AtomicOp.CMPXCHG:
            at = 0 if row.op is isa.AtomicOp.CMPXCHG else insn.src
            return (*known[:at], _NOTHING, *known[at + 1 :])
        case _:
            return known
    dst = insn.dst
    return known if new == known[dst] else (*known[:dst], new, *known[dst + 1 :])


def _computed(known: Knowns, insn: Insn, row: isa.InsnDef) -> Known:
    a = known[insn.dst]
    b = known[insn.src] if row.is_reg else Known(What.NUMBER, insn.imm & U64_MAX)
    new = _NOTHING
    if row.kind is Kind.MOV:
        new = b if row.is_reg else a._replace(what=What.NUMBER, value=b.value)
    elif row.kind is Kind.MOVSX:
        if b.what is What.NUMBER:
            new = b._replace(value=sext(b.value, row.sx) & U64_MAX)
    elif row.op in (AluOp.ADD, AluOp.SUB) and not row.is_reg:
        if a.what in (What.NUMBER, What.MAP_VALUE):
            by = insn.imm if row.op is AluOp.ADD else -insn.imm
            new = a._replace(value=(a.value + by) & U64_MAX)
    elif row.op is AluOp.AND:
        if a.what is What.NUMBER and b.what is What.NUMBER:
            new = a._replace(value=a.value & b.value)
        elif (a.what is What.NUMBER and not a.value) or (b.what is What.NUMBER and not b.value):
            new = a._replace(what=What.NUMBER, value=0)
    if row.width == 64:
        return new
    return new._replace(value=new.value & U32_MAX) if new.what is What.NUMBER else _NOTHING


def _constant(before: Known, idx: int, insns: Sequence[Insn], row: isa.InsnDef) -> Known:
    insn, second = insns[idx], insns[idx + 1].imm
    match row.op:
        case LdKind.IMM64:
            value = insn.imm & U32_MAX | (second & U32_MAX) << 32
            return before._replace(what=What.NUMBER, value=value)
        case LdKind.FUNC:
            return before._replace(what=What.SUBPROG, value=idx + 1 + insn.imm)
        case LdKind.MAP_IDX:
            return before._replace(what=What.MAP, map=insn.imm)
        case LdKind.MAP_IDX_VALUE:
            return Known(What.MAP_VALUE, second & U32_MAX, insn.imm)
        case _:
            return _NOTHING


def _loaded(known: Knowns, insn: Insn, row: isa.InsnDef, facts: Sequence[MapFacts]) -> Known:
    """Return what a load gives: a number where it is from a map that nobody can write."""
    base = known[insn.src]
    if base.what is not What.MAP_VALUE:
        return _NOTHING
    fact = facts[base.map]
    defn = fact.defn
    off = s32(base.value + insn.off)
    if (
        fact.contents is None
        or not defn.flags & MapFlags.RDONLY_PROG
        or defn.map_type == MapType.PERCPU_ARRAY
        or not 0 <= off <= defn.value_size - row.size
    ):
        return _NOTHING
    value = int.from_bytes(fact.contents[off : off + row.size], "little")
    if row.sx:
        value = sext(value, row.sx) & U64_MAX
    return known[insn.dst]._replace(what=What.NUMBER, value=value)


def fold(
    insns: Sequence[Insn], rows: Sequence[isa.InsnDef | None], before: Sequence[Knowns | None]
) -> list[Insn]:
    """Return *insns* with the conditional jumps that can only go one way turned into gotos. Only
    numbers that fit in 32 bits decide."""
    folded = list(insns)
    for idx, (insn, row, known) in enumerate(zip(insns, rows, before, strict=True)):
        if row is None or known is None or row.kind is not Kind.JCOND:
            continue
        a = known[insn.dst]
        b = known[insn.src] if row.is_reg else Known(What.NUMBER, insn.imm & U64_MAX)
        is_decided = (
            a.what is b.what is What.NUMBER
            and a.value <= U32_MAX
            and (b.value <= U32_MAX or not row.is_reg)
        )
        if is_decided and isinstance(row.op, JmpOp):
            taken = _is_taken(row.op, row.width, a.value, b.value)
            folded[idx] = Insn(_JA, off=insn.off if taken else 0)
    return folded


def _is_taken(op: JmpOp, width: int, a: int, b: int) -> bool:
    if width == 32:  # sign-extended, 32-bit numbers keep their order, signed or not
        a, b = s32(a) & U64_MAX, s32(b) & U64_MAX
    x, y = s64(a), s64(b)
    match op:
        case JmpOp.JEQ:
            return a == b
        case JmpOp.JNE:
            return a != b
        case JmpOp.JGT:
            return a > b
        case JmpOp.JGE:
            return a >= b
        case JmpOp.JLT:
            return a < b
        case JmpOp.JLE:
            return a <= b
        case JmpOp.JSGT:
            return x > y
        case JmpOp.JSGE:
            return x >= y
        case JmpOp.JSLT:
            return x < y
        case JmpOp.JSLE:
            return x <= y
        case JmpOp.JSET:
            return bool(a & b)
