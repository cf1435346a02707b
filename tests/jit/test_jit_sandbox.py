"""The sandbox: both engines refuse the same access at the same pc, for the same reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from bpfvm.errors import LoadError
from bpfvm.insn import Insn
from bpfvm.memory import RegionKind
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES

if TYPE_CHECKING:
    from conftest import Rig

Op = Callable[..., Insn]
MEM_OPS = ["ldxb", "ldxw", "ldxdw", "ldxsh", "load_acquire64", "stb", "stxdw", "store_release32"]
MEM_OPS += ["lock_add", "lock_fetch_or32", "lock_cmpxchg"]


def access(op: Op, name: str, off: int = 0) -> Insn:
    loads = name.startswith(("ldx", "load"))
    return op(name, 0 if loads else 1, 1 if loads else 2 * (not name.startswith("stb")), off=off)


@pytest.mark.parametrize("name", MEM_OPS)
def test_bounds_of_a_region(rig: Rig, op: Op, name: str) -> None:
    run = rig.pair([op("mov_reg", 1, 1), access(op, name), op("exit")])
    base, end = rig.memory.base, rig.memory.base + rig.memory.size
    outcomes = [run(at).error for at in range(base - 9, base + 2)]
    outcomes += [run(at).error for at in range(end - 9, end + 9)]
    assert outcomes.count("") >= 2
    assert sum("pc 1: invalid" in o for o in outcomes) >= 10


@pytest.mark.parametrize("off", [-32768, -8, 8, 32767])
@pytest.mark.parametrize("name", MEM_OPS)
def test_wild_addresses(rig: Rig, op: Op, name: str, off: int) -> None:
    run = rig.pair([access(op, name, off), op("exit")])
    for at in (0, 1, 4096, 2**31, 2**32 - 1, 2**47, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1):
        assert run(at).error.startswith("RunFault: pc 0: invalid ")


@pytest.mark.parametrize("name", MEM_OPS)
def test_offset_takes_the_address_back_inside(rig: Rig, op: Op, name: str) -> None:
    for off in (-32768, 32767, -1):
        run = rig.pair([access(op, name, off), op("exit")])
        assert run((rig.memory.base + 64 - off) % 2**64).error == ""


@pytest.mark.parametrize("name", MEM_OPS)
def test_elements_with_padding_and_read_only_regions(
    make_rig: type[Rig], op: Op, name: str
) -> None:
    rig = make_rig()
    # Many regions, so that the table is searched and not just remembered.
    others = [rig.space.add(16 * (i + 1), RegionKind.MAP_VALUE) for i in range(9)]
    values = rig.space.add(64, RegionKind.MAP_VALUE, stride=16, elem_size=12)
    fixed = rig.space.add(32, RegionKind.MEM, writable=False)
    rig.watched += [*others, values, fixed]
    run = rig.pair([access(op, name), op("exit")])
    for region in (values, fixed, *others):
        seen = {run(at).error for at in range(region.base - 2, region.base + region.size + 2)}
        assert len(seen) > 1
    is_write = run(fixed.base).error != ""
    assert is_write == (name not in MEM_OPS[:5])
    # One program, several regions in turn: the remembered region must not leak into the next.
    pattern = [op("ldxdw", 0, 1), op("ldxdw", 3, 2), op("add_reg", 0, 3), op("ldxdw", 3, 1)]
    both = rig.pair([*pattern, op("exit")])
    assert both(values.base, fixed.base).error == ""
    assert both(values.base, fixed.base + 32).error.startswith("RunFault: pc 1:")
    assert both(values.base + 8, fixed.base).error.startswith("RunFault: pc 0:")


def test_stack_frames(rig: Rig, op: Op) -> None:
    # The callee's frame is zeroed, lies below the caller's, and the caller's memory is reachable.
    insns = [
        op("stdw", 10, off=-8, imm=7),
        op("mov_reg", 1, 10),
        op("call_local", imm=4),
        op("mov_reg", 6, 0),
        op("call_local", imm=2),
        op("add_reg", 0, 6),
        op("exit"),
        op("ldxdw", 0, 1, off=-8),
        op("ldxdw", 2, 10, off=-8),
        op("add_reg", 0, 2),
        op("stdw", 10, off=-8, imm=100),
        op("sub_reg", 1, 10),
        op("add_reg", 0, 1),
        op("exit"),
    ]
    # The second call passes r1 = 0, which reads nothing any more.
    assert rig.pair(insns)().error.startswith("RunFault: pc 7: invalid read of 8 bytes at ")
    insns[3:5] = [op("mov_reg", 1, 10), op("call_local", imm=2)]
    assert rig.pair(insns)().r0 == 7 + FRAME_SIZE


def test_registers_over_calls(rig: Rig, op: Op) -> None:
    insns = [op("mov_imm", r, imm=r) for r in range(10)]
    insns += [op("call_local", imm=10)]
    insns += [op("lsh_imm", 0, imm=4)]
    for r in range(1, 10):
        insns += [op("mul_imm", 0, imm=3), op("add_reg", 0, r)]
    # the callee sees r1..r5, and r6..r9 and r0 as it pleases the engines alike: zero
    body = [op("exit")]
    insns[10] = op("call_local", imm=len(insns) - 11 + 1)
    insns += body
    callee = [op("mov_imm", 0)]
    for r in range(1, 10):
        callee += [op("mul_imm", 0, imm=5), op("add_reg", 0, r), op("mov_imm", r, imm=99)]
    assert rig.pair([*insns, *callee, op("exit")])().error == ""


def test_recursion_is_bounded(rig: Rig, op: Op) -> None:
    insns = [op("add_imm", 1, imm=1), op("call_local", imm=-2), op("exit")]
    got = rig.pair(insns)()
    assert got.error == f"RunFault: pc 1: call stack deeper than {MAX_FRAMES} frames"
    countdown = [
        op("mov_imm", 0),
        op("jeq_imm", 1, off=3),
        op("sub_imm", 1, imm=1),
        op("call_local", imm=-4),
        op("add_imm", 0, imm=1),
        op("exit"),
    ]
    run = rig.pair(countdown)
    assert run(MAX_FRAMES - 1).r0 == MAX_FRAMES - 1
    assert run(MAX_FRAMES).error.startswith("RunFault: pc 3: call stack deeper")


def test_subprogs_that_share_code(rig: Rig, op: Op) -> None:
    # main jumps into the callee's body, the callee falls into a third one
    insns = [
        op("jeq_imm", 1, off=2, imm=5),
        op("call_local", imm=1),
        op("exit"),
        op("add_imm", 1, imm=10),
        op("mov_reg", 0, 1),
        op("jgt_imm", 0, off=1, imm=100),
        op("call_local", imm=0),
        op("add_imm", 1, imm=1000),
        op("add_reg", 0, 1),
        op("exit"),
    ]
    run = rig.pair(insns)
    for r1 in (0, 5, 95, 96, 1000):
        assert run(r1).error == ""


@pytest.mark.parametrize("budget", [*range(12), 17, 100])
def test_budget_is_charged_per_block(rig: Rig, op: Op, budget: int) -> None:
    insns = [
        op("mov_imm", 0),
        op("mov_imm", 6, imm=3),
        op("add_imm", 0, imm=1),
        op("stxdw", 1, 0),
        op("call_local", imm=3),
        op("sub_imm", 6, imm=1),
        op("jne_imm", 6, off=-5),
        op("exit"),
        op("mov_imm", 0, imm=1),
        op("exit"),
    ]
    run = rig.pair(insns)
    got = run(rig.memory.base, budget=budget)
    assert ("budget of insns exceeded" in got.error) == (budget < 17)
    assert run(rig.memory.base, budget=None).budget is None


def test_budget_of_many_slices(rig: Rig, op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jit.calls.BUDGET_SLICE", 7)
    insns = [op("add_imm", 0, imm=1), *[op("xor_imm", 3, imm=1)] * 9, op("jlt_imm", 0, off=-11)]
    insns[-1] = op("jlt_reg", 0, 1, off=-11)
    run = rig.pair([*insns, op("exit")])
    assert run(50, budget=551).budget == 0
    assert run(50, budget=560).budget == 9
    assert run(50, budget=550).error == "RunFault: pc 11: budget of insns exceeded"
    assert run(50, budget=549).error == "RunFault: pc 0: budget of insns exceeded"


def test_calls_that_go_nowhere(rig: Rig, op: Op) -> None:
    assert rig.pair([op("call_helper", imm=77), op("exit")])().error == (
        "RunFault: pc 0: unknown helper 77"
    )
    assert rig.pair([op("callx", 1), op("exit")])(2**64 - 1).error == (
        f"RunFault: pc 0: unknown helper {2**64 - 1}"
    )
    assert "unknown kfunc" in rig.pair([op("call_kfunc", imm=3), op("exit")])().error
    assert "unknown kfunc nix" in (
        rig.pair([op("call_kfunc"), op("exit")], kfuncs=("nix",))().error
    )


def test_what_has_no_meaning_at_run_time(rig: Rig, op: Op) -> None:
    for name in ("ldabsw", "ldindb"):
        got = rig.pair([op(name), op("exit")])()
        assert got.error == "RunFault: pc 0: no packet to load from"
    for name in ("cast_kern", "cast_user"):
        got = rig.pair([op(name, 1, 1), op("exit")])()
        assert got.error == "RunFault: pc 0: addr_space_cast without an arena"


@pytest.mark.parametrize("kind", ["lddw_map_fd", "lddw_btf_id", "lddw_map_idx"])
def test_what_can_not_be_linked(
    rig: Rig, op: Op, lddw: Callable[..., list[Insn]], kind: str
) -> None:
    xlated = rig.xlated([*lddw(1, 1, kind), op("exit"), op("exit")])
    for engine in (rig.jit,):
        with pytest.raises(LoadError, match="insn 0: "):
            engine.link(xlated, rig.machine)


def test_structure_is_checked(rig: Rig, op: Op) -> None:
    for insns in ([op("mov_imm", 0)], [Insn(0xFF), op("exit")], [op("ja", off=7), op("exit")]):
        with pytest.raises(LoadError):
            rig.jit.link(rig.xlated(insns), rig.machine)
        with pytest.raises(LoadError):
            rig.jit.llvm_ir(rig.xlated(insns))
