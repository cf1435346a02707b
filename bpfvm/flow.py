"""Control flow that both engines and the loaders share: targets, basic blocks, structure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from bpfvm import isa
from bpfvm.errors import LoadError
from bpfvm.insn import Insn
from bpfvm.isa import AtomicOp, CallKind, Kind, LdKind
from bpfvm.program import Subprog

__all__ = ["Block", "basic_blocks", "check_structure", "find_subprogs", "jump_target", "leaders"]


def jump_target(slot: int, insn: Insn, row: isa.InsnDef) -> int | None:
    """Return the slot that *insn* may jump to or call locally, or None where it does neither."""
    match row.kind:
        case Kind.JA:
            return slot + 1 + (insn.imm if row.form is isa.Form.TARGET_IMM else insn.off)
        case Kind.JCOND | Kind.MAY_GOTO:
            return slot + 1 + insn.off
        case Kind.CALL if row.op is CallKind.LOCAL:
            return slot + 1 + insn.imm
        case _:
            return None


def find_subprogs(
    insns: Sequence[Insn], names: dict[int, str] | None = None
) -> tuple[Subprog, ...]:
    """Return the subprogs of *insns*: slot 0, every local call's target and every FUNC ldimm64's.

    Targets outside the program are left for the caller's own checks. *names* gives names by
    start slot; others are "main" and "subprog_N".
    """
    starts = {0}
    slot = 0
    while slot < len(insns):
        insn = insns[slot]
        row = isa.lookup(insn)
        if row is not None and (
            (row.kind is Kind.CALL and row.op is CallKind.LOCAL)
            or (row.kind is Kind.LDIMM64 and row.op is LdKind.FUNC)
        ):
            starts.add(slot + 1 + insn.imm)
        slot += 2 if row is not None and row.kind is Kind.LDIMM64 else 1
    inside = sorted(s for s in starts if 0 <= s < len(insns))
    names = names or {}
    return tuple(
        Subprog(start, end, names.get(start) or (f"subprog_{start}" if start else "main"))
        for start, end in pairwise([*inside, len(insns)])
    )


def leaders(insns: Sequence[Insn]) -> frozenset[int]:
    """Return the first slots of the basic blocks of *insns* (structurally checked): entries of
    subprogs, jump targets, and the slots after jumps, calls of any kind, and exits."""
    found = {0}
    slot = 0
    while slot < len(insns):
        insn = insns[slot]
        row = isa.lookup(insn)
        if row is None:
            slot += 1
            continue
        target = jump_target(slot, insn, row)
        if target is not None:
            found.add(target)
        after = slot + (2 if row.kind is Kind.LDIMM64 else 1)
        if target is not None or row.kind in (Kind.EXIT, Kind.CALL, Kind.CALLX):
            found.add(after)
        if row.kind is Kind.LDIMM64 and row.op is LdKind.FUNC:
            found.add(slot + 1 + insn.imm)
        slot = after
    return frozenset(s for s in found if s < len(insns))


class Block(NamedTuple):
    """Slots [start, end) that run one after the other; *cost* insns (an ldimm64 is one)."""

    start: int
    end: int
    cost: int


def basic_blocks(insns: Sequence[Insn]) -> tuple[Block, ...]:
    """Return the basic blocks of *insns* (see `leaders`), in order, covering every slot."""
    blocks = []
    for start, end in pairwise([*sorted(leaders(insns)), len(insns)]):
        slot = start
        cost = 0
        while slot < end:
            row = isa.lookup(insns[slot])
            slot += 2 if row is not None and row.kind is Kind.LDIMM64 else 1
            cost += 1
        blocks.append(Block(start, end, cost))
    return tuple(blocks)


def _writes_frame_pointer(insn: Insn, row: isa.InsnDef) -> bool:
    if isa.writes_dst(row):
        return insn.dst == isa.MAX_REG
    # A fetching atomic returns the old value in src, except cmpxchg (r0).
    return row.fetch and row.op is not AtomicOp.CMPXCHG and insn.src == isa.MAX_REG


def check_structure(insns: Sequence[Insn]) -> None:
    """Check that *insns* mean something at all: what even the sandbox needs before it runs.

    Raises:
        LoadError: naming the slot: an unknown opcode, a nonzero reserved field, a register above
            r10, a write of r10, a jump or call out of the program or into the middle of an
            ldimm64, or a last insn that falls through.
    """
    second: set[int] = set()
    rows: list[isa.InsnDef | None] = [None] * len(insns)
    slot = 0
    while slot < len(insns):
        insn = insns[slot]
        row = isa.lookup(insn)
        if row is None or row.arena:
            known = isa.is_known_opcode(insn.opcode)
            what = "invalid fields of opcode" if known else "unknown opcode"
            raise LoadError(f"insn {slot}: {what} {insn.opcode:02x}")
        if isa.has_reserved_bits(insn, row):
            raise LoadError(f"insn {slot}: {row.mnemonic}: a reserved field is not zero")
        passed = isa.stack_arg(insn)
        if passed is not None and passed >= isa.MAX_STACK_ARGS:
            raise LoadError(f"insn {slot}: at most {isa.MAX_STACK_ARGS} arguments on the stack")
        for reg, used in ((insn.dst, "dst"), (insn.src, "src")):
            is_base = reg == isa.PARAMS_REG and passed is not None
            if used in row.form.fields and reg > isa.MAX_REG and not is_base:
                raise LoadError(f"insn {slot}: R{reg} is invalid")
        rows[slot] = row
        if row.kind is Kind.LDIMM64:
            nxt = insns[slot + 1] if slot + 1 < len(insns) else None
            if nxt is None or nxt[:4] != (0, 0, 0, 0):
                raise LoadError(f"insn {slot}: invalid bpf_ld_imm64 insn")
            second.add(slot + 1)
            slot += 1
        slot += 1
    for slot, row in enumerate(rows):
        if row is None:
            continue
        insn = insns[slot]
        if _writes_frame_pointer(insn, row):
            raise LoadError(f"insn {slot}: frame pointer is read only")
        target = jump_target(slot, insn, row)
        if target is None and row.kind is Kind.LDIMM64 and row.op is LdKind.FUNC:
            target = slot + 1 + insn.imm
        if target is not None and not 0 <= target < len(insns):
            raise LoadError(f"jump out of range from insn {slot} to {target}")
        if target is not None and target in second:
            raise LoadError(f"insn {slot}: jump into the middle of ldimm64 insn {target}")
    last = rows[-1]
    if last is None or last.kind not in (Kind.EXIT, Kind.JA):
        raise LoadError("last insn is not an exit or jmp")
