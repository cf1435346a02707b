"""Writing insns by the names of their rows: what program generators share."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from bpfvm.bits import s32
from bpfvm.insn import Insn
from bpfvm.isa import TABLE, InsnDef, Kind, LdKind

__all__ = ["EDGES", "NUMBER_FIELDS", "Emitter", "edge_number", "joined", "rows", "rows_by_name"]

#: Numbers at which something begins or ends.
EDGES = (0, 1, -1, 2, 7, 31, 32, 63, 64, 255, -128, 0x7FFF, 0x7FFFFFFF, -0x80000000)
_SKB = (0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 68, 84, 164, 176)
#: Offsets of the 4-byte numbers that every program of a type may read from its context. A list of
#: its own: the programs of a seed stay what they are when the contexts learn more fields.
NUMBER_FIELDS = {
    "socket_filter": _SKB,
    "sched_cls": (*_SKB[:13], 72, 84, 160, 164, 176),
    "xdp": (12, 16),
}
#: Every row by its mnemonic.
rows_by_name = {row.mnemonic: row for row in TABLE}


def rows(*kinds: Kind) -> tuple[InsnDef, ...]:
    """Return the rows of *kinds* that programs may have (not an engine's own forms)."""
    return tuple(row for row in TABLE if row.kind in kinds and not row.arena)


def edge_number(rng: random.Random) -> int:
    """Return an immediate: one of `EDGES` as often as any."""
    return rng.choice(EDGES) if rng.random() < 0.5 else s32(rng.getrandbits(32))


@dataclass(slots=True)
class Emitter:
    """A function in the making: its insns, and calls whose target is not known yet."""

    number: int = 0
    insns: list[Insn] = field(default_factory=list)
    #: (slot, number of the called function)
    calls: list[tuple[int, int]] = field(default_factory=list)

    def emit(
        self, row: InsnDef | str, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0
    ) -> int:
        """Append an insn of *row* with those fields that it has; return its slot."""
        if isinstance(row, str):
            row = rows_by_name[row]
        given = {"dst": dst, "src": src, "off": off, "imm": imm}
        used = {key: given[key] for key in row.form.fields}
        self.insns.append(Insn(row.opcode)._replace(**used)._replace(**dict(row.fixed)))
        return len(self.insns) - 1

    def wide(self, kind: LdKind, dst: int, imm: int, next_imm: int = 0) -> None:
        """Append an ldimm64."""
        name = "lddw" if kind is LdKind.IMM64 else f"lddw_{kind.name.lower()}"
        self.emit(name, dst, imm=imm)
        self.insns.append(Insn(0, imm=next_imm))

    def patch(self, slot: int, to: int | None = None) -> None:
        """Let the jump in *slot* go to slot *to*, or to the next insn."""
        insn = self.insns[slot]
        distance = (len(self.insns) if to is None else to) - slot - 1
        is_long = insn.opcode == rows_by_name["ja32"].opcode
        self.insns[slot] = insn._replace(**{"imm" if is_long else "off": distance})


def joined(functions: list[Emitter]) -> tuple[Insn, ...]:
    """Return the insns of all *functions*, one behind the other, their calls resolved."""
    starts = [0]
    for function in functions:
        starts.append(starts[-1] + len(function.insns))
    insns = [insn for function in functions for insn in function.insns]
    for start, function in zip(starts, functions, strict=False):
        for slot, callee in function.calls:
            at = start + slot
            insns[at] = insns[at]._replace(imm=starts[callee] - at - 1)
    return tuple(insns)
