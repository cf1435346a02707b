"""Random programs in both engines: in the sandbox anything goes, verified ones touch the stack by
fixed offsets and the arena anywhere."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bpfvm import isa
from bpfvm.insn import Insn
from bpfvm.isa import Kind
from jit.engine import Jit
from jit.llvm import Pipeline

if TYPE_CHECKING:
    from conftest import RealArena, Rig

Op = Callable[..., Insn]
PAGE = 4096
LEAVES = (Kind.ALU, Kind.NEG, Kind.END, Kind.MOV, Kind.MOVSX)
MEMORY = (Kind.LDX, Kind.ST, Kind.STX, Kind.ATOMIC, Kind.LOAD_ACQ, Kind.STORE_REL)
LOADS = (Kind.LDX, Kind.LOAD_ACQ)
IMMS = [0, 1, -1, 2, 7, 8, 31, 32, 63, 255, 2**31 - 1, -(2**31)]


class Maker:
    """Makes insns: r6 memory, r7 arena, r8 and r9 left alone, the rest scratch."""

    def __init__(self, seed: int, op: Op) -> None:
        self.rng, self.op = random.Random(seed), op
        self.leaves = [r for r in isa.TABLE if r.kind in LEAVES]
        self.jumps = [r for r in isa.TABLE if r.kind is Kind.JCOND]
        self.plain = [r for r in isa.TABLE if r.kind in MEMORY and not r.arena]
        self.arena = [r for r in isa.TABLE if r.kind in MEMORY and r.arena]

    def scratch(self) -> int:
        return self.rng.randrange(6)

    def imm(self) -> int:
        return self.rng.choice([*IMMS, self.rng.randrange(-(2**31), 2**31)])

    def leaf(self) -> Insn:
        row = self.rng.choice(self.leaves)
        src = self.scratch() if row.is_reg else 0
        imm = self.imm() if "imm" in row.form.fields else 0
        return self.op(row.mnemonic, self.scratch(), src, imm=imm)

    def access(self, rows: list[isa.InsnDef], base: int, off: int) -> Insn:
        row = self.rng.choice(rows)
        if row.kind in LOADS:
            return self.op(row.mnemonic, self.scratch(), base, off=off)
        if row.kind is Kind.ST:
            return self.op(row.mnemonic, base, off=off, imm=self.imm())
        return self.op(row.mnemonic, base, self.scratch(), off=off)

    def jump(self, room: int) -> Insn:
        row = self.rng.choice(self.jumps)
        src = self.scratch() if row.is_reg else 0
        imm = 0 if row.is_reg else self.imm()
        return self.op(row.mnemonic, self.scratch(), src, off=self.rng.randrange(room), imm=imm)

    def stack_off(self) -> int:
        return -8 * self.rng.randrange(1, 6)

    def one(self, *, sandbox: bool, room: int) -> Insn:
        rng = self.rng
        kind = rng.randrange(10)
        if kind < 4:
            return self.leaf()
        if kind < 6:
            return self.jump(room)
        if kind == 6:
            return self.access(self.plain, 10, self.stack_off())
        if kind == 7:
            return self.access(self.plain, 6, rng.randrange(0, 200))
        off = rng.choice([0, 1, -1, PAGE - 4, PAGE, 2 * PAGE - 8, rng.randrange(-99, 9000)])
        return self.access(self.plain if sandbox else self.arena, 7, off)

    def body(self, size: int, *, sandbox: bool) -> list[Insn]:
        out = [self.one(sandbox=sandbox, room=max(1, min(9, size - i))) for i in range(size)]
        for reg in range(1, 6):
            out += [self.op("mul_imm", 0, imm=31), self.op("add_reg", 0, reg)]
        return [*out, self.op("exit")]


@pytest.mark.parametrize("seed", range(40))
def test_random_sandbox(arena_rig: Rig, arena: RealArena, op: Op, seed: int) -> None:
    make = Maker(seed, op)
    rng = make.rng
    arena.add_page(1, 3)
    insns = [op("mov_reg", 6, 1), op("mov_reg", 7, 2), op("mov_imm", 9, imm=3)]
    insns += make.body(rng.randrange(5, 60), sandbox=True)
    at = rng.randrange(3, len(insns) - 12)
    # A loop, a call and a may_goto somewhere.
    insns[at : at + 1] = [op("jeq_imm", 9, off=2), op("sub_imm", 9, imm=1), op("ja", off=-3)]
    insns.insert(-1, op("call_local", imm=1))
    callee = make.body(rng.randrange(5, 30), sandbox=True)
    # There r6 is the caller's frame, r7 page 0 of the arena.
    run = arena_rig.pair([*insns, op("mov_reg", 6, 10), op("cast_kern", 7, 7), *callee])
    memory, kern = arena_rig.memory.base, arena.kern_vm_start
    for r1, r2 in ((memory, kern + PAGE), (memory + 200, kern), (memory, kern + 2**32 - 5)):
        run(r1, r2, may_goto_limit=4)
        run(r1, r2, may_goto_limit=1, budget=rng.randrange(100), clear_on_fault=False)


@pytest.mark.parametrize("seed", range(40))
def test_random_verified(arena_rig: Rig, arena: RealArena, op: Op, seed: int) -> None:
    make = Maker(1000 + seed, op)
    rng = make.rng
    arena.add_page(1, 3)
    arena_rig.careful_jit = Jit(rng.choice(list(Pipeline)))
    insns = [op("mov_reg", 6, 1), op("mov_reg", 7, 2)]
    insns += [op("mov_imm", reg, imm=make.imm()) for reg in range(6)]
    if seed % 2:
        insns.append(op("mov_reg", 8, 10))  # the stack's address is known elsewhere
    insns += make.body(rng.randrange(5, 80), sandbox=False)
    run = arena_rig.pair(insns, verified=True)
    for r2 in (PAGE, 0, 2 * PAGE, 2**32 - 7):
        run(arena_rig.memory.base, r2 | rng.getrandbits(32) << 32)
