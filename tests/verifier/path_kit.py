"""Random programs whose paths meet again: they try out what a verifier may skip.

Paths part with other numbers in registers and stack slots, do things that only some paths notice
(spills, aliases of the frame pointer, atomics, subprogs, linked numbers), come together, and then
use what they have as an offset. A state compared too loosely lets a bad path through.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn
from bpfvm.isa import TABLE, AtomicOp, Kind
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import MapDef, Program
from verifier import explore
from verifier.state import VerifierState

__all__ = ["MAPS", "path_program", "without_pruning"]

MAPS = (
    MapDef("one", MapType.ARRAY, 4, 16, 1),
    MapDef("array", MapType.ARRAY, 4, 16, 4),
    MapDef("hash", MapType.HASH, 4, 16, 4),
    MapDef("arena", MapType.ARENA, 0, 0, 16, MapFlags.MMAPABLE, 0x1000_0000_0000),
)
_ONE, _ARRAY, _HASH, _ARENA = range(4)
_ROWS = {row.mnemonic: row for row in TABLE}
_ATOMICS = tuple(
    row.mnemonic for row in TABLE if row.kind is Kind.ATOMIC and not row.arena and row.size == 8
)
_CMPXCHG = tuple(m for m in _ATOMICS if _ROWS[m].op is AtomicOp.CMPXCHG)
_LOADS = {1: ("ldxb", "ldxsb"), 2: ("ldxh", "ldxsh"), 4: ("ldxw", "ldxsw"), 8: ("ldxdw",)}
_STORES = {1: "stxb", 2: "stxh", 4: "stxw", 8: "stxdw"}
_STORES_IMM = {1: "stb", 2: "sth", 4: "stw", 8: "stdw"}
_FP = 10
#: kernel: BPF_F_TEST_STATE_FREQ saves a state at every place where one may be saved.
_SAVE_OFTEN = 8
_SLOTS = (-8, -16, -24, -32)
#: Numbers that are fine as an offset, and numbers that are not.
_INSIDE, _OUTSIDE = (0, 0, 1, 4, 8), (16, 100, -1)


def path_program(seed: int) -> Program:
    """Return the program of *seed*."""
    rng = random.Random(seed)
    prog_type = "xdp" if rng.random() < 0.3 else "socket_filter"
    maker = _Maker(rng, prog_type)
    insns = maker.program()
    return Program(
        f"path-{seed}",
        insns,
        prog_type,
        find_subprogs(insns, {0: "path"}),
        maps=MAPS,
        flags=_SAVE_OFTEN if rng.random() < 0.7 else 0,
    )


@contextmanager
def without_pruning(limit: int) -> Iterator[None]:
    """Let the walk follow every path to its end, up to *limit* insns in all."""

    def never(_walk: explore.Walk, _cur: VerifierState, _idx: int) -> bool:
        return False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(explore.Walk, "_is_covered", never)
        patch.setattr(explore, "MAX_PROCESSED", limit)
        yield


@dataclass
class _Maker:
    rng: random.Random
    prog_type: str
    insns: list[Insn] = field(default_factory=list)
    calls: dict[int, int] = field(default_factory=dict)

    def emit(self, name: str, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> int:
        row = _ROWS[name]
        given = {"dst": dst, "src": src, "off": off, "imm": imm}
        used = {name: given[name] for name in row.form.fields}
        self.insns.append(Insn(row.opcode)._replace(**used)._replace(**dict(row.fixed)))
        return len(self.insns) - 1

    def land(self, *slots: int) -> None:
        for slot in slots:
            self.insns[slot] = self.insns[slot]._replace(off=len(self.insns) - slot - 1)

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    def offset(self) -> int:
        return self.rng.choice(_INSIDE) if self.maybe(0.93) else self.rng.choice(_OUTSIDE)

    # -- the program ------------------------------------------------------------------------------

    def program(self) -> tuple[Insn, ...]:
        self.emit("mov_reg", 6, 1)
        for reg in (7, 8):
            self.choose(reg)
        self.unknown(9)
        for slot in _SLOTS:
            if self.maybe(0.7):
                self.emit("stdw", _FP, off=slot, imm=self.rng.choice((0, 0, 1, 8)))
        if self.maybe(0.5):
            for _ in range(self.rng.randrange(3, 11)):
                self.statement()
            self.use()
        else:
            for _ in range(self.rng.randrange(1, 3)):
                self.rng.choice((self.story, self.story, self.twins))()
        self.emit("mov_imm", 0)
        self.emit("exit")
        self.subprogs()
        return tuple(self.insns)

    def story(self) -> None:
        """Two numbers go the same way, through a slot or a register, and end as an offset."""
        number = self.number()
        self.choose(number, 0.4)
        way = self.rng.randrange(5)
        slot = self.slot()
        if way < 3:
            size = self.rng.choice((8, 8, 4, 1))
            # Not at the slot's lowest byte a number is kept only where it is zero.
            at = slot if self.maybe(0.7) else slot + 8 - size
            base, off = self.base(at)
            self.emit(_STORES[size], base, number, off)
            held, rest = self.base(at)
            self.emit("mov_imm", number)
            for _ in range(self.rng.randrange(1, 4)):
                self.disturb(held, slot)
            if at == slot and self.maybe(0.3):
                size = self.rng.choice((8, 4, 1))
            self.emit(self.rng.choice(_LOADS[size]), number, held, rest)
        elif way == 3:
            self.emit("mov_reg", 2, number)
            self.emit("mov_reg", 1, _FP)
            self.emit("add_imm", 1, imm=slot)
            self.calls[self.emit("call_local")] = self.rng.choice((0, 0, 3, 4, 5, 5))
            for _ in range(self.rng.randrange(3)):
                self.disturb(0, slot)
            if self.maybe(0.5):
                self.emit("mov_reg", number, 0)
            else:
                self.emit("ldxdw", number, _FP, slot)
        else:
            self.emit("mov_reg", 4, number)
            self.emit(self.rng.choice(("add_imm", "or_imm", "xor_imm")), 4, imm=1)
            self.disturb(4, slot)
            self.emit("mov_reg", number, 4)
        if self.maybe(0.3):
            self.meet_quietly()
        self.use(number)

    def twins(self) -> None:
        """On one path two registers have to do with each other, on the other they have not; then
        what one shows is taken for the other."""
        first, second = self.rng.choice(((7, 8), (8, 7), (4, 5), (7, 4)))
        kinds = [self.twin_numbers, self.twin_values]
        if self.prog_type == "xdp":
            kinds += [self.twin_packets, self.twin_packets]
        make = self.rng.choice(kinds)
        jump = self.emit("jgt_imm", 9, imm=5)
        checks = make(first, second)
        over = self.emit("ja")
        self.land(jump)
        make(first, second)
        self.land(over)
        if first > 5 and self.maybe(0.4):
            slot = self.slot()
            self.emit("stxdw", _FP, second, slot)
            self.meet_quietly()
            self.emit("mov_imm", second)
            self.emit("ldxdw", second, _FP, slot)
        else:
            self.meet_quietly()
        checks()
        self.emit("mov_imm", 7)
        self.emit("mov_imm", 8, imm=1)

    def twin_numbers(self, first: int, second: int) -> Callable[[], None]:
        self.unknown(first)
        if self.maybe(0.5):
            self.emit(self.rng.choice(("mov_reg", "mov_reg", "mov32_reg")), second, first)
        else:
            self.unknown(second)
        if self.maybe(0.6):
            name = self.rng.choice(("add_imm", "add_imm", "add32_imm"))
            self.emit(name, second, imm=self.rng.choice((1, 8, -4)))

        def checks() -> None:
            name = self.rng.choice(("jgt_imm", "jgt_imm", "jsgt_imm", "jgt32_imm"))
            jump = self.emit(name, first, imm=self.rng.choice((3, 7, 14, 15)))
            self.use(second)
            self.land(jump)

        return checks

    def twin_values(self, first: int, second: int) -> Callable[[], None]:
        self.lookup(first if first > 5 else 7, checked=False, index=_HASH)
        if first < 6:
            self.emit("mov_reg", first, 7)
        if self.maybe(0.6):
            self.emit("mov_reg", second, first)
        elif second > 5:
            self.lookup(second, checked=self.maybe(0.3), index=_HASH)
        else:
            self.emit("mov_reg", second, _FP)
            self.emit("add_imm", second, imm=-8)

        def checks() -> None:
            if self.maybe(0.8):
                name = self.rng.choice(("jeq_imm", "jeq_imm", "jeq32_imm"))
                jump = self.emit(name, first)
            else:
                jump = self.emit("jne_reg", first, second)
            self.emit(self.rng.choice(("ldxb", "ldxdw")), 0, second)
            self.land(jump)

        return checks

    def twin_packets(self, first: int, second: int) -> Callable[[], None]:
        self.emit("ldxw", first, 6, 0)
        if self.maybe(0.7):
            self.unknown(1)
            self.emit("and_imm", 1, imm=self.rng.choice((3, 7, 255)))
            self.emit("add_reg", first, 1)
        kind = self.rng.randrange(3)
        if kind < 2:
            self.emit("mov_reg", second, first)
        else:
            self.emit("ldxw", second, 6, 0)
            self.emit("mov_imm", 1, imm=1)
            self.emit("add_reg", second, 1)
        if self.maybe(0.4):
            self.emit("add_imm", second, imm=self.rng.choice((1, 4, -1)))
        if self.maybe(0.4):
            self.prove(first, self.rng.choice((4, 8)))
        goes_back = self.maybe(0.4)

        def checks() -> None:
            done = self.prove(first, self.rng.choice((4, 8)))
            if goes_back:
                self.emit("add_imm", second, imm=self.rng.choice((0, 7, 8)))
                self.unknown(1)
                self.emit("and_imm", 1, imm=7)
                self.emit("add_imm", 1, imm=self.rng.choice((0, 1, 4, -1)))
                self.emit("sub_reg", second, 1)
            size = self.rng.choice((1, 2, 4))
            off = self.rng.choice((0, 0, 3, 4 - size, 8 - size))
            self.emit(_LOADS[size][0], 0, second, off)
            if done is not None:
                self.land(done)

        return checks

    def prove(self, packet: int, size: int) -> int | None:
        """Compare *packet* + *size* with the packet's end; return a jump still to land."""
        self.emit("ldxw", 2, 6, 4)
        self.emit("mov_reg", 3, packet)
        self.emit("add_imm", 3, imm=size)
        kind = self.rng.randrange(4)
        if kind == 0:
            return self.emit(self.rng.choice(("jgt_reg", "jge_reg")), 3, 2)
        if kind == 1:
            return self.emit(self.rng.choice(("jlt_reg", "jle_reg")), 2, 3)
        self.emit(self.rng.choice(("jlt_reg", "jle_reg")), 3, 2, 2)
        self.emit("mov_imm", 0)
        self.emit("exit")
        return None

    def meet_quietly(self) -> None:
        """Reach a place where states are compared, without touching r0 to r5."""
        if self.maybe(0.5):
            self.emit("ja")
        else:
            self.emit("jeq_imm", 9, imm=3)

    def disturb(self, held: int, slot: int) -> None:
        """Do something that leaves r*held* and the slot's number alone, or hardly."""
        kind = self.rng.randrange(7)
        if kind < 3:
            self.meet_quietly()
        elif kind == 3:
            operand = self.rng.choice([reg for reg in (1, 2, 3) if reg != held])
            self.emit("mov_imm", operand, imm=1)
            other = self.rng.choice([s for s in _SLOTS if s != slot])
            self.emit("stdw", _FP, off=other, imm=self.rng.choice((0, 1)))
            name = self.rng.choice([a for a in _ATOMICS if held != 0 or a not in _CMPXCHG])
            if name in _CMPXCHG:
                self.emit("mov_imm", 0, imm=1)
            self.emit(name, _FP, operand, other)
        elif kind == 4:
            jump = self.emit("jgt_imm", 9, imm=5)
            base = self.rng.choice((slot, *_SLOTS))
            size = self.rng.choice((1, 4, 8))
            off = base + self.rng.randrange(0, 8, size)
            self.emit(_STORES_IMM[size], _FP, off=off, imm=self.rng.choice((0, 1)))
            self.land(jump)
        elif kind == 5:
            spare = self.rng.choice([reg for reg in (1, 2, 3, 5) if reg != held])
            self.emit("mov_imm", spare, imm=self.rng.choice((0, 16)))
            self.meet_quietly()
        else:
            spare = self.rng.choice([reg for reg in (1, 2, 3, 5) if reg != held])
            self.emit("ldxdw", spare, _FP, self.slot())
            self.emit("jeq_imm", spare, imm=self.rng.choice((0, 1)))

    def statement(self) -> None:
        choices: list[tuple[int, Callable[[], object]]] = [
            (4, lambda: self.choose(self.number())),
            (3, self.spill),
            (3, self.fill),
            (2, self.smudge),
            (2, self.alias),
            (2, self.atomic),
            (3, self.meet),
            (3, self.arithmetic),
            (3, self.linked),
            (2, self.variable),
            (2, self.call),
            (2, self.helper),
            (2, self.loop),
            (1, self.may_goto),
            (2, self.either_pointer),
            (3, self.use),
        ]
        weights = [weight for weight, _ in choices]
        self.rng.choices([make for _, make in choices], weights)[0]()

    def number(self) -> int:
        return self.rng.choice((7, 8))

    def unknown(self, reg: int) -> None:
        fields = (12, 16) if self.prog_type == "xdp" else (0, 8, 48)
        self.emit("ldxw", reg, 6, self.rng.choice(fields))

    def slot(self) -> int:
        return self.rng.choice(_SLOTS)

    # -- paths that part, and meet ----------------------------------------------------------------

    def part(self) -> int:
        """Part into two paths by something nobody knows; return the jump."""
        if self.maybe(0.6):
            self.unknown(0)
        else:
            self.emit("call_helper", imm=7)
        name = self.rng.choice(("jeq_imm", "jne_imm", "jgt_imm", "jset_imm", "jsgt32_imm"))
        return self.emit(name, 0, imm=self.rng.choice((1, 5, 7, 64)))

    def choose(self, reg: int, outside: float = 0.1) -> None:
        """Let *reg* be one of two numbers."""
        numbers = [self.rng.choice(_INSIDE), self.rng.choice(_INSIDE)]
        if self.maybe(outside):
            numbers[self.rng.randrange(2)] = self.rng.choice(_OUTSIDE)
        first, second = numbers
        if self.maybe(0.5):
            self.emit("mov_imm", reg, imm=first)
            jump = self.part()
            self.emit("mov_imm", reg, imm=second)
            self.land(jump)
            return
        jump = self.part()
        self.emit("mov_imm", reg, imm=first)
        over = self.emit("ja")
        self.land(jump)
        self.emit("mov_imm", reg, imm=second)
        self.land(over)

    def meet(self) -> None:
        """Reach a place where states are compared."""
        kind = self.rng.randrange(3)
        if kind == 0:
            self.emit("ja")
        elif kind == 1:
            jump = self.part()
            if self.maybe(0.5):
                self.emit("mov_imm", 1)
            self.land(jump)
        else:
            self.emit("call_helper", imm=5)

    def either_pointer(self) -> None:
        """Leave a pointer of two sorts, or a number, in r4 or in a slot."""
        jump = self.part()
        self.pointer(4)
        over = self.emit("ja")
        self.land(jump)
        if self.maybe(0.5):
            self.emit("mov_imm", 4)
        else:
            self.pointer(4)
        self.land(over)
        slot = self.slot()
        self.emit("stxdw", _FP, 4, slot)
        self.meet()
        self.emit("ldxdw", 4, _FP, slot)
        if self.maybe(0.5):
            self.emit("ldxb", 5, 4)
        elif self.maybe(0.5):
            self.emit("jne_imm", 4, off=1)
            self.emit("mov_imm", 5)

    def pointer(self, reg: int) -> None:
        kind = self.rng.randrange(4)
        if kind == 0:
            self.emit("lddw_map_idx_value", reg, imm=_ONE)
            self.insns.append(Insn(0, imm=self.rng.choice((0, 8))))
        elif kind == 1:
            self.emit("mov_reg", reg, _FP)
            self.emit("add_imm", reg, imm=self.slot())
        elif kind == 2:
            self.emit("lddw_map_idx", reg, imm=_ARENA)
            self.insns.append(Insn(0))
            self.emit("cast_kern", reg, reg)
        else:
            self.lookup(reg, checked=self.maybe(0.8))

    # -- memory -----------------------------------------------------------------------------------

    def spill(self) -> None:
        size = self.rng.choice((8, 8, 8, 4, 1))
        source = self.rng.choice((7, 8, 8, 9))
        base, off = self.base(self.slot() + (self.rng.randrange(0, 8, size) if size < 8 else 0))
        self.emit(_STORES[size], base, source, off)

    def fill(self) -> None:
        size = self.rng.choice((8, 8, 8, 4, 1))
        base, off = self.base(self.slot() + (self.rng.randrange(0, 8, size) if size < 8 else 0))
        self.emit(self.rng.choice(_LOADS[size]), self.number(), base, off)

    def base(self, off: int) -> tuple[int, int]:
        """Return a register and an offset that together mean fp + *off*."""
        if self.maybe(0.6):
            return _FP, off
        reg = self.rng.choice((0, 0, 1, 2, 3))
        self.emit("mov_reg", reg, _FP)
        kind = self.rng.randrange(3)
        if kind == 0:
            self.emit("add_imm", reg, imm=off)
            return reg, 0
        if kind == 1:
            self.emit("mov_imm", 4, imm=off)
            self.emit("add_reg", reg, 4)
            return reg, 0
        return reg, off

    def smudge(self) -> None:
        """Write some bytes of a slot."""
        size = self.rng.choice((1, 2, 4, 8))
        base, off = self.base(self.slot() + self.rng.randrange(0, 8, size))
        self.emit(_STORES_IMM[size], base, 0, off, self.rng.choice((0, 0, 1, -1)))

    def alias(self) -> None:
        """Keep the frame's address in a register across other things, then use it."""
        reg = self.rng.choice((0, 1, 2, 3, 4, 5))
        self.emit("mov_reg", reg, _FP)
        slot = self.slot()
        if self.maybe(0.5):
            self.emit("add_imm", reg, imm=slot)
            slot = 0
        for _ in range(self.rng.randrange(3)):
            kind = self.rng.randrange(4)
            if kind == 0:
                self.emit("ja")
            elif kind == 1:
                self.atomic(avoid=reg)
            elif kind == 2:
                self.emit("stxdw", _FP, self.number(), self.slot())
            else:
                jump = self.emit("jeq_imm", 9, imm=self.rng.choice((0, 5)))
                self.emit("stdw", _FP, off=self.slot(), imm=self.offset())
                self.land(jump)
        if self.maybe(0.7):
            self.emit("ldxdw", self.number(), reg, slot)
        else:
            self.emit("stxdw", reg, self.number(), slot)

    def atomic(self, avoid: int | None = None) -> None:
        name = self.rng.choice(_ATOMICS if avoid != 0 else tuple(set(_ATOMICS) - set(_CMPXCHG)))
        if name in _CMPXCHG:
            self.emit("mov_imm", 0, imm=self.offset())
        operand = self.rng.choice([reg for reg in (1, 2, 3, 7) if reg != avoid])
        if operand != 7:
            self.emit("mov_imm", operand, imm=self.rng.choice((0, 1)))
        self.emit(name, _FP, operand, self.slot())
        if operand != 7 and self.maybe(0.3):
            self.emit("mov_reg", 8, operand)

    def variable(self) -> None:
        """Read or write a byte of the stack at a place nobody knows, between two slots."""
        self.emit("mov_reg", 1, 9)
        self.emit("and_imm", 1, imm=self.rng.choice((7, 8, 15)))
        self.emit("mov_reg", 2, _FP)
        self.emit("add_reg", 2, 1)
        off = self.rng.choice((-16, -24, -32))
        kind = self.rng.randrange(3)
        if kind == 0:
            self.emit("ldxb", self.number(), 2, off)
        elif kind == 1:
            self.emit("stxb", 2, self.number(), off)
        else:
            self.emit("stb", 2, 0, off, self.rng.choice((0, 1)))

    # -- numbers ----------------------------------------------------------------------------------

    def arithmetic(self) -> None:
        reg, other = self.number(), self.number()
        kind = self.rng.randrange(7)
        if kind == 0:
            self.emit("mov_reg", reg, other)
        elif kind == 1:
            self.emit("mov32_reg", reg, other)
        elif kind == 2:
            self.emit(self.rng.choice(("add_reg", "sub_reg", "xor_reg", "or_reg")), reg, other)
        elif kind == 3:
            self.emit("and_imm", reg, imm=self.rng.choice((1, 7, 8, 15)))
        elif kind == 4:
            self.emit(self.rng.choice(("rsh_imm", "lsh_imm", "mod_imm", "div_imm")), reg, imm=1)
        elif kind == 5:
            self.emit("arsh_imm", reg, imm=63)
            self.emit("and_imm", reg, imm=8)
        else:
            self.emit("movsx864", reg, other)

    def linked(self) -> None:
        """Copy a number nobody knows, move the copy, compare one, use the other."""
        copy, number = self.rng.choice(((4, 8), (5, 7), (7, 8)))
        self.unknown(number)
        if self.maybe(0.3):
            self.emit("and_imm", number, imm=63)
        self.emit(self.rng.choice(("mov_reg", "mov_reg", "mov32_reg")), copy, number)
        if self.maybe(0.6):
            name = self.rng.choice(("add_imm", "sub_imm", "add32_imm"))
            self.emit(name, copy, imm=self.rng.choice((1, 4, -4)))
        slot = self.slot()
        is_spilled = self.maybe(0.4)
        if is_spilled:
            self.emit(_STORES[self.rng.choice((8, 4))], _FP, copy, slot)
        compared = self.rng.choice((copy, number))
        name = self.rng.choice(("jgt_imm", "jle_imm", "jeq_imm", "jsgt_imm", "jgt32_imm"))
        jump = self.emit(name, compared, imm=self.rng.choice((4, 8, 11, 15)))
        if self.maybe(0.5):
            self.emit("mov_imm", compared)
        if is_spilled:
            self.emit(self.rng.choice(("ldxdw", "ldxw", "ldxsw")), number, _FP, slot)
        if self.maybe(0.5):
            self.use(number)
        self.land(jump)
        self.emit("mov_imm", copy, imm=self.rng.choice((0, 1)))
        self.emit("mov_imm", number, imm=self.rng.choice((0, 8)))

    def loop(self) -> None:
        reg, other = self.rng.choice(((7, 8), (8, 7)))
        self.emit("mov_imm", reg)
        top = len(self.insns)
        kind = self.rng.randrange(3)
        if kind == 0:
            self.emit("mov_reg", other, reg)
        elif kind == 1:
            jump = self.part()
            self.emit("mov_imm", other, imm=self.offset())
            self.land(jump)
        else:
            self.emit("stxdw", _FP, reg, self.slot())
        self.emit("add_imm", reg, imm=1)
        back = self.emit(self.rng.choice(("jlt_imm", "jne_imm")), reg, imm=self.rng.choice((2, 4)))
        self.insns[back] = self.insns[back]._replace(off=top - back - 1)

    def may_goto(self) -> None:
        reg = self.number()
        self.emit("mov_imm", reg)
        top = len(self.insns)
        out = self.emit("may_goto")
        kind = self.rng.randrange(3)
        if kind == 0:
            self.emit("add_imm", reg, imm=1)
        elif kind == 1:
            self.emit("stxdw", _FP, reg, self.slot())
            self.emit("mov_imm", reg, imm=self.offset())
        else:
            self.use(self.number())
            self.emit("ldxdw", reg, _FP, self.slot())
        if self.maybe(0.5):
            self.use(reg)
        back = self.emit("ja")
        self.insns[back] = self.insns[back]._replace(off=top - back - 1)
        self.land(out)

    # -- calls ------------------------------------------------------------------------------------

    def call(self) -> None:
        if self.maybe(0.6):
            self.emit("mov_reg", 1, _FP)
            self.emit("add_imm", 1, imm=self.slot())
        else:
            self.emit("lddw_map_idx_value", 1, imm=_ONE)
            self.insns.append(Insn(0))
        self.emit("mov_reg", 2, self.number())
        self.calls[self.emit("call_local")] = self.rng.randrange(5)
        if self.maybe(0.6):
            self.emit("mov_reg", self.number(), 0)

    def subprogs(self) -> None:
        """Add what was called."""
        for body in sorted(set(self.calls.values())):
            start = len(self.insns)
            for slot, which in self.calls.items():
                if which == body:
                    self.insns[slot] = self.insns[slot]._replace(imm=start - slot - 1)
            if body == 0:
                self.emit("stxdw", 1, 2)
                self.emit("mov_reg", 0, 2)
            elif body == 1:
                self.emit("ldxdw", 0, 1)
            elif body == 2:
                self.emit("stxdw", _FP, 1, -8)
                self.emit("call_helper", imm=7)
                jump = self.emit("jgt_imm", 0, imm=5)
                self.emit("mov_imm", 0, imm=self.offset())
                self.land(jump)
                self.emit("ldxdw", 1, _FP, -8)
                self.emit("stxdw", 1, 0)
            elif body == 3:
                self.emit("mov_reg", 6, 2)
                self.emit("add_reg", 1, 2)
                self.emit("ldxb", 7, 1)
                self.emit("mov_reg", 0, 6)
            elif body == 5:
                self.emit("stxdw", _FP, 2, -8)
                self.emit("mov_reg", 3, _FP)
                self.emit("mov_imm", 4, imm=1)
                self.emit("stdw", _FP, off=-16)
                self.emit(self.rng.choice(("lock_fetch_add", "lock_xchg")), _FP, 4, -16)
                self.emit("jeq_imm", 4, imm=1)
                self.emit("ldxdw", 0, 3, -8)
            else:
                self.emit("mov_imm", 0, imm=self.offset())
                jump = self.emit("jgt_imm", 2, imm=4)
                self.emit("mov_imm", 0, imm=self.offset())
                self.land(jump)
                self.emit("stb", 1, off=self.rng.randrange(8))
            self.emit("exit")

    def lookup(self, reg: int, *, checked: bool, index: int | None = None) -> None:
        if self.maybe(0.5):
            self.emit("stw", _FP, off=-40, imm=self.rng.choice((0, 3, 4)))
        else:
            self.emit("stxw", _FP, self.number(), -40)
        index = self.rng.choice((_ARRAY, _HASH)) if index is None else index
        self.emit("lddw_map_idx", 1, imm=index)
        self.insns.append(Insn(0))
        self.emit("mov_reg", 2, _FP)
        self.emit("add_imm", 2, imm=-40)
        self.emit("call_helper", imm=1)
        if checked:
            jump = self.emit("jne_imm", 0)
            self.emit("mov_imm", 0)
            self.emit("exit")
            self.land(jump)
        if reg:
            self.emit("mov_reg", reg, 0)

    def helper(self) -> None:
        kind = self.rng.randrange(3)
        if kind == 0:
            # The size is a number from elsewhere.
            number = self.number()
            self.emit("mov_reg", 2, number)
            if self.maybe(0.6):
                self.emit("and_imm", 2, imm=self.rng.choice((7, 15, 31)))
                self.emit("or_imm", 2, imm=1)
            self.emit("mov_reg", 1, _FP)
            self.emit("add_imm", 1, imm=self.rng.choice((-16, -32)))
            self.emit("call_helper", imm=6)
        elif kind == 1:
            self.lookup(0, checked=True)
            self.emit("ldxb" if self.maybe(0.7) else "ldxdw", self.number(), 0)
        else:
            self.emit("stw", _FP, off=-40, imm=0)
            self.emit("lddw_map_idx", 1, imm=_ARRAY)
            self.insns.append(Insn(0))
            self.emit("mov_reg", 2, _FP)
            self.emit("add_imm", 2, imm=-40)
            self.emit("mov_reg", 3, _FP)
            self.emit("add_imm", 3, imm=self.rng.choice((-16, -24, -32)))
            self.emit("mov_imm", 4)
            self.emit("call_helper", imm=2)

    def use(self, number: int | None = None) -> None:
        """Take a number as an offset into memory."""
        number = self.number() if number is None else number
        if number in (1, 2, 3):
            return
        kind = self.rng.randrange(3)
        if kind < 2:
            self.emit("lddw_map_idx_value", 3, imm=_ONE)
            self.insns.append(Insn(0))
        else:
            self.emit("mov_reg", 3, _FP)
            self.emit("add_imm", 3, imm=-16)
        if self.maybe(0.2):
            self.emit("mov_reg", 2, number)
            self.emit("add_reg", 2, 3)
            self.emit("ldxb", 0, 2)
            return
        self.emit("add_reg", 3, number)
        if self.maybe(0.7):
            self.emit("ldxb", 0, 3)
        else:
            self.emit("stb", 3, imm=1)
