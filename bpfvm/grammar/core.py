"""What all families share: numbers nobody knows, bounds for them, accesses, slips.

A program of the grammar is made of fragments. r6 keeps the context, r7 and r8 hold numbers on
every path, r9 is a fragment's own across calls, r0 to r5 are for a moment. A *slip* is a place
where the program does something a little wrong: one off, the wrong sign, the check forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from bpfvm.emit import NUMBER_FIELDS, Emitter, edge_number, rows
from bpfvm.insn import Insn
from bpfvm.isa import AluOp, InsnDef, Kind, LdKind
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import MapDef

__all__ = ["ALU", "CTX", "FP", "JUMPS", "NUMBERS", "PLAIN", "Fragment", "Grammar"]

CTX, FP = 6, 10
NUMBERS = (7, 8)
ARENA_BASE = 0x1000_0000_0000
_MAPS = {
    "hash": MapDef("hash", MapType.HASH, 4, 16, 4),
    "array": MapDef("array", MapType.ARRAY, 4, 16, 4),
    "one": MapDef("one", MapType.ARRAY, 4, 64, 1),
    "rdonly": MapDef("rdonly", MapType.HASH, 4, 16, 4, MapFlags.RDONLY_PROG),
    "wronly": MapDef("wronly", MapType.HASH, 4, 16, 4, MapFlags.WRONLY_PROG),
    "arena": MapDef("arena", MapType.ARENA, 0, 0, 4, MapFlags.MMAPABLE, ARENA_BASE),
}
ALU = rows(Kind.ALU, Kind.MOV, Kind.MOVSX, Kind.NEG, Kind.END)
JUMPS = rows(Kind.JCOND)
LOADS = rows(Kind.LDX)
PLAIN = rows(Kind.LDX, Kind.ST, Kind.STX)
ACCESSES = rows(Kind.LDX, Kind.ST, Kind.STX, Kind.ATOMIC, Kind.LOAD_ACQ, Kind.STORE_REL)
_UNALIGNED = (Kind.LDX, Kind.ST, Kind.STX)
_SHIFTS = (AluOp.LSH, AluOp.RSH, AluOp.ARSH)
_DIVISIONS = (AluOp.DIV, AluOp.SDIV, AluOp.MOD, AluOp.SMOD)


@dataclass(slots=True)
class Grammar:
    """A program in the making.

    Attributes:
        slips: how many more slips it may have.
        outs: jumps out of the fragment at hand, to its end.
        depth: how many blocks are open.
    """

    rng: random.Random
    prog_type: str
    slips: int
    current: Emitter = field(default_factory=Emitter)
    functions: list[Emitter] = field(default_factory=list)
    maps: list[MapDef] = field(default_factory=list)
    kfuncs: list[str] = field(default_factory=list)
    outs: list[int] = field(default_factory=list)
    depth: int = 0
    fragments: list[tuple[int, Fragment]] = field(default_factory=list)

    # -- choosing --------------------------------------------------------------------------------

    def maybe(self, chance: float) -> bool:
        """Say yes with a probability of *chance*."""
        return self.rng.random() < chance

    def slip(self, chance: float = 0.25) -> bool:
        """Say whether to do something wrong here."""
        if self.slips > 0 and self.maybe(chance):
            self.slips -= 1
            return True
        return False

    def number_reg(self) -> int:
        """One of the registers that hold numbers."""
        return self.rng.choice(NUMBERS)

    # -- emitting --------------------------------------------------------------------------------

    def emit(
        self, row: InsnDef | str, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0
    ) -> int:
        """See `Emitter.emit`."""
        return self.current.emit(row, dst, src, off, imm)

    def patch(self, slot: int, to: int | None = None) -> None:
        """See `Emitter.patch`."""
        self.current.patch(slot, to)

    @property
    def here(self) -> int:
        """The slot of the next insn."""
        return len(self.current.insns)

    def out(self, row: str, dst: int = 0, src: int = 0, imm: int = 0) -> None:
        """Emit a jump to the end of the fragment."""
        self.outs.append(self.emit(row, dst, src, imm=imm))

    def map_index(self, name: str) -> int:
        """Return the number of map *name* in this program."""
        defn = _MAPS[name]
        if defn not in self.maps:
            self.maps.append(defn)
        return self.maps.index(defn)

    def map_ptr(self, reg: int, name: str) -> None:
        """Make *reg* the map."""
        self.current.wide(LdKind.MAP_IDX, reg, self.map_index(name))

    def map_value(self, reg: int, off: int = 0) -> None:
        """Make *reg* the address of a byte of the map whose value needs no lookup (64 bytes)."""
        self.current.wide(LdKind.MAP_IDX_VALUE, reg, self.map_index("one"), off)

    def kfunc(self, name: str) -> None:
        """Call a kfunc."""
        if name not in self.kfuncs:
            self.kfuncs.append(name)
        self.emit("call_kfunc", imm=self.kfuncs.index(name))

    def fragment(self) -> None:
        """Emit one fragment of the family."""
        weights = [weight for weight, _ in self.fragments]
        self.run(self.rng.choices([make for _, make in self.fragments], weights)[0])

    def run(self, make: Fragment) -> None:
        """Emit what *make* makes; jumps out of it land behind it."""
        before, self.outs = self.outs, []
        make(self)
        for slot in self.outs:
            self.patch(slot)
        self.outs = before

    def block(self, most: int = 2) -> None:
        """Emit a few fragments that are inside of something."""
        self.depth += 1
        for _ in range(self.rng.randrange(1, most + 1)):
            self.fragment()
        self.depth -= 1

    def function(self, write: Callable[[], None]) -> int:
        """Write a further function with *write*; return its number."""
        inner = Emitter(len(self.functions))
        self.functions.append(inner)
        before, self.current = self.current, inner
        outs, self.outs = self.outs, []
        write()
        self.outs, self.current = outs, before
        return inner.number

    def call(self, number: int) -> None:
        """Call one of the program's functions."""
        self.current.calls.append((self.emit("call_local"), number))

    # -- numbers ---------------------------------------------------------------------------------

    def unknown(self, reg: int) -> None:
        """Let *reg* hold a number that the verifier can't know (but that is always the same)."""
        offs = NUMBER_FIELDS.get(self.prog_type)
        if offs is not None and self.maybe(0.2):
            self.emit("ldxw", reg, CTX, self.rng.choice(offs))
            return
        row = self.rng.choice(LOADS)
        self.map_value(reg)
        self.emit(row, reg, reg, self.rng.randrange(0, 64, row.size))

    def some_number(self, reg: int) -> None:
        """Let *reg* hold a number of any kind."""
        kind = self.rng.randrange(5)
        if kind == 0:
            self.emit("mov_imm", reg, imm=edge_number(self.rng))
        elif kind == 1:
            self.current.wide(LdKind.IMM64, reg, edge_number(self.rng), edge_number(self.rng))
        elif kind == 2 and reg not in NUMBERS:
            self.emit("mov_reg", reg, self.number_reg())
        else:
            self.unknown(reg)

    def alu(self, dst: int, src: int) -> None:
        """Compute with two registers that hold numbers."""
        row = self.rng.choice(ALU)
        imm = edge_number(self.rng)
        if row.op in _SHIFTS and not row.is_reg:
            imm = imm if self.slip(0.02) else imm % row.width
        elif row.op in _DIVISIONS and imm == 0:
            imm = 0 if self.slip(0.1) else 3
        self.emit(row, dst, src, imm=imm)

    # -- bounds ----------------------------------------------------------------------------------

    def bound(self, reg: int, limit: int, scratch: int) -> None:
        """Let *reg* be below *limit* (or jump out), by one of many ways; or slip.

        *scratch* is a register that may be overwritten.
        """
        if self.slip(0.3):
            limit += self.rng.choice((1, 1, 1, 2, limit))
        ways: list[Callable[[], object]] = [
            lambda: self.out("jge_imm", reg, imm=limit),
            lambda: self.out("jgt_imm", reg, imm=limit - 1),
            lambda: self._skip_out("jlt_imm", reg, limit),
            lambda: self._skip_out("jle_imm", reg, limit - 1),
            lambda: self.emit("mod_imm", reg, imm=limit),
            lambda: self._signed(reg, limit),
            lambda: self._half(reg, limit),
            lambda: self._by_copy(reg, limit, scratch),
            lambda: self._by_register(reg, limit, scratch),
            lambda: self._by_memory(reg, limit),
        ]
        if limit & (limit - 1) == 0:
            ways += [
                lambda: self.emit("and_imm", reg, imm=limit - 1),
                lambda: self.emit("and32_imm", reg, imm=limit - 1),
                lambda: self.out("jset_imm", reg, imm=-limit),
                lambda: self.emit("rsh_imm", reg, imm=65 - limit.bit_length()),
            ]
        self.rng.choice(ways)()

    def _skip_out(self, row: str, reg: int, limit: int) -> None:
        over = self.emit(row, reg, imm=limit)
        self.out("ja")
        self.patch(over)

    def _signed(self, reg: int, limit: int) -> None:
        if not self.slip():
            self.out(self.rng.choice(("jslt_imm", "jsle_imm")), reg, imm=0)
        self.out("jsge_imm", reg, imm=limit)

    def _half(self, reg: int, limit: int) -> None:
        if not self.slip():
            self.emit("mov32_reg", reg, reg)
        self.out(self.rng.choice(("jge32_imm", "jgt32_imm")), reg, imm=limit - 1)

    def _by_copy(self, reg: int, limit: int, scratch: int) -> None:
        """Check a copy, or a copy that was moved: the register is linked to it."""
        self.emit("mov_reg", scratch, reg)
        moved = self.rng.choice((0, 0, 1, 8))
        if moved:
            self.out("jgt_imm", reg, imm=1 << 20)  # what is moved must not wrap
            self.emit("mov_reg", scratch, reg)
            self.emit("add_imm", scratch, imm=moved)
        self.out("jge_imm", scratch, imm=limit + moved)

    def _by_register(self, reg: int, limit: int, scratch: int) -> None:
        self.emit("mov_imm", scratch, imm=limit)
        self.out("jge_reg", reg, scratch)

    def _by_memory(self, reg: int, limit: int) -> None:
        """Check the number where it was spilled to, or a part of it."""
        self.emit("stxdw", FP, reg, -256)
        size = self.rng.choice(("ldxdw", "ldxdw", "ldxw"))
        self.emit(size, reg, FP, -256)
        self.out("jge_imm", reg, imm=limit)

    # -- accesses --------------------------------------------------------------------------------

    def access(self, base: int, low: int, high: int, kinds: tuple[InsnDef, ...] = ACCESSES) -> None:
        """Access bytes [low, high) from *base* once; r0 (not *base*) may be read and written."""
        row = self.rng.choice([row for row in kinds if row.size <= high - low] or kinds)
        off = self.rng.randrange(low, max(low, high - row.size) + 1)
        aligned = off - off % row.size
        # Packets and map values may be accessed unaligned, the stack and atomics not.
        if aligned >= low and (row.kind not in _UNALIGNED or base == FP or self.maybe(0.8)):
            off = aligned
        if self.slip(0.2):
            off = self.rng.choice((high - row.size + 1, low - 1, high, low - row.size))
        temp = 0 if base else 1
        if base in (0, 1):
            self.emit("mov_imm", temp, imm=self.rng.choice((0, 1, -1)))
        else:
            self.emit("mov_reg", 0, self.number_reg())
        if row.kind in (Kind.LDX, Kind.LOAD_ACQ):
            self.emit(row, temp, base, off)
        elif row.op is not None and row.kind is Kind.ATOMIC and base == 0:
            self.emit("ldxb", 1, base, off)  # cmpxchg would use r0 twice
        else:
            self.emit(row, base, temp, off, edge_number(self.rng))

    def insn(self, insn: Insn) -> None:
        """Append an insn as it stands."""
        self.current.insns.append(insn)


#: Emits a few insns that belong together.
Fragment = Callable[[Grammar], None]
