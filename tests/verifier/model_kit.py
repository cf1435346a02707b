"""A machine that knows where every pointer came from: it finds what a verifier must not accept.

It runs a program's own insns. A value is a number, or a pointer: an object and an offset in it.
Only a pointer can be dereferenced, only inside its object, and only while it is what the program
made it; a register or context that was never set can't be read. Nothing here shares code with
the verifier or the engines.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from domain_kit import compare, compute

from bpfvm.bits import U32_MAX, U64_MAX, bswap, sext
from bpfvm.isa import AluOp, AtomicOp, CallKind, EndOp, JmpOp, Kind, LdKind, lookup
from bpfvm.maps.base import MapType
from bpfvm.program import Program

__all__ = ["Unsafe", "knows", "run"]

_FRAME = 512
_STEPS = 20_000
#: r11, through which the arguments on the stack go.
_PARAMS = 11
_EDGES = (0, 1 << 31, 1 << 32, 1 << 63)
_CTX_SIZES = {"socket_filter": 192, "sched_cls": 192, "xdp": 24, "syscall": 65535, "raw_tp": 96}
#: Helpers that the model has; others are not followed.
_HELPERS = frozenset({1, 2, 3, 5, 6, 7, 8})
#: Where the context's fields lie that hold pointers: start, end and metadata of the packet.
_PACKET_FIELDS = {"xdp": {0: "start", 4: "end", 8: "start"}}
_PACKET_FIELDS["sched_cls"] = {76: "start", 80: "end", 140: "start"}


class Unsafe(Exception):
    """The program did what no accepted program may."""


@dataclass(eq=False)
class Thing:
    """An object in memory. *spilled* are the pointers that lie in it, by offset."""

    kind: str
    size: int
    base: int
    data: bytearray = field(default_factory=bytearray)
    spilled: dict[int, Pointer] = field(default_factory=dict)


class Pointer(NamedTuple):
    """An address inside (or outside) *thing*; *is_end* marks the packet's end."""

    thing: Thing
    off: int
    is_end: bool = False


Value = int | Pointer


def number(value: Value) -> int:
    """Return what the bits of *value* are."""
    return value.thing.base + value.off & U64_MAX if isinstance(value, Pointer) else value


class _Frame(NamedTuple):
    back: int
    regs: list[Value | None]
    taken: dict[int, Value]


class _Model:
    def __init__(self, program: Program, rng: random.Random) -> None:
        self.program, self.rng = program, rng
        self.bases = 0x1000_0000_0000
        self.things: list[Thing] = []
        size = rng.choice((0, 1, 2, 4, 5, 13, 14, 15, 19, 20, 21, 64))
        self.packet = self.thing("packet", size)
        self.ctx = self.thing("ctx", _CTX_SIZES[program.prog_type])
        self.maps = [self.thing("map", 0) for _ in program.maps]
        self.values = [self.thing("value", d.value_size) for d in program.maps]
        self.arena = self.thing("arena", 0)
        self.frames: list[_Frame] = []
        self.regs: list[Value | None] = [None] * 11
        #: Arguments on the stack by their offset from r11: to be passed, and those that were.
        self.passed: dict[int, Value] = {}
        self.taken: dict[int, Value] = {}
        self.enter(-1, [self.ctx])
        self.pc = 0
        self.may_goto = rng.choice((0, 1, 3, 10))

    def thing(self, kind: str, size: int) -> Thing:
        self.bases += 0x1_0000_0000
        pattern = b"".join(self.some().to_bytes(8, "little") for _ in range(16))
        data = bytearray((pattern * (size // len(pattern) + 1))[:size])
        return Thing(kind, size, self.bases, data)

    def some(self) -> int:
        """Return a number that nobody knows: most often one like those programs compare with."""
        kind = self.rng.randrange(8)
        if kind < 4:
            return self.rng.randrange(24)
        if kind < 6:
            return self.rng.choice(_EDGES) + self.rng.randint(-9, 9) & U64_MAX
        return self.rng.getrandbits(64) >> self.rng.choice((0, 0, 32))

    def enter(self, back: int, args: list[Thing] | None = None) -> None:
        regs: list[Value | None] = [None] * 11
        if args is None:
            regs[1:6] = self.regs[1:6]
        else:
            regs[1] = Pointer(args[0], 0)
        self.frames.append(_Frame(back, self.regs, self.taken))
        self.regs = regs
        self.taken, self.passed = self.passed, {}
        regs[10] = Pointer(self.thing("stack", _FRAME), _FRAME)

    # -- values ----------------------------------------------------------------------------------

    def get(self, reg: int) -> Value:
        value = self.regs[reg]
        if value is None:
            raise Unsafe(f"r{reg} was never set")
        return value

    def set(self, reg: int, value: Value) -> None:
        if reg == 10:
            raise Unsafe("r10 is written")
        self.regs[reg] = value if isinstance(value, Pointer) else value & U64_MAX

    # -- memory ----------------------------------------------------------------------------------

    def place(self, value: Value, off: int, size: int, *, write: bool) -> tuple[Thing, int] | None:
        """Return object and offset of an access; None in an arena, where anything goes."""
        if not isinstance(value, Pointer):
            raise Unsafe(f"access through the number {value:#x}")
        thing, at = value.thing, value.off + off
        if thing.kind == "arena":
            return None
        if value.is_end:
            raise Unsafe("access through the packet's end")
        if thing.kind == "map" and not write:
            return None
        if not 0 <= at <= thing.size - size:
            raise Unsafe(f"{size} bytes at {at} of a {thing.kind} of {thing.size}")
        return thing, at

    def load(self, value: Value, off: int, size: int) -> Value:
        place = self.place(value, off, size, write=False)
        if place is None:
            return self.some() & (1 << 8 * size) - 1
        thing, at = place
        if thing.kind == "ctx":
            field_ = _PACKET_FIELDS.get(self.program.prog_type, {}).get(at)
            if field_ is not None:
                is_end = field_ == "end"
                return Pointer(self.packet, self.packet.size if is_end else 0, is_end)
        if size == 8 and at in thing.spilled:
            return thing.spilled[at]
        whole = bytearray(thing.data)
        for start, pointer in thing.spilled.items():
            whole[start : start + 8] = number(pointer).to_bytes(8, "little")
        return int.from_bytes(whole[at : at + size], "little")

    def store(self, value: Value, off: int, size: int, what: Value) -> None:
        place = self.place(value, off, size, write=True)
        if place is None:
            return
        thing, at = place
        for start in [s for s in thing.spilled if s < at + size and at < s + 8]:
            thing.data[start : start + 8] = number(thing.spilled.pop(start)).to_bytes(8, "little")
        if size == 8 and isinstance(what, Pointer):
            thing.spilled[at] = what
        bits = number(what) & (1 << 8 * size) - 1
        thing.data[at : at + size] = bits.to_bytes(size, "little")

    def touch(self, value: Value, size: int) -> None:
        """Let a helper access memory."""
        if size and self.place(value, 0, size, write=False) is None:
            raise Unsafe("a helper is given something that is no memory")

    # -- insns -----------------------------------------------------------------------------------

    def alu(self, op: AluOp, width: int, dst: Value, src: Value) -> Value:
        if op is AluOp.MOV and width == 64:
            return src
        if width == 64 and op in (AluOp.ADD, AluOp.SUB):
            sign = 1 if op is AluOp.ADD else -1
            if isinstance(dst, Pointer) and isinstance(src, int):
                return dst._replace(off=sext(dst.off + sign * src, 64))
            if isinstance(src, Pointer) and isinstance(dst, int) and op is AluOp.ADD:
                return src._replace(off=sext(src.off + dst, 64))
        for one in (dst, src):
            if isinstance(one, Pointer) and one.thing is self.arena and op is not AluOp.NEG:
                return Pointer(self.arena, 0)
        return compute(op, width, number(dst), number(src))

    def step(self) -> bool:
        """Run one insn; False at the end."""
        insn = self.program.insns[self.pc]
        row = lookup(insn)
        assert row is not None
        self.pc += 1
        match row.kind:
            case Kind.ALU | Kind.MOV:
                assert isinstance(row.op, AluOp)
                src = self.get(insn.src) if row.is_reg else insn.imm & U64_MAX
                dst = 0 if row.kind is Kind.MOV else self.get(insn.dst)
                self.set(insn.dst, self.alu(row.op, row.width, dst, src))
            case Kind.NEG:
                self.set(insn.dst, compute(AluOp.NEG, row.width, number(self.get(insn.dst)), 0))
            case Kind.END:
                low = number(self.get(insn.dst)) & (1 << row.width) - 1
                self.set(insn.dst, low if row.op is EndOp.LE else bswap(low, row.width))
            case Kind.MOVSX:
                wide = sext(number(self.get(insn.src)), row.sx)
                self.set(insn.dst, wide & (U32_MAX if row.width == 32 else U64_MAX))
            case Kind.CAST_KERN:
                self.get(insn.src)
                self.set(insn.dst, Pointer(self.arena, 0))
            case Kind.CAST_USER:
                self.set(insn.dst, number(self.get(insn.src)) & U32_MAX)
            case Kind.LDIMM64:
                self.wide(row.op, insn.dst, insn.imm, self.program.insns[self.pc].imm)
                self.pc += 1
            case Kind.LDX if insn.src == _PARAMS:
                if insn.off not in self.taken:
                    raise Unsafe(f"no argument lies at r11 + {insn.off}")
                self.set(insn.dst, self.taken[insn.off])
            case Kind.ST if insn.dst == _PARAMS:
                self.passed[-insn.off] = insn.imm & U64_MAX
            case Kind.STX if insn.dst == _PARAMS:
                self.passed[-insn.off] = self.get(insn.src)
            case Kind.LDX | Kind.LOAD_ACQ:
                value = self.load(self.get(insn.src), insn.off, row.size)
                if row.sx:
                    value = sext(number(value), row.sx)
                self.set(insn.dst, value)
            case Kind.ST:
                self.store(self.get(insn.dst), insn.off, row.size, insn.imm & U64_MAX)
            case Kind.STX | Kind.STORE_REL:
                self.store(self.get(insn.dst), insn.off, row.size, self.get(insn.src))
            case Kind.ATOMIC:
                assert isinstance(row.op, AtomicOp)
                self.atomic(row.op, row.fetch, row.size, insn.dst, insn.off, insn.src)
            case Kind.JA:
                self.pc += insn.imm if row.mnemonic == "ja32" else insn.off
            case Kind.JCOND:
                assert isinstance(row.op, JmpOp)
                src = self.get(insn.src) if row.is_reg else insn.imm & U64_MAX
                if compare(row.op, row.width, number(self.get(insn.dst)), number(src)):
                    self.pc += insn.off
            case Kind.MAY_GOTO:
                self.may_goto -= 1
                if self.may_goto < 0:
                    self.pc += insn.off
            case Kind.CALL:
                self.call(row.op, insn.imm)
            case Kind.EXIT:
                return self.leave()
            case _:
                raise Unsafe(f"{row.mnemonic} is not for verified programs")
        return True

    def wide(self, kind: object, dst: int, low: int, high: int) -> None:
        if kind is LdKind.MAP_IDX:
            self.set(dst, Pointer(self.maps[low], 0))
        elif kind is LdKind.MAP_IDX_VALUE and self.values[low].size:
            self.set(dst, Pointer(self.values[low], high))
        else:
            self.set(dst, low & U32_MAX | (high & U32_MAX) << 32)

    def atomic(self, op: AtomicOp, fetch: bool, size: int, base: int, off: int, src: int) -> None:
        where, operand = self.get(base), self.get(src)
        loaded = self.load(where, off, size)
        old = number(loaded)
        if op is AtomicOp.CMPXCHG:
            ones = (1 << 8 * size) - 1
            if number(self.get(0)) & ones == old:
                self.store(where, off, size, operand)
            self.set(0, loaded)
            return
        same = {AtomicOp.ADD: AluOp.ADD, AtomicOp.OR: AluOp.OR, AtomicOp.AND: AluOp.AND}
        new = operand if op is AtomicOp.XCHG else number(operand)
        if op is not AtomicOp.XCHG:
            new = compute(same.get(op, AluOp.XOR), 8 * size, old, number(operand))
        self.store(where, off, size, new)
        if fetch:
            self.set(src, loaded)

    def call(self, kind: object, imm: int) -> None:
        if kind is CallKind.LOCAL:
            self.enter(self.pc)
            self.pc += imm
            return
        result: Value = self.some()
        if kind is CallKind.HELPER:
            result = self.helper(imm, result)
        self.regs[1:6] = [None] * 5
        self.passed = {}
        self.set(0, result)

    def helper(self, helper_id: int, result: Value) -> Value:
        if helper_id in (1, 2, 3):
            found = self.get(1)
            if not isinstance(found, Pointer) or found.thing not in self.maps:
                raise Unsafe("a map helper is given no map")
            index = self.maps.index(found.thing)
            defn = self.program.maps[index]
            self.touch(self.get(2), defn.key_size)
            if helper_id == 2:
                self.touch(self.get(3), defn.value_size)
                self.get(4)
            if helper_id == 1:
                key = number(self.load(self.get(2), 0, 4))
                is_array = defn.map_type == MapType.ARRAY
                is_there = key < defn.max_entries if is_array else self.rng.random() < 0.5
                return Pointer(self.values[index], 0) if is_there else 0
        if helper_id == 6:
            size = self.get(2)
            if isinstance(size, Pointer):
                raise Unsafe("a size is a pointer")
            self.touch(self.get(1), size)
        if helper_id == 7:
            return number(result) & U32_MAX
        return number(result)

    def leave(self) -> bool:
        frame = self.frames.pop()
        result = self.regs[0]
        self.regs, self.taken, self.passed = frame.regs, frame.taken, {}
        if not self.frames:
            if result is None:
                raise Unsafe("r0 was never set")
            return False
        self.regs[0:6] = [result, None, None, None, None, None]
        self.pc = frame.back
        return True


def run(program: Program, seed: int) -> set[int]:
    """Run *program* on an input made from *seed*; return the slots that were executed.

    Raises:
        Unsafe: it did something that must not happen.
    """
    model = _Model(program, random.Random(seed))
    seen: set[int] = set()
    for _ in range(_STEPS):
        slot = model.pc
        seen.add(slot)
        try:
            if not model.step():
                return seen
        except Unsafe as e:
            raise Unsafe(f"insn {slot}: {e}") from None
    return seen


def knows(program: Program) -> bool:
    """Say whether the model has the type and all helpers of *program*; of kfuncs it has those of
    arenas."""
    return program.prog_type in _CTX_SIZES and all(
        row.op is CallKind.LOCAL
        or (row.op is CallKind.HELPER and insn.imm in _HELPERS)
        or (row.op is CallKind.KFUNC and program.kfuncs[insn.imm].startswith("bpf_arena_"))
        for insn in program.insns
        if (row := lookup(insn)) is not None and row.kind is Kind.CALL
    )
