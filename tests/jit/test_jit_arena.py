"""Arena accesses: the presence check, faults and their reports (arena.md 4.3 and 4.4)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bpfvm import isa
from bpfvm.insn import Insn
from bpfvm.isa import AtomicOp, Kind
from bpfvm.runtime import Fault

if TYPE_CHECKING:
    from conftest import RealArena, Rig

PAGE = 4096
Op = Callable[..., Insn]
ARENA_ROWS = [row for row in isa.TABLE if row.arena]
LOADS = (Kind.LDX, Kind.LOAD_ACQ)


def program(op: Op, name: str, off: int = 0) -> list[Insn]:
    """r1: address, r2: value; r0 mixes all registers that the access may have changed."""
    loads = name.removeprefix("arena_").startswith(("ldx", "load"))
    immediate = isa.Form.STORE_IMM.fields
    row = next(row for row in isa.TABLE if row.mnemonic == name)
    if loads:
        insn = op(name, 3, 1, off=off)
    elif row.form.fields == immediate:
        insn = op(name, 1, off=off, imm=-77)
    else:
        insn = op(name, 1, 2, off=off)
    return [
        op("mov_imm", 0, imm=0x55),
        op("mov_imm", 3, imm=0x66),
        insn,
        op("mul_imm", 0, imm=31),
        op("add_reg", 0, 2),
        op("mul_imm", 0, imm=31),
        op("add_reg", 0, 3),
        op("exit"),
    ]


def fill(arena: RealArena) -> None:
    arena.band[: 8 * PAGE] = bytes(i * 7 % 251 for i in range(8 * PAGE))
    arena.band[2 * PAGE + 8] = 0x55
    arena.band[2 * PAGE + 9 : 2 * PAGE + 16] = bytes(7)


@pytest.mark.parametrize("clear", [True, False], ids=["clears", "keeps"])
@pytest.mark.parametrize("row", ARENA_ROWS, ids=lambda r: r.mnemonic)
def test_present_and_absent(
    arena_rig: Rig, arena: RealArena, op: Op, row: isa.InsnDef, clear: bool
) -> None:
    arena.add_page(2, 3)
    fill(arena)
    run = arena_rig.pair(program(op, row.mnemonic), verified=True)
    high = 0xDEADBEEF00000000  # no part of the address
    for at in (2 * PAGE, 2 * PAGE + 8, 3 * PAGE - 1, 3 * PAGE - 3, 4 * PAGE - 8):
        got = run(high + at, 0x1122334455667788, clear_on_fault=clear)
        assert got.faults == ()
    before = arena_rig.arena_bytes()
    for at in (0, PAGE, 2 * PAGE - 8, 4 * PAGE, 2**32 - 8, 2**31):
        got = run(high + at, 0x1122334455667788, clear_on_fault=clear)
        assert got.arena == before
        assert [(f.insn, f.write) for f in got.faults] == [(2, row.kind not in LOADS)]
        assert b"ERROR: Arena " in got.stderr
        assert b"test+0x10/0x40" in got.stderr or b"main+0x10/0x40" in got.stderr


@pytest.mark.parametrize("row", [r for r in ARENA_ROWS if r.size > 1], ids=lambda r: r.mnemonic)
def test_one_of_two_pages_absent(
    arena_rig: Rig, arena: RealArena, op: Op, row: isa.InsnDef
) -> None:
    arena.add_page(2)
    run = arena_rig.pair(program(op, row.mnemonic, off=-3), verified=True)
    for at in (2 * PAGE - 1 + 3, 3 * PAGE - 1 + 3):
        before = arena_rig.arena_bytes()
        got = run(at, 7)
        assert len(got.faults) == 1
        assert got.arena == before


@pytest.mark.parametrize("off", [-32768, -1, 0, 1, 32767])
@pytest.mark.parametrize("name", ["ldxdw", "stxb", "stw", "lock_fetch_add", "load_acquire16"])
def test_no_offset_wraps(arena_rig: Rig, arena: RealArena, op: Op, name: str, off: int) -> None:
    arena.add_page(0, 1, (1 << 20) - 1)
    run = arena_rig.pair(program(op, f"arena_{name}", off), verified=True)
    for low in (0, 1, 7, 32767, 32768, 2**31, 2**32 - 32768, 2**32 - 9, 2**32 - 1):
        got = run(0xFFFFFFFF00000000 + low, 5)
        if not 0 <= low + off < 2**32:
            assert len(got.faults) == 1


def test_report_holds_the_full_register(arena_rig: Rig, arena: RealArena, op: Op) -> None:
    run = arena_rig.pair([op("arena_ldxw", 0, 1, off=-4), op("exit")], verified=True)
    got = run(0x1_0000_0000)
    assert got.r0 == 0
    assert got.faults == (Fault(0, arena.user_vm_start + 0xFFFFFFFC, write=False),)


def test_pages_that_only_user_space_touched(arena_rig: Rig, arena: RealArena, op: Op) -> None:
    arena.touched.add(5)
    arena.band[5 * PAGE] = 42
    run = arena_rig.pair([op("arena_ldxb", 0, 1), op("exit")], verified=True)
    assert run(5 * PAGE).r0 == 42
    assert run(5 * PAGE).faults == ()


def test_fault_in_a_subprog_names_its_callers(arena_rig: Rig, op: Op) -> None:
    insns = [
        op("mov_reg", 6, 1),
        op("call_local", imm=2),
        op("add_imm", 0, imm=1),
        op("exit"),
        op("call_local", imm=1),
        op("exit"),
        op("arena_stdw", 1, off=8, imm=1),
        op("arena_ldxdw", 0, 1),
        op("exit"),
    ]
    got = arena_rig.pair(insns, verified=True)(0x5000)
    assert got.r0 == 1
    assert len(got.faults) == 2
    trace = got.stderr.decode().split("Call trace:\n")[1]
    assert trace.startswith("subprog_6+0x0/0x18\nsubprog_4+0x0/0x10\nmain+0x8/0x20\n")


def test_casts(arena_rig: Rig, arena: RealArena, op: Op) -> None:
    user = arena_rig.pair([op("cast_user", 0, 1), op("exit")], verified=True)
    kern = arena_rig.pair([op("cast_kern", 0, 1), op("exit")])
    sandboxed = arena_rig.pair([op("cast_user", 0, 1), op("exit")])
    for value in (0, 1, 2**31, 2**32 - 1, 2**32, 0x123400000000, 0x5678DEADBEEF, 2**64 - 1):
        low = value % 2**32
        assert user(value).r0 == (arena.user_vm_start | low if low else 0)
        assert sandboxed(value).r0 == user(value).r0
        assert kern(value).r0 == arena.kern_vm_start + low


SANDBOX_NAMES = ["ldxb", "ldxdw", "ldxsw", "stxw", "stdw", "load_acquire64", "store_release8"]
SANDBOX_NAMES += ["lock_fetch_add", "lock_xchg32", "lock_cmpxchg", "lock_and"]


@pytest.mark.parametrize("name", SANDBOX_NAMES)
def test_sandbox_in_the_kernel_view(arena_rig: Rig, arena: RealArena, op: Op, name: str) -> None:
    arena.add_page(0, 2, 3)
    fill(arena)
    run = arena_rig.pair(program(op, name))
    base = arena.kern_vm_start
    for at in (0, 2 * PAGE, 3 * PAGE - 3, PAGE, PAGE - 1, 4 * PAGE - 7, 2**32 - 8, 2**32 - 1):
        assert run(base + at, 9).error == ""
    for at in (-1, -8, -32768, 2**32, 2**32 + 32767):
        got = run(base + at, 9)
        assert got.error == ""
        assert len(got.faults) == 1
    for at in (-32769, 2**32 + 32768):
        assert run(base + at, 9).error.startswith("RunFault: pc 2: invalid ")
    assert run(arena.user_vm_start + 2 * PAGE, 9).error.startswith("RunFault: pc 2: invalid ")


def test_atomics_straddle_pages(arena_rig: Rig, arena: RealArena, op: Op) -> None:
    arena.add_page(2, 3)
    fill(arena)
    for row in ARENA_ROWS:
        if row.kind is Kind.ATOMIC:
            run = arena_rig.pair(program(op, row.mnemonic), verified=True)
            got = run(3 * PAGE - row.size // 2, 3)
            assert got.faults == ()
            assert row.op in AtomicOp


@pytest.mark.parametrize("name", ["arena_ldxw", "arena_load_acquire32"])
def test_a_spinning_load_sees_another_thread(
    arena_rig: Rig, arena: RealArena, op: Op, name: str
) -> None:
    arena.add_page(0)
    xlated = arena_rig.xlated([op(name, 0, 1), op("jeq_imm", 0, off=-2), op("exit")], verified=True)
    linked = arena_rig.jit.link(xlated, arena_rig.machine)
    context = arena_rig.context(xlated)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(linked.run(context, 64)))
    thread.start()
    time.sleep(0.02)
    assert thread.is_alive()
    arena.band[64] = 9
    thread.join(10)
    assert results == [9]


def test_a_spinning_load_sees_a_page_come(arena_rig: Rig, arena: RealArena, op: Op) -> None:
    arena.band[PAGE] = 3
    xlated = arena_rig.xlated(
        [op("arena_ldxb", 0, 1), op("jeq_imm", 0, off=-2), op("exit")], verified=True
    )
    linked = arena_rig.jit.link(xlated, arena_rig.machine)
    context = arena_rig.context(xlated)
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(linked.run(context, PAGE)))
    thread.start()
    time.sleep(0.02)
    arena.add_page(1)
    thread.join(10)
    assert results == [3]
    assert context.faults
