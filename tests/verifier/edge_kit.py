"""Random programs that walk along the edges of what a verifier accepts.

They check an index or a pointer the way compilers do, or a little wrong: one off, signed, in the
low half only, on one way and not on the other. Many must be rejected; a program that is accepted
may do nothing that must not happen (`model_kit`).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn
from bpfvm.isa import TABLE, InsnDef, Kind
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import MapDef, Program

__all__ = ["STYLES", "edge_program"]

_ROWS = {row.mnemonic: row for row in TABLE}
_MAPS = (
    MapDef("hash", MapType.HASH, 4, 16, 4),
    MapDef("one", MapType.ARRAY, 4, 16, 1),
    MapDef("array", MapType.ARRAY, 4, 16, 4),
    MapDef("arena", MapType.ARENA, 0, 0, 16, MapFlags.MMAPABLE, 0x1000_0000_0000),
)
_SMALL = (0, 1, 2, 3, 4, 7, 8, 9, 12, 15, 16, 17, -1, -2, -8, 0x7FFFFFFF, -0x80000000)
_BINARY = tuple(
    row for row in TABLE if row.kind is Kind.ALU and not row.arena and row.op is not None
)
_UNARY = tuple(row for row in TABLE if row.kind in (Kind.NEG, Kind.END, Kind.MOVSX))
_JUMPS = tuple(row for row in TABLE if row.kind is Kind.JCOND)
_LOADS = {1: ("ldxb", "ldxsb"), 2: ("ldxh", "ldxsh"), 4: ("ldxw", "ldxsw"), 8: ("ldxdw",)}
_STORES = {1: "stxb", 2: "stxh", 4: "stxw", 8: "stxdw"}
_TYPES = ("socket_filter", "xdp", "sched_cls", "syscall")
_PACKET = {"xdp": (0, 4), "sched_cls": (76, 80)}
#: r6 keeps the context, r7 a pointer, r8 and r9 numbers; r0 to r5 are for a while.
_NUMBERS = (8, 9)
_CTX, _PTR, _FP = 6, 7, 10
#: Registers and stack slots whose numbers differ from way to way; slots with an address, without.
_HOMES = (8, 9, -8, -16)
_ALIAS, _SCRATCH = -32, -40
#: A state is saved wherever one may be: more is pruned.
_TEST_STATE_FREQ = 8
#: Bytes behind the pointers of `just_inside`.
_ROOM = 16
_MIRRORED = {"jgt": "jlt", "jge": "jle", "jsgt": "jslt", "jsge": "jsle"}
_OPPOSITE = {"jgt": "jle", "jge": "jlt", "jsgt": "jsle", "jsge": "jslt"}


#: What a program is about: indices just inside or outside, packets, ways that meet again, or
#: some of everything.
STYLES = ("index", "packet", "ways", "mixed")


def edge_program(seed: int, style: str | None = None) -> Program:
    """Return the program of *seed*, of any style unless one is given."""
    rng = random.Random(seed)
    style = style or rng.choice(STYLES)
    maker = _Maker(rng, rng.choice(sorted(_PACKET) if style == "packet" else _TYPES), style)
    insns = maker.program()
    return Program(
        f"edge-{seed}",
        insns,
        maker.prog_type,
        find_subprogs(insns, {0: "edge"}),
        maker.prog_type == "syscall",
        maps=_MAPS,
        flags=rng.choice((0, _TEST_STATE_FREQ)),
    )


@dataclass
class _Maker:
    rng: random.Random
    prog_type: str
    style: str
    insns: list[Insn] = field(default_factory=list)
    depth: int = 0
    calls: list[int] = field(default_factory=list)
    has_alias: bool = False

    def emit(
        self, row: str | InsnDef, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0
    ) -> int:
        row = _ROWS[row] if isinstance(row, str) else row
        given = {"dst": dst, "src": src, "off": off, "imm": imm}
        used = {name: given[name] for name in row.form.fields}
        self.insns.append(Insn(row.opcode)._replace(**used)._replace(**dict(row.fixed)))
        return len(self.insns) - 1

    def land(self, slot: int) -> None:
        self.insns[slot] = self.insns[slot]._replace(off=len(self.insns) - slot - 1)

    def some(self) -> int:
        return self.rng.choice(_SMALL)

    def maybe(self, chance: float) -> bool:
        return self.rng.random() < chance

    # -- the program ------------------------------------------------------------------------------

    def program(self) -> tuple[Insn, ...]:
        self.emit("mov_reg", _CTX, 1)
        for reg in _NUMBERS:
            self.emit("mov_imm", reg, imm=self.some())
        self.pointer()
        for reg in _NUMBERS:
            self.number(reg)
        for off in (-8, -16, -24):
            if self.maybe(0.6):
                self.emit("stdw", _FP, off=off, imm=self.some())
        statement = {
            "index": self.just_inside,
            "packet": self.packet,
            "ways": self.ways_that_meet,
            "mixed": self.statement,
        }[self.style]
        for _ in range(self.rng.randrange(1, {"mixed": 8, "ways": 3}.get(self.style, 3))):
            statement()
        self.emit("mov_imm", 0)
        self.emit("exit")
        if self.calls:
            self.subprog()
        return tuple(self.insns)

    def subprog(self) -> None:
        start = len(self.insns)
        for slot in self.calls:
            self.insns[slot] = self.insns[slot]._replace(imm=start - slot - 1)
        self.emit("mov_imm", 0, imm=self.some())
        kind = self.rng.randrange(4)
        if kind == 0:
            self.emit(self.rng.choice(_LOADS[8]), 0, 1, self.rng.choice((-8, 0, 8)))
        elif kind == 1:
            self.emit("stxdw", 1, 2, self.rng.choice((-8, 0)))
        elif kind == 2:
            jump = self.condition(2)
            self.emit("mov_imm", 0, imm=self.some())
            self.land(jump)
        else:
            self.emit("mov_reg", 0, self.rng.choice((1, 2, 2)))
        self.emit("exit")

    def statement(self) -> None:
        choices: list[tuple[int, Callable[[], object]]] = [
            (5, self.arithmetic),
            (3, lambda: self.number(self.rng.choice(_NUMBERS))),
            (2, self.pointer),
            (4, self.access),
            (3, self.stack),
            (3, self.indexed),
            (5, self.just_inside),
            (1, self.call),
            (1, self.helper),
            (1, self.ways_that_meet),
        ]
        if self.depth < 2:
            choices += [(5, self.branch), (1, self.loop)]
        if self.prog_type in _PACKET:
            choices.append((3, self.packet))
        weights = [weight for weight, _ in choices]
        self.rng.choices([make for _, make in choices], weights)[0]()

    # -- values -----------------------------------------------------------------------------------

    def number(self, reg: int) -> None:
        kind = self.rng.randrange(5)
        if kind == 0:
            self.emit("mov_imm", reg, imm=self.some())
        elif kind == 1:
            self.emit("call_helper", imm=self.rng.choice((5, 7)))
            self.emit("mov_reg", reg, 0)
        elif kind == 2 and self.prog_type != "xdp":
            self.emit(self.rng.choice(("ldxw", "ldxb")), reg, _CTX, 0)
        elif kind == 3:
            self.emit("mov_reg", reg, self.rng.choice(_NUMBERS) if self.maybe(0.95) else _FP)
        else:
            self.emit("call_helper", imm=7)
            self.emit("mov_reg", reg, 0)
            self.emit("and_imm", reg, imm=self.rng.choice((1, 3, 7, 8, 15, 16, 31)))

    def pointer(self) -> None:
        kind = self.rng.randrange(6)
        if kind == 0:
            self.emit("mov_reg", _PTR, _FP)
            self.emit("add_imm", _PTR, imm=self.rng.choice((-8, -16, -24, -512)))
        elif kind == 1:
            self.emit("lddw_map_idx_value", _PTR, imm=1)
            self.insns.append(Insn(0, imm=self.rng.choice((0, 0, 8))))
        elif kind == 2:
            self.emit("lddw_map_idx", _PTR, imm=3)
            self.insns.append(Insn(0))
            self.emit("cast_kern", _PTR, _PTR)
        else:
            self.lookup()

    def lookup(self) -> None:
        self.emit("stw", _FP, off=-4, imm=self.rng.choice((0, 0, 3, 4, 9)))
        self.emit("lddw_map_idx", 1, imm=self.rng.randrange(3))
        self.insns.append(Insn(0))
        self.emit("mov_reg", 2, _FP)
        self.emit("add_imm", 2, imm=-4)
        self.emit("call_helper", imm=1)
        copied_first = self.maybe(0.3)
        if copied_first:
            self.emit("mov_reg", _PTR, 0)
        if self.maybe(0.98):
            null = self.emit(self.rng.choice(("jne_imm", "jne_imm", "jgt_imm")), 0)
            self.emit("mov_imm", 0)
            self.emit("exit")
            self.land(null)
        if not copied_first:
            self.emit("mov_reg", _PTR, 0)

    def arithmetic(self) -> None:
        dst, src = self.rng.choice(_NUMBERS), self.rng.choice(_NUMBERS)
        if self.maybe(0.2):
            row = self.rng.choice(_UNARY)
            self.emit(row, dst, src, imm=row.width)
            return
        row = self.rng.choice(_BINARY)
        imm = self.some()
        if row.mnemonic.startswith(("lsh", "rsh", "arsh")):
            imm = self.rng.choice((1, 2, 8, 31, 32, 56, 63)) % row.width
        elif "div" in row.mnemonic or "mod" in row.mnemonic:
            imm = imm or 3
        self.emit(row, dst, src, imm=imm)

    # -- branches ---------------------------------------------------------------------------------

    def condition(self, reg: int | None = None) -> int:
        row = self.rng.choice(_JUMPS)
        reg = self.rng.choice(_NUMBERS) if reg is None else reg
        return self.emit(row, reg, self.rng.choice(_NUMBERS) if reg != 2 else 2, imm=self.some())

    def block(self) -> None:
        self.depth += 1
        for _ in range(self.rng.randrange(1, 4)):
            self.statement()
        self.depth -= 1

    def branch(self) -> None:
        jump = self.condition()
        self.block()
        if self.maybe(0.4):
            over = self.emit("ja")
            self.land(jump)
            self.block()
            self.land(over)
        else:
            self.land(jump)

    def loop(self) -> None:
        counter = self.rng.choice(_NUMBERS)
        self.emit("mov_imm", counter)
        top = len(self.insns)
        out = self.emit("may_goto") if self.maybe(0.5) else None
        if self.maybe(0.6):
            # The counter itself is the index; a load into it would make the loop endless.
            self.emit("mov_reg", 3, _PTR)
            self.emit("add_reg", 3, counter)
            self.emit("ldxb", 0, 3, self.rng.choice((0, 0, 1)))
        elif self.maybe(0.5):
            self.emit("ldxb", 17 - counter, _PTR, 0)
        self.emit("add_imm", counter, imm=self.rng.choice((1, 1, 2)))
        row = self.rng.choice(("jlt_imm", "jle_imm", "jslt_imm", "jlt32_imm"))
        back = self.emit(row, counter, imm=self.rng.choice((4, 8, 15, 16, 17)))
        self.insns[back] = self.insns[back]._replace(off=top - back - 1)
        if out is not None:
            self.land(out)

    def ways_that_meet(self) -> None:
        """Several ways to the same insns with different numbers in registers and stack slots.

        What a number is used for comes late, and after more branches: a state may be pruned only
        where the numbers that matter are the same.
        """
        self.aliases()
        # The way that jumps is walked last: there a number is wrong now and then.
        homes = [self.rng.choice(_HOMES)] * 4 + list(_HOMES)
        for home in _HOMES:
            self.set_home(home, self.rng.choice((0, 1, 2, 17, 200)))
        for _ in range(self.rng.randrange(1, 4)):
            self.emit("call_helper", imm=7)
            row = self.rng.choice(("jeq_imm", "jgt_imm", "jset_imm", "jgt32_imm"))
            jump = self.emit(row, 0, imm=3)
            self.set_home(self.rng.choice(homes), self.rng.choice((0, 4, 8, 15, 15, 16)))
            self.land(jump)
            if self.maybe(0.3):
                self.move_home(self.rng.choice(homes), self.rng.choice(homes))
        for _ in range(self.rng.randrange(3)):
            self.emit("call_helper", imm=7)
            jump = self.emit("jeq_imm", 0, imm=self.some())
            self.emit("mov_imm", 1)
            self.land(jump)
        self.move_home(4, self.rng.choice(homes))
        if self.maybe(0.4):
            jump = self.emit(self.rng.choice(("jle_imm", "jlt_imm")), 4, imm=16)
            self.emit("mov_imm", 4)
            self.land(jump)
        elif self.maybe(0.3):
            self.move_home(5, self.rng.choice((8, 9)))
            self.emit(self.rng.choice(("add_reg", "and_reg", "sub_reg", "or_reg")), 4, 5)
        self.emit("lddw_map_idx_value", 3, imm=1)
        self.insns.append(Insn(0))
        self.emit("add_reg", 3, 4)
        self.emit("ldxb", 0, 3, 0)

    def aliases(self) -> None:
        """Leave addresses of the stack in r7 and in slots."""
        self.emit("mov_reg", _PTR, _FP)
        self.emit("add_imm", _PTR, imm=-16)
        # Once an address lies in memory nobody knows any more which slots are read.
        self.has_alias = self.maybe(0.2)
        if self.has_alias:
            self.emit("mov_reg", 5, _FP)
            self.emit("stxdw", _FP, 5, _ALIAS)

    def home_at(self, home: int) -> tuple[int, int]:
        """Return register and offset through which the stack slot *home* may be used: r10, r7,
        one of r0 to r3 made for it, or one that was filled."""
        kind = self.rng.randrange(6)
        if kind == 0:
            return _PTR, home + 16
        reg = self.rng.randrange(4)
        if kind == 2 and self.has_alias:
            self.emit("ldxdw", reg, _FP, _ALIAS)
            return reg, home
        if kind > 4:
            return _FP, home
        if kind == 3:
            self.emit("mov_imm", reg, imm=home)
            self.emit("add_reg", reg, _FP)
        else:
            self.emit("mov_reg", reg, _FP)
            self.emit("add_imm", reg, imm=home)
        if self.maybe(0.5):
            # Something else happens between the address and its use.
            self.emit("stdw", _FP, 0, _SCRATCH, 0)
            self.emit("mov_imm", 5)
            row = self.rng.choice(("lock_fetch_add", "lock_xchg", "lock_add", "ldxdw"))
            self.emit(row, *((5, _FP) if row == "ldxdw" else (_FP, 5)), _SCRATCH)
        return reg, 0

    def set_home(self, home: int, value: int) -> None:
        """Put a number into a register, or at an offset from r10 if *home* is negative."""
        if home >= 0:
            self.emit("mov_imm", home, imm=value)
            return
        base, off = self.home_at(home)
        kind = self.rng.randrange(5)
        if kind < 2:
            self.emit("stdw", base, 0, off, value)
            return
        self.emit("mov_imm", 5, imm=value)
        if kind == 2:
            self.emit("lock_xchg", base, 5, off)
        elif kind == 3 and base != _FP and self.has_alias:
            self.emit("mov_reg", 1, base)
            self.emit("add_imm", 1, imm=off)
            self.emit("mov_reg", 2, 5)
            self.calls.append(self.emit("call_local"))
        else:
            self.emit("stxdw", base, 5, off)

    def move_home(self, to: int, home: int) -> None:
        """Copy from one place to another."""
        source = home
        if home < 0:
            source = 5 if to < 0 else to
            base, off = self.home_at(home)
            if self.maybe(0.2):
                self.emit("load_acquire64", source, base, off)
            else:
                self.emit("ldxdw", source, base, off)
        if to < 0:
            self.emit("stxdw", _FP, source, to)
        elif to != source:
            self.emit("mov_reg", to, source)

    # -- memory -----------------------------------------------------------------------------------

    def access(self, reg: int = _PTR) -> None:
        size = self.rng.choice((1, 1, 2, 4, 8))
        off = self.rng.choice((4, 7, 8, 12, 15, 16, -1, -4, -8)) if self.maybe(0.2) else 0
        kind = self.rng.randrange(4)
        if kind < 2:
            self.emit(self.rng.choice(_LOADS[size]), self.rng.choice(_NUMBERS), reg, off)
        elif kind == 2:
            source = self.rng.choice((*_NUMBERS, *_NUMBERS, _FP, _CTX))
            self.emit(_STORES[size], reg, source, off)
        else:
            self.emit("lock_add" if size == 8 else "lock_add32", reg, 8, off)

    def stack(self) -> None:
        size = self.rng.choice((1, 2, 4, 8, 8, 8))
        off = -8 * self.rng.randrange(1, 4) + (self.rng.randrange(0, 8, size))
        kind = self.rng.randrange(5)
        if kind == 0:
            self.emit(_STORES[size], _FP, self.rng.choice((*_NUMBERS, _PTR)), off)
        elif kind == 1:
            self.emit({1: "stb", 2: "sth", 4: "stw", 8: "stdw"}[size], _FP, 0, off, self.some())
        elif kind == 2:
            self.emit(self.rng.choice(_LOADS[size]), self.rng.choice(_NUMBERS), _FP, off)
        elif kind == 3:
            # Spilled, something happens to the original, filled.
            number = self.rng.choice(_NUMBERS)
            self.emit(_STORES[size], _FP, number, off)
            jump = self.condition(number)
            self.emit(self.rng.choice(_LOADS[size]), number, _FP, off)
            self.land(jump)
        else:
            self.emit("stxdw", _FP, _PTR, -8)
            if self.maybe(0.2):
                self.emit("stb", _FP, 0, self.rng.randrange(-8, 0), 0)
            self.emit("ldxdw", _PTR, _FP, -8)

    def indexed(self, index: int | None = None) -> None:
        """Bound a number in one of many ways, add it to a pointer, use that."""
        number = self.rng.choice(_NUMBERS) if index is None else index
        jumps = []
        for _ in range(self.rng.randrange(3)):
            kind = self.rng.randrange(4)
            if kind == 0 and index is None:
                row = self.rng.choice(("and_imm", "and32_imm"))
                self.emit(row, number, imm=self.rng.choice((1, 7, 8, 14, 15, 16)))
            elif kind == 1 and index is None:
                self.emit("mov32_reg", number, number)
            else:
                jumps.append(self.condition(number))
        self.add_and_access(number)
        for jump in jumps:
            self.land(jump)

    def just_inside(self) -> None:
        """An access that is right to the byte if the comparisons before it are."""
        number = self.rng.choice(_NUMBERS)
        self.emit("call_helper", imm=self.rng.choice((5, 7)))
        self.emit("mov_reg", number, 0)
        if self.maybe(0.3):
            self.emit("movsx3264", number, number)
        size = self.rng.choice((1, 1, 2, 4, 8))
        if self.maybe(0.5):
            self.emit("lddw_map_idx_value", 3, imm=1)
            self.insns.append(Insn(0))
        else:
            size = 1  # the stack takes no unaligned access
            self.emit("mov_reg", 3, _FP)
            self.emit("add_imm", 3, imm=-_ROOM)
        last = _ROOM - size + self.rng.choice((0, 0, 0, 1))
        bends: list[list[tuple[str, int]]] = [[]]
        bend = self.rng.choice(self.bends(last) if self.maybe(0.6) else bends)
        width = self.rng.choice(("", "", "32"))
        jumps = self.bound(number, self.before(bend, last), width)
        if width and self.maybe(0.7):
            self.emit("mov32_reg", number, number)
        for name, operand in bend:
            self.emit(name, number, imm=operand)
        self.emit("add_reg", 3, number)
        self.emit(self.rng.choice(_LOADS[size]), 0, 3)
        for jump in jumps:
            self.land(jump)

    def bends(self, last: int) -> list[list[tuple[str, int]]]:
        """What may be done to a number between its comparison and its use."""
        small = self.rng.randrange(1, 4)
        wide = self.rng.choice(("", "32"))
        return [
            [(f"add{wide}_imm", small)],
            [(f"sub{wide}_imm", -small)],
            [(f"add{wide}_imm", -small)],
            [(f"sub{wide}_imm", small)],
            [(f"rsh{wide}_imm", small)],
            [(f"arsh{wide}_imm", small)],
            [(f"lsh{wide}_imm", 1)],
            [(f"mul{wide}_imm", 2)],
            [("lsh_imm", 32), ("arsh_imm", 32)],
            [("lsh_imm", 32), ("rsh_imm", 32)],
            [(f"neg{wide}", 0), (f"neg{wide}", 0)],
            [(f"neg{wide}", 0), (f"add{wide}_imm", last)],
            [(f"and{wide}_imm", 15)],
            [(f"xor{wide}_imm", 15)],
            [(f"or{wide}_imm", 1)],
        ]

    def before(self, bend: list[tuple[str, int]], last: int) -> int:
        """Return about the greatest number that *bend* makes *last*."""
        for name, operand in reversed(bend):
            op = name.removesuffix("_imm").removesuffix("32")
            if op == "add":
                last -= operand
            elif op == "sub":
                last += operand
            elif op in ("rsh", "arsh") and operand < 32:
                last = (last + 1 << operand) - 1
            elif op in ("lsh", "mul") and operand < 32:
                last //= 2
        return last + self.rng.choice((0, 0, 0, 0, 1))

    def bound(self, number: int, last: int, width: str) -> list[int]:
        """Compare a number with *last* in some way; return the jumps to where it is larger."""
        jumps = []
        if self.maybe(0.5):
            name = self.rng.choice(("jslt", "jsge", "jle", "jsgt", "jlt"))
            low = self.rng.choice((0, 0, -1, 1, 2, 3))
            jumps.append(self.emit(f"{name}{width}_imm", number, imm=low))
        if self.maybe(0.4):
            self.emit(self.rng.choice(("and_imm", "and32_imm")), number, imm=31)
        kind = self.rng.randrange(4)
        name, bound = self.rng.choice(
            (("jgt", last), ("jge", last + 1), ("jsgt", last), ("jsge", last + 1))
        )
        if kind == 0:
            self.emit("mov_imm", 4, imm=bound)
            jumps.append(self.emit(f"{name}{width}_reg", number, 4))
        elif kind == 1:
            self.emit("mov_imm", 4, imm=bound)
            jumps.append(self.emit(f"{_MIRRORED[name]}{width}_reg", 4, number))
        elif kind == 2:
            over = self.emit(f"{_OPPOSITE[name]}{width}_imm", number, imm=bound)
            jumps.append(self.emit("ja"))
            self.land(over)
        else:
            jumps.append(self.emit(f"{name}{width}_imm", number, imm=bound))
        excluded = self.rng.sample((0, last, _ROOM), self.rng.randrange(3))
        return jumps + [self.emit("jeq_imm", number, imm=value) for value in excluded]

    def add_and_access(self, number: int) -> None:
        self.emit("mov_reg", 3, _PTR)
        if self.maybe(0.1):
            self.emit("add_imm", 3, imm=self.rng.choice((1, 8, -8, 15)))
        self.emit(self.rng.choice(("add_reg", "add_reg", "add_reg", "sub_reg")), 3, number)
        if self.maybe(0.1):
            self.emit("add_imm", 3, imm=self.rng.choice((1, -1, 8, -8)))
        self.access(3)

    def packet(self) -> None:
        """Prove some bytes of the packet by comparing with its end, somehow; use the last."""
        start, end = _PACKET[self.prog_type]
        proven = self.rng.choice((1, 2, 4, 8, 14, 14, 20))
        number = self.rng.choice(_NUMBERS)
        self.emit("call_helper", imm=7)
        self.emit("mov_reg", number, 0)
        self.emit("and_imm", number, imm=self.rng.choice((1, 3, 7, 15, 0xFFFF)))
        self.emit("ldxw", _PTR, _CTX, start)
        self.emit("ldxw", 2, _CTX, end)
        if self.maybe(0.4):
            self.emit("add_reg", _PTR, number)
        moved = _PTR if self.maybe(0.2) else 3
        if moved != _PTR:
            self.emit("mov_reg", moved, _PTR)
        if self.maybe(0.1):  # now they differ by a number that is not known
            self.emit("and_imm", number, imm=self.rng.choice((1, 7)))
            self.emit(self.rng.choice(("add_reg", "add_reg", "sub_reg")), moved, number)
        self.emit("add_imm", moved, imm=proven)
        jump = self.outside(moved)
        if self.maybe(0.15):
            again = self.emit("jgt_reg", *((moved, 2) if self.maybe(0.5) else (2, moved)))
            self.emit("add_imm", moved, imm=self.rng.choice((0, 1, -1, 8)))
            self.land(again)
        size = self.rng.choice([n for n in (1, 2, 4, 8) if n <= proven])
        base = self.rng.choice((_PTR, moved))
        shift = proven if base == moved else 0
        off = proven - size + self.rng.choice((0, 0, 0, 0, 1, 2)) - shift
        self.emit(self.rng.choice(_LOADS[size]), 9, base, off if self.maybe(0.95) else -1)
        self.land(jump)
        self.pointer()

    def outside(self, moved: int) -> int:
        """Jump away if *moved* lies behind the packet's end, or nearly so; return the jump."""
        away = (("jgt", moved, 2), ("jge", moved, 2), ("jlt", 2, moved), ("jle", 2, moved))
        stay = (("jle", moved, 2), ("jlt", moved, 2), ("jge", 2, moved), ("jgt", 2, moved))
        is_direct = self.maybe(0.5)
        name, a, b = self.rng.choice(away if is_direct or self.maybe(0.1) else stay)
        jump = self.emit(f"{name}_reg", a, b)
        if is_direct:
            return jump
        over = self.emit("ja")
        self.land(jump)
        return over

    # -- calls ------------------------------------------------------------------------------------

    def call(self) -> None:
        self.emit("mov_reg", 1, self.rng.choice((_PTR, _PTR, _CTX)))
        self.emit("mov_reg", 2, self.rng.choice(_NUMBERS))
        self.calls.append(self.emit("call_local"))
        self.emit("mov_reg", self.rng.choice(_NUMBERS), 0)

    def helper(self) -> None:
        """trace_printk of a size bounded somehow, or an update."""
        if self.maybe(0.3):
            self.emit("lddw_map_idx", 1, imm=self.rng.randrange(3))
            self.insns.append(Insn(0))
            self.emit("mov_reg", 2, _FP)
            self.emit("add_imm", 2, imm=self.rng.choice((-4, -8, -3)))
            self.emit("mov_reg", 3, _PTR)
            self.emit("mov_imm", 4)
            self.emit("call_helper", imm=2)
            return
        number = self.rng.choice(_NUMBERS)
        jumps = [self.condition(number) for _ in range(self.rng.randrange(3))]
        self.emit("mov_reg", 2, number)
        self.emit("mov_reg", 1, _PTR)
        self.emit("call_helper", imm=6)
        for jump in jumps:
            self.land(jump)
