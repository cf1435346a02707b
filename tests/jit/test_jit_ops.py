"""Every operation against the interpreter, on many operands, verified and in the sandbox."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bpfvm import isa
from bpfvm.insn import Insn
from bpfvm.isa import Kind

if TYPE_CHECKING:
    from conftest import Rig

U64 = 1 << 64
EDGES = [0, 1, 2, 7, 31, 32, 33, 63, 64, 65, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1]
EDGES += [2**63, U64 - 2**31, U64 - 8, U64 - 2, U64 - 1, 0x1122334455667788]
IMMS = [0, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 255, 2**31 - 1, -1, -2, -7, -64, -(2**31)]
_RANDOM = random.Random(7)
VALUES = EDGES + [_RANDOM.getrandbits(64) for _ in range(6)]

Op = Callable[..., Insn]
both_modes = pytest.mark.parametrize("verified", [False, True], ids=["sandbox", "verified"])


def rows(*kinds: Kind, is_reg: bool | None = None) -> list[isa.InsnDef]:
    return [
        row
        for row in isa.TABLE
        if row.kind in kinds and not row.arena and is_reg in (None, row.is_reg)
    ]


def named(row: isa.InsnDef) -> str:
    return row.mnemonic


@both_modes
@pytest.mark.parametrize("row", rows(Kind.ALU, Kind.MOV, Kind.MOVSX, is_reg=True), ids=named)
def test_register_operands(rig: Rig, op: Op, row: isa.InsnDef, verified: bool) -> None:
    run = rig.pair([op("mov_reg", 0, 1), op(row.mnemonic, 0, 2), op("exit")], verified=verified)
    results = {run(x, y).r0 for x in VALUES for y in VALUES}
    assert len(results) > 10


@both_modes
@pytest.mark.parametrize("row", rows(Kind.ALU, Kind.MOV, is_reg=False), ids=named)
def test_immediate_operands(rig: Rig, op: Op, row: isa.InsnDef, verified: bool) -> None:
    insns = []
    for i, imm in enumerate(IMMS):
        insns += [
            op("mov_reg", 0, 1),
            op(row.mnemonic, 0, imm=imm),
            op("stxdw", 2, 0, off=8 * i),
        ]
    run = rig.pair([*insns, op("exit")], verified=verified)
    for x in VALUES:
        assert run(x, rig.memory.base).error == ""


@both_modes
@pytest.mark.parametrize("row", rows(Kind.NEG, Kind.END), ids=named)
def test_unary(rig: Rig, op: Op, row: isa.InsnDef, verified: bool) -> None:
    run = rig.pair([op("mov_reg", 0, 1), op(row.mnemonic, 0), op("exit")], verified=verified)
    assert len({run(x).r0 for x in VALUES}) > 3


@both_modes
@pytest.mark.parametrize("row", rows(Kind.JCOND, is_reg=True), ids=named)
def test_register_conditions(rig: Rig, op: Op, row: isa.InsnDef, verified: bool) -> None:
    insns = [
        op("mov_imm", 0, imm=1),
        op(row.mnemonic, 1, 2, off=1),
        op("mov_imm", 0, imm=0),
        op("exit"),
    ]
    run = rig.pair(insns, verified=verified)
    assert {run(x, y).r0 for x in VALUES for y in VALUES} == {0, 1}


@both_modes
@pytest.mark.parametrize("row", rows(Kind.JCOND, is_reg=False), ids=named)
def test_immediate_conditions(rig: Rig, op: Op, row: isa.InsnDef, verified: bool) -> None:
    insns = [op("mov_imm", 0)]
    for imm in IMMS:
        insns += [op("lsh_imm", 0, imm=1), op(row.mnemonic, 1, off=1, imm=imm)]
        insns += [op("or_imm", 0, imm=1)]
    run = rig.pair([*insns, op("exit")], verified=verified)
    assert len({run(x).r0 for x in [*VALUES, *(i % U64 for i in IMMS)]}) > 3


@both_modes
@pytest.mark.parametrize("row", rows(Kind.LDX, Kind.LOAD_ACQ), ids=named)
@pytest.mark.parametrize("base", [3, 10], ids=["memory", "stack"])
def test_loads(rig: Rig, op: Op, row: isa.InsnDef, verified: bool, base: int) -> None:
    insns = [op("mov_reg", 3, 2), op("stxdw", base, 1, off=-16), op("stdw", base, off=-8, imm=-2)]
    for i, off in enumerate((-16, -15, -14, -13, -12, -9, -8)):
        insns += [op(row.mnemonic, 0, base, off=off), op("stxdw", 2, 0, off=8 * i)]
    run = rig.pair([*insns, op("exit")], verified=verified)
    for x in VALUES:
        assert run(x, rig.memory.base + 32).error == ""


@both_modes
@pytest.mark.parametrize("row", rows(Kind.ST, Kind.STX, Kind.STORE_REL), ids=named)
@pytest.mark.parametrize("base", [2, 10], ids=["memory", "stack"])
def test_stores(rig: Rig, op: Op, row: isa.InsnDef, verified: bool, base: int) -> None:
    insns = [op("stdw", base, off=-16, imm=-1), op("stdw", base, off=-8, imm=0x1234567)]
    for off in (-16, -13, -9, -8):
        if row.kind is Kind.ST:
            insns += [op(row.mnemonic, base, off=off, imm=i) for i in (-(2**31), 0x70605040)]
        else:
            insns.append(op(row.mnemonic, base, 1, off=off))
        insns += [op("ldxdw", 3, base, off=-16), op("add_reg", 0, 3)]
        insns += [op("ldxdw", 3, base, off=-8), op("mul_imm", 0, imm=31), op("add_reg", 0, 3)]
    run = rig.pair([*insns, op("exit")], verified=verified)
    for x in VALUES:
        assert run(x, rig.memory.base + 32).error == ""


@both_modes
@pytest.mark.parametrize("row", rows(Kind.ATOMIC), ids=named)
@pytest.mark.parametrize("base", [6, 10], ids=["memory", "stack"])
def test_atomics(rig: Rig, op: Op, row: isa.InsnDef, verified: bool, base: int) -> None:
    insns = [
        op("mov_reg", 6, 2),
        op("ldxdw", 0, 6, off=16),  # what a cmpxchg expects
        op("stxdw", base, 0, off=-8),
        op("ldxdw", 4, 6, off=24),
        op("xor_reg", 0, 4),
        op(row.mnemonic, base, 1, off=-8),
        op("stxdw", 6, 0, off=32),
        op("stxdw", 6, 1, off=40),
        op("ldxdw", 0, base, off=-8),
        op("exit"),
    ]
    run = rig.pair(insns, verified=verified)
    for old in VALUES[::3]:
        for differs in (0, 1, 1 << 32):
            for x in VALUES[::2]:
                at = rig.memory.view[32 + 16 : 32 + 32]
                at[:] = old.to_bytes(8, "little") + differs.to_bytes(8, "little")
                assert run(x, rig.memory.base + 32).error == ""


@both_modes
def test_atomics_at_any_address(rig: Rig, op: Op, verified: bool) -> None:
    for name in ("lock_fetch_add", "lock_fetch_xor", "lock_xchg32", "lock_cmpxchg"):
        run = rig.pair(
            [op("mov_imm", 0, imm=5), op(name, 2, 1), op("mov_reg", 0, 1), op("exit")],
            verified=verified,
        )
        for shift in range(8):
            rig.memory.view[:] = bytes(range(256))
            assert run(0x1122334455667788, rig.memory.base + shift).error == ""


@both_modes
def test_long_jumps_and_loops(rig: Rig, op: Op, verified: bool) -> None:
    insns = [
        op("mov_imm", 0),
        op("jeq_imm", 1, off=3),
        op("add_reg", 0, 1),
        op("sub_imm", 1, imm=1),
        op("ja32", imm=-4),
        op("ja", off=0),
        op("exit"),
    ]
    run = rig.pair(insns, verified=verified)
    assert run(1000).r0 == 500500


@both_modes
def test_ldimm64(rig: Rig, op: Op, lddw: Callable[..., list[Insn]], verified: bool) -> None:
    for value in VALUES:
        run = rig.pair([*lddw(0, value), op("exit")], verified=verified)
        assert run().r0 == value
