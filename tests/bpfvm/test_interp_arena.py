"""Arena semantics: internal accesses of verified programs, and the sandbox's kernel view."""

from __future__ import annotations

from typing import Any

import pytest
from interp_kit import PAGE, U64, Bench, FakeArena, lddw, op

from bpfvm import isa
from bpfvm.errors import InternalError, RunFault
from bpfvm.isa import AtomicOp, Kind
from bpfvm.runtime import Fault

ROWS = [r for r in isa.TABLE if r.arena]
#: Pages 1 and 2 are there, page 3 only as user space left it, all others are absent.
PRESENT, ABSENT = PAGE, 8 * PAGE


@pytest.fixture
def arena() -> FakeArena:
    arena = FakeArena()
    arena.add_page(1)
    arena.add_page(2)
    arena.touched.add(3)
    return arena


@pytest.fixture
def bench(arena: FakeArena) -> Bench:
    return Bench(arena=arena)


def reported(bench: Bench) -> list[Fault]:
    assert bench.last is not None
    return bench.last.faults


def test_loads_and_stores_go_to_the_band(bench: Bench, arena: FakeArena) -> None:
    arena.band[PRESENT : PRESENT + 8] = bytes.fromhex("88776655443322f1")
    high = 0x1234_0000_0000  # bits 63..32 of the register do not count
    for name, expected in (
        ("ldxb", 0x88),
        ("ldxh", 0x7788),
        ("ldxw", 0x55667788),
        ("ldxdw", 0xF122334455667788),
        ("ldxsb", 0xFFFFFFFFFFFFFF88),
        ("ldxsw", 0x55667788),
        ("load_acquire64", 0xF122334455667788),
    ):
        assert bench.run_verified(op(f"arena_{name}", 0, 1), r1=high + PRESENT) == expected
    bench.run_verified(op("arena_stdw", 1, off=16, imm=-2), r1=PRESENT)
    assert bytes(arena.band[PRESENT + 16 : PRESENT + 24]) == b"\xfe" + b"\xff" * 7
    bench.run_verified(op("arena_store_release16", 1, 2, off=-2), r1=PRESENT + 34, r2=0x54321)
    assert bytes(arena.band[PRESENT + 32 : PRESENT + 35]) == b"\x21\x43\x00"
    assert reported(bench) == []


def test_atomics_change_the_band(bench: Bench, arena: FakeArena) -> None:
    arena.band[PRESENT] = 40
    got = bench.run_verified(
        op("arena_lock_fetch_add32", 1, 2), op("mov_reg", 0, 2), r1=PRESENT, r2=2
    )
    assert (got, arena.band[PRESENT]) == (40, 42)
    got = bench.run_verified(
        op("mov_imm", 0, imm=42), op("arena_lock_cmpxchg", 1, 2), r1=PRESENT, r2=7
    )
    assert (got, arena.band[PRESENT]) == (42, 7)


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r.mnemonic)
@pytest.mark.parametrize("clear", [True, False])
def test_an_absent_page(bench: Bench, arena: FakeArena, row: isa.InsnDef, clear: bool) -> None:
    before = bytes(arena.band[: 16 * PAGE])
    is_load = row.kind in (Kind.LDX, Kind.LOAD_ACQ)
    base = ABSENT + 4
    insn = op(row.mnemonic, 3, 1, off=-4) if is_load else op(row.mnemonic, 1, 3, off=-4)
    poison = (lddw(0, 0xAAAA_BBBB_CCCC), lddw(3, 0x1111_2222_3333))
    run: dict[str, Any] = {"r1": base, "clear_on_fault": clear}
    r0 = bench.run_verified(*poison, insn, **run)
    r3 = bench.run_verified(*poison, insn, op("mov_reg", 0, 3), **run)
    cleared = row.kind is Kind.LDX or (clear and (row.fetch or row.kind is Kind.LOAD_ACQ))
    if row.op is AtomicOp.CMPXCHG:
        assert r3 == 0x1111_2222_3333
        assert r0 == (0 if cleared else 0xAAAA_BBBB_CCCC)
    else:
        assert r0 == 0xAAAA_BBBB_CCCC
        assert r3 == (0 if cleared else 0x1111_2222_3333)
    assert bytes(arena.band[: 16 * PAGE]) == before
    assert reported(bench) == [Fault(4, arena.user_vm_start + ABSENT, not is_load)]


def test_the_report(bench: Bench) -> None:
    bench.run_verified(op("arena_ldxw", 1, 1, off=4), r1=ABSENT)
    assert bench.last is not None
    text = bench.last.stderr.data.decode()
    assert text.startswith("ERROR: Arena READ access at unmapped address 0x7f0000008004\nCPU: 0 ")
    assert text.endswith("Call trace:\nmain+0x0/0x10\n\n")
    bench.run_verified(op("arena_stb", 1), r1=ABSENT)
    assert b"ERROR: Arena WRITE access" in bench.last.stderr.data


def test_an_access_is_absent_where_any_of_its_pages_is(bench: Bench, arena: FakeArena) -> None:
    edge = 3 * PAGE  # page 2 by the byte map, page 3 by is_present: all there
    bench.run_verified(op("arena_stdw", 1, imm=-1), r1=edge - 4)
    assert bytes(arena.band[edge - 4 : edge + 4]) == b"\xff" * 8
    arena.add_page(6)
    for edge in (PAGE, 4 * PAGE, 7 * PAGE):
        before = bytes(arena.band[edge - 8 : edge + 8])
        bench.run_verified(op("arena_stdw", 1, imm=5), r1=edge - 4)
        assert bytes(arena.band[edge - 8 : edge + 8]) == before
        assert bench.run_verified(op("arena_ldxdw", 0, 1), r1=edge - 1) == 0
        assert len(reported(bench)) == 1


@pytest.mark.parametrize(
    ("reg", "off"),
    [(0, -1), (0, -32768), (0xFFFFFFFF, 1), (0xFFFFFFFF, 32767), (0xFFFFFFFC, 0), (8, -9)],
)
def test_the_guards_are_absent_and_nothing_wraps(
    bench: Bench, arena: FakeArena, reg: int, off: int
) -> None:
    arena.add_page(0)
    arena.band[:16] = b"\xee" * 16
    assert bench.run_verified(op("arena_ldxdw", 0, 1, off=off), r1=reg) == 0
    assert reported(bench) == [Fault(0, arena.user_vm_start + reg + off, False)]


def test_user_casts(bench: Bench, arena: FakeArena) -> None:
    cast = op("cast_user", 0, 1)
    high = arena.user_vm_start
    for run in (bench.run_verified, bench.run):
        assert run(cast, r1=0x1000) == high + 0x1000
        assert run(cast, r1=0xDEAD_0000_1000) == high + 0x1000
        assert run(cast, r1=0) == 0
        assert run(cast, r1=0xDEAD_0000_0000) == 0  # the low 32 bits decide
    low = FakeArena(user_vm_start=0x7F00_FFFF_E000)
    assert Bench(arena=low).run(cast, r1=0xFFFF_F000) == 0x7F00_FFFF_F000


def test_a_kernel_cast_of_a_verified_program_must_have_been_rewritten(bench: Bench) -> None:
    with pytest.raises(InternalError, match="did not rewrite this cast"):
        bench.run_verified(op("cast_kern", 0, 1))


def test_an_arena_access_without_an_arena_is_a_bug() -> None:
    with pytest.raises(InternalError, match="arena access without an arena"):
        Bench().run_verified(op("arena_ldxw", 0, 1))


# -- sandbox -----------------------------------------------------------------------------------


def test_sandbox_casts_to_real_addresses(bench: Bench, arena: FakeArena) -> None:
    assert bench.run(op("cast_kern", 0, 1), r1=0x7F0000001008) == arena.kern_vm_start + 0x1008
    arena.band[PRESENT + 8] = 99
    got = bench.run(op("cast_kern", 1, 1), op("ldxb", 0, 1, off=8), r1=0x7F0000001000)
    assert got == 99


def test_sandbox_accesses_of_the_kernel_view_follow_the_arena(
    bench: Bench, arena: FakeArena
) -> None:
    base = arena.kern_vm_start
    program = (op("mov_imm", 0, imm=7), op("ldxdw", 0, 1, off=-8))
    assert bench.run(*program, r1=base + ABSENT + 8) == 0
    assert reported(bench) == [Fault(1, arena.user_vm_start + ABSENT, False)]
    assert bench.run(op("lock_fetch_add", 1, 2), op("mov_reg", 0, 2), r1=base, r2=5) == 0
    assert reported(bench) == [Fault(0, arena.user_vm_start, True)]
    bench.run(op("stxdw", 1, 2), r1=base + 2 * PAGE - 4, r2=U64 - 1)
    assert bytes(arena.band[2 * PAGE - 4 : 2 * PAGE + 4]) == b"\xff" * 8


@pytest.mark.parametrize("offset", [-32768, -1, 1 << 32, (1 << 32) + 32767])
def test_sandbox_guards_are_absent_pages(bench: Bench, arena: FakeArena, offset: int) -> None:
    assert bench.run(op("ldxdw", 0, 1), r1=arena.kern_vm_start + offset) == 0
    assert reported(bench) == [Fault(0, arena.user_vm_start + offset, False)]


@pytest.mark.parametrize("offset", [-32769, (1 << 32) + 32768])
def test_beyond_the_guards_the_sandbox_refuses(bench: Bench, arena: FakeArena, offset: int) -> None:
    with pytest.raises(RunFault, match="invalid read of 1 bytes"):
        bench.run(op("ldxb", 0, 1), r1=arena.kern_vm_start + offset)


def test_user_view_addresses_are_refused_in_the_sandbox(bench: Bench, arena: FakeArena) -> None:
    with pytest.raises(RunFault, match="invalid write of 4 bytes at 0x7f0000001000"):
        bench.run(op("stw", 1), r1=arena.user_vm_start + PRESENT)


def test_a_verified_program_does_not_reach_the_band_by_plain_accesses(
    bench: Bench, arena: FakeArena
) -> None:
    with pytest.raises(InternalError, match="invalid read of 1 bytes"):
        bench.run_verified(op("ldxb", 0, 1), r1=arena.kern_vm_start + PRESENT)
