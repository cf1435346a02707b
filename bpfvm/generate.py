"""Random programs from the instruction table: for `bpfvm diff --random` and differential tests.

They end (jumps go forward, loops count down), use only what they have written, and let no address
flow into a value, so that two engines must agree to the bit. Most of them verify: accesses are
aligned and in bounds, every register is written on all paths. With *sandbox* they may also do
what a verifier refuses and an engine must define: oversized shift counts, division by a zero
immediate, unaligned and wild accesses, calls by register.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from bpfvm.context import PROG_TYPES, CtxKind, Sleepable
from bpfvm.emit import Emitter, edge_number, joined, rows, rows_by_name
from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn
from bpfvm.isa import AluOp, AtomicOp, InsnDef, Kind, LdKind
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import MapDef, Program

__all__ = ["MADE", "generate", "random_program"]

#: Each function's bytes of stack that programs read and write; the words below are reserved.
_STACK = 64
_ARENA_SLOT, _CTX_SLOT, _KEY_SLOT, _VALUE_SLOT = -72, -80, -88, -104
_FP = 10
_CALL_CLOBBERED = frozenset(range(1, 6))
_MAX_DEPTH = 2
_ARENA_PAGES, _PAGE = 4, 4096

_MAPS = (
    MapDef("array", MapType.ARRAY, 4, 16, 4),
    MapDef("hash", MapType.HASH, 8, 16, 8),
    MapDef("global", MapType.ARRAY, 4, 64, 1),
    MapDef("arena", MapType.ARENA, 0, 0, 16, MapFlags.MMAPABLE),
)
_ARRAY, _HASH, _GLOBAL, _ARENA = range(len(_MAPS))
_KFUNCS = ("bpf_arena_alloc_pages", "bpf_arena_free_pages")
_LOOKUP, _UPDATE, _DELETE = 1, 2, 3
#: Helpers without arguments: ktime_get_ns, get_prandom_u32, get_smp_processor_id.
_PLAIN_HELPERS = (5, 7, 8)


_ALU = rows(Kind.ALU, Kind.MOV, Kind.MOVSX, Kind.NEG, Kind.END)
_LOADS = rows(Kind.LDX, Kind.LOAD_ACQ)
_STORES = rows(Kind.ST, Kind.STX, Kind.STORE_REL)
_ATOMICS = rows(Kind.ATOMIC)
#: x86-64 Linux 6.18 has no fetch_and, fetch_or, fetch_xor on arenas.
_BITWISE = (AtomicOp.AND, AtomicOp.OR, AtomicOp.XOR)
_ARENA_ATOMICS = tuple(r for r in _ATOMICS if not (r.fetch and r.op in _BITWISE))
_JUMPS = rows(Kind.JCOND)
_SHIFTS = (AluOp.LSH, AluOp.RSH, AluOp.ARSH)
_DIVISIONS = (AluOp.DIV, AluOp.SDIV, AluOp.MOD, AluOp.SMOD)

#: The program types that are made: they are test-run, and may return any number.
MADE = ("socket_filter", "xdp", "sched_cls", "syscall", "raw_tp")


def random_program(seed: int, *, repeatable: bool = False) -> Program:
    """Return the program of *seed*: any type, size and mode (see `generate`)."""
    rng = random.Random(seed)
    return generate(
        rng,
        prog_type=rng.choice(MADE),
        size=rng.choice((4, 12, 30)),
        sandbox=rng.random() < 0.25,
        repeatable=repeatable,
    )


def generate(
    rng: random.Random,
    *,
    prog_type: str = "socket_filter",
    size: int = 20,
    sandbox: bool = False,
    repeatable: bool = False,
    name: str = "random",
) -> Program:
    """Return a random program of about *size* statements, each of a few insns.

    Args:
        rng: all choices come from it.
        prog_type: one of `MADE`.
        size: statements of the main program; subprograms have fewer.
        sandbox: also what only an unverified run allows.
        repeatable: nothing that each machine has for itself: clock, random numbers, CPU.
        name: the program's name.
    """
    maker = _Maker(rng, prog_type, sandbox, repeatable)
    insns = maker.program(size)
    return Program(
        name,
        insns,
        prog_type,
        find_subprogs(insns, {0: name}),
        PROG_TYPES[prog_type].sleepable is Sleepable.MUST,
        maps=_MAPS,
        kfuncs=_KFUNCS,
    )


@dataclass(slots=True)
class _Body(Emitter):
    """A function in the making."""

    #: Registers that hold a number on every path, and those a loop counts in.
    ready: set[int] = field(default_factory=set)
    locked: set[int] = field(default_factory=set)
    depth: int = 0


class _Maker:
    def __init__(self, rng: random.Random, prog_type: str, sandbox: bool, repeatable: bool) -> None:
        self.rng, self.sandbox, self.repeatable = rng, sandbox, repeatable
        self.prog_type = PROG_TYPES[prog_type]
        self.functions = rng.randrange(3)
        self.has_arena = rng.random() < 0.5
        self.body = _Body(0)

    def program(self, size: int) -> tuple[Insn, ...]:
        bodies: list[Emitter] = []
        for number in range(self.functions + 1):
            self.body = _Body(number)
            self.prologue()
            for _ in range(size if number == 0 else max(1, size // 4)):
                self.statement()
            if number < self.functions and number + 1 not in {f for _, f in self.body.calls}:
                self.local_call(number + 1)  # no function may be out of reach
            self.epilogue()
            bodies.append(self.body)
        return joined(bodies)

    # -- emitting ---------------------------------------------------------------------------------

    def emit(
        self, row: InsnDef | str, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0
    ) -> int:
        return self.body.emit(row, dst, src, off, imm)

    def wide(self, kind: LdKind, dst: int, imm: int, next_imm: int) -> None:
        self.body.wide(kind, dst, imm, next_imm)

    def patch(self, slot: int) -> None:
        self.body.patch(slot)

    # -- choosing ---------------------------------------------------------------------------------

    def number(self) -> int:
        return edge_number(self.rng)

    def readable(self) -> int:
        return self.rng.choice(sorted(self.body.ready))

    def writable(self) -> int:
        choices = sorted(set(range(10)) - self.body.locked)
        return self.rng.choice(choices)

    def set_number(self, reg: int) -> None:
        if self.rng.random() < 0.2:
            self.wide(LdKind.IMM64, reg, self.number(), self.number())
        else:
            self.emit("mov_imm", reg, imm=self.number())
        self.body.ready.add(reg)

    def forget(self, *regs: int) -> None:
        """Write numbers over addresses that *regs* held."""
        for reg in regs:
            self.set_number(reg)

    def called(self) -> None:
        """Note that a call left nothing in r1 to r5; write some of them at once."""
        self.body.ready -= _CALL_CLOBBERED
        self.body.ready.add(0)
        for reg in self.rng.sample(sorted(_CALL_CLOBBERED), 2):
            self.set_number(reg)

    # -- functions --------------------------------------------------------------------------------

    def prologue(self) -> None:
        if self.body.number == 0:
            self.emit("stxdw", _FP, 1, _CTX_SLOT)
            if self.has_arena:
                self.allocate()
            regs = set(range(10))
        else:
            # A callee knows that its arguments were written.
            self.body.ready = set(_CALL_CLOBBERED)
            regs = set(range(10)) - _CALL_CLOBBERED
        for reg in sorted(regs):
            self.set_number(reg)
        for off in range(-_STACK, 0, 8):
            if self.rng.random() < 0.5:
                self.emit("stdw", _FP, off=off, imm=self.number())
            else:
                self.emit("stxdw", _FP, self.readable(), off)

    def allocate(self) -> None:
        self.wide(LdKind.MAP_IDX, 1, _ARENA, 0)
        self.emit("mov_imm", 2)
        self.emit("mov_imm", 3, imm=self.rng.randrange(1, _ARENA_PAGES + 1))
        self.emit("mov_imm", 4, imm=-1)
        self.emit("mov_imm", 5)
        self.emit("call_kfunc", imm=_KFUNCS.index("bpf_arena_alloc_pages"))
        self.emit("stxdw", _FP, 0, _ARENA_SLOT)

    def epilogue(self) -> None:
        """Let all that the function holds flow into r0."""
        if 0 not in self.body.ready:
            self.set_number(0)
        for reg in sorted(self.body.ready - {0}):
            self.emit(self.rng.choice(("xor_reg", "add_reg")), 0, reg)
        for off in range(-_STACK, 0, 8):
            self.emit("ldxdw", 1, _FP, off)
            self.emit("mul_imm", 0, imm=31)
            self.emit("xor_reg", 0, 1)
        self.emit("exit")

    # -- statements -------------------------------------------------------------------------------

    def statement(self) -> None:
        body = self.body
        choices: list[tuple[int, Callable[[], None]]] = [
            (12, self.alu),
            (2, lambda: self.set_number(self.writable())),
            (4, self.load),
            (4, self.store),
            (3, self.atomic),
            (1, self.helper),
            (2, self.map_element),
            (1, self.map_change),
            (1, self.map_value),
        ]
        if body.depth < _MAX_DEPTH:
            choices += [(3, self.branch), (1, self.loop), (1, self.skip)]
        if body.number < self.functions and body.depth < 2:
            choices.append((2, self.local_call))
        if body.number == 0:
            choices.append((1, self.context))
            if self.prog_type.packet_write:
                choices.append((2, self.packet))
            if self.has_arena:
                choices.append((4, self.arena))
        if self.sandbox and not self.repeatable:
            choices.append((1, self.call_by_register))
        if self.sandbox:
            choices.append((1, self.wild))
        weights = [weight for weight, _ in choices]
        self.rng.choices([make for _, make in choices], weights)[0]()

    def alu(self) -> None:
        row = self.rng.choice(_ALU)
        reads_dst = row.kind not in (Kind.MOV, Kind.MOVSX)
        dst = self.writable()
        if reads_dst and dst not in self.body.ready:
            self.set_number(dst)
        imm = self.number()
        if not self.sandbox:
            if row.op in _SHIFTS:
                imm %= row.width
            elif row.op in _DIVISIONS and imm == 0:
                imm = 3
        self.emit(row, dst, self.readable(), imm=imm)
        self.body.ready.add(dst)

    def place(self, size: int) -> int:
        """The offset from r10 of a piece of the function's stack."""
        if self.sandbox and self.rng.random() < 0.2:
            return self.rng.randrange(-_STACK, -size + 1)
        return self.rng.randrange(-_STACK, 0, size)

    def load(self) -> None:
        row = self.rng.choice(_LOADS)
        dst = self.writable()
        self.emit(row, dst, _FP, self.place(row.size))
        self.body.ready.add(dst)

    def store(self) -> None:
        row = self.rng.choice(_STORES)
        self.emit(row, _FP, self.readable(), self.place(row.size), self.number())

    def atomic(self) -> None:
        row = self.rng.choice(_ATOMICS)
        off = self.rng.randrange(-_STACK, 0, row.size)
        self.atomic_at(row, _FP, off)

    def atomic_at(self, row: InsnDef, base: int, off: int) -> None:
        """An atomic whose result lands in a register that may be written, never in its base."""
        writes = {0} if row.op is AtomicOp.CMPXCHG else set()
        choices = self.body.ready - {base}
        if row.fetch and not writes:
            choices -= self.body.locked
        if not choices or 0 not in self.body.ready:
            self.set_number(0)
            choices = {0}
        self.emit(row, base, self.rng.choice(sorted(choices)), off)

    def branch(self) -> None:
        """if / else, or only if."""
        jump = self.condition()
        before = set(self.body.ready)
        self.block()
        if self.rng.random() < 0.4:
            over = self.emit(self.rng.choice(("ja", "ja32")))
            self.patch(jump)
            after_then, self.body.ready = self.body.ready, before
            self.block()
            self.patch(over)
            self.body.ready &= after_then
        else:
            self.patch(jump)
            self.body.ready &= before

    def condition(self) -> int:
        row = self.rng.choice(_JUMPS)
        return self.emit(row, self.readable(), self.readable(), imm=self.number())

    def block(self) -> None:
        self.body.depth += 1
        for _ in range(self.rng.randrange(1, 4)):
            self.statement()
        self.body.depth -= 1

    def skip(self) -> None:
        """A jump over the next insns, or a may_goto, which falls through."""
        if self.rng.random() < 0.5:
            before = set(self.body.ready)
            jump = self.emit("may_goto")
            self.block()
            self.patch(jump)
            self.body.ready &= before
        else:
            jump = self.emit(self.rng.choice(("ja", "ja32")))
            self.patch(jump)

    def loop(self) -> None:
        """Count a register down, now and then under a may_goto too."""
        choices = sorted(set(range(6, 10)) - self.body.locked)
        if not choices:
            return
        counter = self.rng.choice(choices)
        self.emit("mov_imm", counter, imm=self.rng.randrange(1, 5))
        self.body.ready.add(counter)
        self.body.locked.add(counter)
        top = len(self.body.insns)
        out = self.emit("may_goto") if self.rng.random() < 0.5 else None
        before = set(self.body.ready)
        self.block()
        # What the next round reads must be ready at its end, as it was before the first.
        for reg in sorted(before - self.body.ready):
            self.set_number(reg)
        self.emit("add_imm", counter, imm=-1)
        back = self.emit(self.rng.choice(("jne_imm", "jne32_imm", "jsgt_imm")), counter)
        self.body.insns[back] = self.body.insns[back]._replace(off=top - back - 1)
        if out is not None:
            self.patch(out)
        self.body.ready = before
        self.body.locked.discard(counter)

    # -- calls ------------------------------------------------------------------------------------

    def local_call(self, callee: int | None = None) -> None:
        for reg in sorted(_CALL_CLOBBERED - self.body.ready):
            self.set_number(reg)
        if callee is None:
            callee = self.rng.randrange(self.body.number + 1, self.functions + 1)
        self.body.calls.append((self.emit("call_local"), callee))
        self.called()

    def helper(self) -> None:
        if self.repeatable:
            self.map_change()
            return
        self.emit("call_helper", imm=self.rng.choice(_PLAIN_HELPERS))
        self.called()

    def call_by_register(self) -> None:
        self.emit("mov_imm", 6 if 6 not in self.body.locked else 0, imm=8)
        self.emit("callx", 6 if 6 not in self.body.locked else 0)
        self.body.ready.add(6)
        self.called()

    # -- memory besides the stack -----------------------------------------------------------------

    def key(self, reg: int, index: int) -> None:
        """Write a key to the stack and its address to *reg*."""
        if index == _ARRAY:
            self.emit("stw", _FP, off=_KEY_SLOT, imm=self.rng.randrange(5))
        else:
            self.emit("stdw", _FP, off=_KEY_SLOT, imm=self.rng.randrange(10))
        self.emit("mov_reg", reg, _FP)
        self.emit("add_imm", reg, imm=_KEY_SLOT)

    def map_element(self) -> None:
        index = self.rng.choice((_ARRAY, _HASH))
        self.wide(LdKind.MAP_IDX, 1, index, 0)
        self.key(2, index)
        self.emit("call_helper", imm=_LOOKUP)
        self.called()
        jump = self.emit("jeq_imm", 0)
        self.body.ready.discard(0)
        self.access(0, 0, _MAPS[index].value_size)
        self.patch(jump)
        self.forget(0)

    def map_change(self) -> None:
        index = self.rng.choice((_ARRAY, _HASH))
        self.wide(LdKind.MAP_IDX, 1, index, 0)
        self.key(2, index)
        if self.rng.random() < 0.7:
            for off in (_VALUE_SLOT, _VALUE_SLOT + 8):
                self.emit("stdw", _FP, off=off, imm=self.number())
            self.emit("mov_reg", 3, _FP)
            self.emit("add_imm", 3, imm=_VALUE_SLOT)
            self.emit("mov_imm", 4, imm=self.rng.randrange(3))
            self.emit("call_helper", imm=_UPDATE)
        else:
            self.emit("call_helper", imm=_DELETE)
        self.called()

    def map_value(self) -> None:
        reg = self.pointer_reg()
        self.wide(LdKind.MAP_IDX_VALUE, reg, _GLOBAL, 0)
        self.access(reg, 0, _MAPS[_GLOBAL].value_size)
        self.forget(reg)

    def pointer_reg(self) -> int:
        """A register that may hold an address for a while."""
        reg = self.rng.choice(sorted(_CALL_CLOBBERED))
        self.body.ready.discard(reg)
        return reg

    def access(
        self, base: int, low: int, high: int, atomics: tuple[InsnDef, ...] = _ATOMICS
    ) -> None:
        """A few accesses to bytes [low, high) from *base*; only registers that were ready before
        are written."""
        for _ in range(self.rng.randrange(1, 4)):
            row = self.rng.choice((*_LOADS, *_STORES, *atomics))
            off = self.rng.randrange(low, high - row.size + 1, row.size)
            if row.kind in (Kind.LDX, Kind.LOAD_ACQ):
                self.emit(row, self.target(base), base, off)
            elif row.kind is not Kind.ATOMIC:
                self.emit(row, base, self.readable(), off, self.number())
            elif row.op is AtomicOp.CMPXCHG:
                if base != 0 and 0 in self.body.ready:
                    self.emit(row, base, self.readable(), off)
            else:
                self.emit(row, base, self.target(base) if row.fetch else self.readable(), off)

    def target(self, base: int) -> int:
        """A register that may be written and is read afterwards anyway."""
        choices = self.body.ready - self.body.locked - {base}
        return self.rng.choice(sorted(choices)) if choices else self.spare(base)

    def spare(self, base: int) -> int:
        reg = 1 if base != 1 else 2
        self.set_number(reg)
        return reg

    def context(self) -> None:
        """Read a number from the context."""
        offs = [0]
        row = rows_by_name["ldxdw"]
        if self.prog_type.fields is not None:
            row = rows_by_name["ldxw"]
            offs = [
                f.off
                for f in self.prog_type.fields
                if f.kind is CtxKind.SCALAR and f.size == row.size and not f.attach
            ]
        reg = self.pointer_reg()
        self.emit("ldxdw", reg, _FP, _CTX_SLOT)
        self.emit(row, self.target(reg), reg, self.rng.choice(offs))
        self.forget(reg)

    def packet(self) -> None:
        """Compare with the packet's end, then access its first bytes."""
        fields = {f.kind: f for f in self.prog_type.fields or ()}
        if self.body.locked & {2, 3, 4}:
            return
        self.emit("ldxdw", 1, _FP, _CTX_SLOT)
        self.emit("ldxw", 2, 1, fields[CtxKind.PACKET].off)
        self.emit("ldxw", 3, 1, fields[CtxKind.PACKET_END].off)
        self.emit("mov_reg", 4, 2)
        length = self.rng.randrange(8, 40)
        self.emit("add_imm", 4, imm=length)
        self.body.ready -= {1, 2, 3, 4}
        jump = self.emit("jgt_reg", 4, 3)
        for _ in range(self.rng.randrange(1, 4)):
            row = self.rng.choice(rows(Kind.LDX, Kind.ST, Kind.STX))
            off = self.rng.randrange(length - row.size + 1)
            if row.kind is Kind.LDX:
                self.emit(row, self.target(2), 2, off)
            else:
                self.emit(row, 2, self.readable(), off, self.number())
        self.patch(jump)
        self.forget(1, 2, 3, 4)

    def arena(self) -> None:
        """Cast the arena pointer and go through it: pages that are there, and some that are not."""
        reg = self.pointer_reg()
        if self.rng.random() < 0.2:
            # The upper half is an address: only the lower one may flow on.
            self.set_number(reg)
            self.emit("cast_user", reg, reg)
            self.emit("lsh_imm", reg, imm=32)
            return
        self.emit("ldxdw", reg, _FP, _ARENA_SLOT)
        if self.rng.random() < 0.3:
            self.emit("cast_kern", reg, reg)
            self.emit("add_imm", reg, imm=self.rng.randrange(_ARENA_PAGES * _PAGE))
        else:
            self.emit("cast_kern", reg, reg)
        low, high = self.rng.choice(((0, 64), (_PAGE - 64, _PAGE + 64), (-256, 256), (0, 1 << 15)))
        self.access(reg, low, high, _ARENA_ATOMICS)
        self.forget(reg)

    def wild(self) -> None:
        """An access that a sandbox refuses, behind a condition that may keep it from happening."""
        if self.rng.random() < 0.9:
            return
        reg = self.pointer_reg()
        self.set_number(reg)
        row = self.rng.choice((*_LOADS, *_STORES))
        dst, src = (self.target(reg), reg) if row in _LOADS else (reg, self.readable())
        self.emit(row, dst, src, self.rng.randrange(-64, 64), self.number())
