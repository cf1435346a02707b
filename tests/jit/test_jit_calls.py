"""Calls from compiled code into Python and what goes wrong there; may_goto; runs in parallel."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from bpfvm.errors import InternalError, RunFault
from bpfvm.insn import Insn
from bpfvm.memory import RegionKind
from bpfvm.proto import ArgType, Registry, RetType, helper, kfunc
from bpfvm.runtime import RunContext
from jit.llvm import Pipeline

if TYPE_CHECKING:
    from conftest import Rig

Op = Callable[..., Insn]
FIVE = (ArgType.ANYTHING,) * 5


class Oops(Exception):
    pass


@helper(1, RetType.INTEGER, FIVE)
def mix(run: RunContext, a: int, b: int, c: int, d: int, e: int) -> int:
    return ((((a * 31 + b) * 31 + c) * 31 + d) * 31 + e) - 2**70


@helper(2, RetType.INTEGER, (ArgType.ANYTHING,))
def raises(run: RunContext, a: int) -> int:
    raise Oops(a)


@helper(3, RetType.INTEGER)
def where(run: RunContext) -> int:
    run.stderr.push(run.stack_dump(run.pc, run.callers))
    return run.pc * 100 + len(run.callers)


@helper(4, RetType.INTEGER, (ArgType.ANYTHING, ArgType.ANYTHING))
def peek(run: RunContext, addr: int, size: int) -> int:
    return int.from_bytes(run.read(addr, size), "little")


@helper(5, RetType.INTEGER)
def new_region(run: RunContext) -> int:
    return run.machine.space.add(16, RegionKind.MAP_VALUE).base


@helper(6, RetType.INTEGER, (ArgType.ANYTHING,))
def drop_region(run: RunContext, addr: int) -> int:
    space = run.machine.space
    space.remove(next(r for r in space.regions if r.base == addr))
    return 0


@helper(7, RetType.INTEGER)
def wrong_type(run: RunContext) -> int:
    return None  # type: ignore[return-value]


@helper(8, RetType.INTEGER)
def nap(run: RunContext) -> int:
    time.sleep(0.0001)
    return 0


@kfunc(RetType.INT32, (ArgType.SCALAR,), non_sleepable=lambda run, a: a + 1000)
def variants(run: RunContext, a: int) -> int:
    return a - 1


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry([sys.modules[__name__]])


@pytest.fixture(scope="module")
def rig(make_rig: type[Rig], registry: Registry) -> Rig:
    return make_rig(registry=registry)


def test_module_is_the_registry(registry: Registry) -> None:
    assert isinstance(sys.modules[__name__], ModuleType)
    assert set(registry.helpers) == set(range(1, 9))


@pytest.mark.parametrize("verified", [False, True])
def test_arguments_and_results(rig: Rig, registry: Registry, op: Op, verified: bool) -> None:
    insns = [op("mov_imm", r, imm=r * r - 7) for r in range(3, 6)]
    insns += [op("mov_imm", 6, imm=3), op("call_helper", imm=1), op("mul_reg", 0, 6), op("exit")]
    run = rig.pair(insns, verified=verified, calls={4: registry.helpers[1]})
    for x in (0, 1, 2**64 - 1):
        assert run(x, 2**63).error == ""


def test_registers_after_a_helper(rig: Rig, op: Op) -> None:
    insns = [op("mov_imm", r, imm=r + 1) for r in range(10)]
    insns += [op("call_helper", imm=1)]
    for r in range(1, 10):
        insns += [op("mul_imm", 0, imm=3), op("add_reg", 0, r)]
    assert rig.pair([*insns, op("exit")])().error == ""


def test_callx(rig: Rig, op: Op) -> None:
    run = rig.pair([op("mov_reg", 6, 1), op("callx", 6), op("exit")])
    assert run(3).r0 == 100
    assert run(2**32 + 3).error.startswith("RunFault: pc 1: unknown helper")


def test_kfunc_variants(rig: Rig, op: Op) -> None:
    insns = [op("call_kfunc", imm=0), op("exit")]
    assert rig.pair(insns, kfuncs=("variants",), sleepable=True)(0).r0 == 2**32 - 1
    assert rig.pair(insns, kfuncs=("variants",))(0).r0 == 1000


def test_a_helper_knows_where_it_is_called(rig: Rig, op: Op) -> None:
    insns = [op("call_local", imm=1), op("exit"), op("call_helper", imm=3), op("exit")]
    got = rig.pair(insns)()
    assert got.r0 == 201
    assert b"subprog_2+0x0/0x10\nmain+0x0/0x10" in got.stderr


@pytest.mark.parametrize("verified", [False, True])
def test_an_exception_comes_through(rig: Rig, registry: Registry, op: Op, verified: bool) -> None:
    # after the helper the program would never end
    insns = [op("call_helper", imm=2), op("ja", off=-1)]
    insns = [op("call_local", imm=1), op("ja", off=-1), *insns]
    xlated = rig.xlated(insns, verified=verified, calls={2: registry.helpers[2]})
    linked = rig.jit.link(xlated, rig.machine)
    for value in (1, 2):
        with pytest.raises(Oops) as caught:
            linked.run(rig.context(xlated), value)
        assert caught.value.args == (value,)


def test_faults_in_helpers(rig: Rig, registry: Registry, op: Op) -> None:
    insns = [op("call_helper", imm=4), op("exit")]
    got = rig.pair(insns)(4096, 8)
    assert got.error == "RunFault: pc 0: helper may not read 8 bytes at 0x1000"
    verified = rig.pair(insns, verified=True, calls={0: registry.helpers[4]})
    assert verified(4096, 8).error.startswith("InternalError: verified program: pc 0: helper may")
    assert rig.pair(insns)(rig.memory.base, 8).error == ""


@pytest.mark.parametrize("verified", [False, True])
def test_stack_memory_for_others(rig: Rig, registry: Registry, op: Op, verified: bool) -> None:
    # main's frame is written by a subprog and read by a helper; the subprog keeps its own values
    insns = [
        op("stdw", 10, off=-16, imm=5),
        op("mov_reg", 1, 10),
        op("add_imm", 1, imm=-8),
        op("call_local", imm=6),
        op("mov_reg", 6, 0),
        op("mov_reg", 1, 10),
        op("add_imm", 1, imm=-16),
        op("mov_imm", 2, imm=16),
        op("call_helper", imm=4),
        op("exit"),
        op("stdw", 10, off=-8, imm=77),
        op("ldxdw", 2, 10, off=-8),
        op("stxdw", 1, 2),
        op("mov_imm", 0),
        op("exit"),
    ]
    got = rig.pair(insns, verified=verified, calls={8: registry.helpers[4]})()
    assert got.r0 == 5  # the low 8 of the 16 bytes


def test_a_result_that_is_no_number(rig: Rig, op: Op) -> None:
    xlated = rig.xlated([op("call_helper", imm=7), op("exit")])
    linked = rig.jit.link(xlated, rig.machine)
    with pytest.raises(TypeError):
        linked.run(rig.context(xlated), 0)


def test_regions_that_come_and_go(rig: Rig, op: Op) -> None:
    insns = [
        op("call_helper", imm=5),
        op("mov_reg", 6, 0),
        op("stdw", 6, off=8, imm=5),
        op("ldxdw", 7, 6, off=8),
        op("mov_reg", 1, 6),
        op("call_helper", imm=6),
        op("ldxdw", 0, 6, off=8),
        op("exit"),
    ]
    xlated = rig.xlated(insns)
    linked = rig.jit.link(xlated, rig.machine)
    with pytest.raises(RunFault, match="pc 6: invalid read of 8 bytes"):
        linked.run(rig.context(xlated), 0)


class Alarm(Exception):
    pass


@pytest.mark.parametrize("body", ["helper", "loop", "may_goto", "nap"])
def test_a_signal_ends_the_run(rig: Rig, op: Op, body: str) -> None:
    insns = {
        "helper": [op("call_helper", imm=1), op("ja", off=-2)],
        "nap": [op("call_helper", imm=8), op("ja", off=-2)],
        "loop": [op("add_imm", 0, imm=1), op("ja", off=-2)],
        "may_goto": [op("may_goto", off=1), op("ja", off=-2), op("exit")],
    }[body]
    xlated = rig.xlated(insns)
    linked = rig.jit.link(xlated, rig.machine)

    armed = False

    def strike(*_: object) -> None:
        # The timer goes on ticking: what comes while nobody waits for it is let go.
        nonlocal armed
        if armed:
            armed = False
            raise Alarm

    before = signal.signal(signal.SIGALRM, strike)

    def armed_run() -> None:
        nonlocal armed
        armed = True
        linked.run(rig.context(xlated, may_goto_limit=1 << 60), 0)

    unraisable = sys.unraisablehook
    lost: list[object] = []
    sys.unraisablehook = lost.append
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.002, 0.0021)
        for _ in range(20):
            with pytest.raises(Alarm):
                armed_run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = unraisable
    assert lost == []


@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("limit", [0, 1, 2, 10])
def test_may_goto_has_one_budget_per_frame(rig: Rig, op: Op, limit: int, verified: bool) -> None:
    insns = [
        op("mov_imm", 0),
        op("may_goto", off=2),
        op("add_imm", 0, imm=1),
        op("ja", off=-3),
        op("may_goto", off=1),
        op("add_imm", 0, imm=100),
        op("jne_imm", 1, off=3),
        op("mov_imm", 1, imm=1),
        op("mov_reg", 6, 0),
        op("call_local", imm=1),
        op("exit"),
        op("mov_imm", 0, imm=7),
        op("may_goto", off=1),
        op("ja", off=-2),
        op("exit"),
    ]
    got = rig.pair(insns, verified=verified)(may_goto_limit=limit)
    assert got.stderr.count(b"ERROR: Timeout detected for may_goto instruction\n") == 3


def test_may_goto_limit_of_many_slices(rig: Rig, op: Op, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("jit.calls", "jit.lower"):
        monkeypatch.setattr(f"{module}.MAY_GOTO_SLICE", 7)
    insns = [op("mov_imm", 0), op("may_goto", off=2), op("add_imm", 0, imm=1), op("ja", off=-3)]
    run = rig.pair([*insns, op("exit")])
    for limit in (0, 6, 7, 8, 13, 14, 15, 100):
        assert run(may_goto_limit=limit).r0 == limit


def test_default_may_goto_limit(rig: Rig, op: Op) -> None:
    insns = [op("mov_imm", 0), op("may_goto", off=2), op("add_imm", 0, imm=1), op("ja", off=-3)]
    xlated = rig.xlated([*insns, op("exit")], verified=True)
    linked = rig.jit.link(xlated, rig.machine)
    assert linked.run(rig.context(xlated), 0) == 8 * 1024 * 1024


def test_runs_in_parallel(rig: Rig, op: Op) -> None:
    insns = [
        op("mov_reg", 7, 1),
        op("mov_imm", 6, imm=300),
        op("stxdw", 10, 7, off=-8),
        op("mov_reg", 1, 7),
        op("call_helper", imm=1),
        op("add_reg", 8, 0),
        op("ldxdw", 1, 10, off=-8),
        op("add_reg", 8, 1),
        op("sub_imm", 6, imm=1),
        op("jne_imm", 6, off=-8),
        op("mov_reg", 0, 8),
        op("exit"),
    ]
    xlated = rig.xlated(insns)
    linked = rig.jit.link(xlated, rig.machine)
    expected = [linked.run(rig.context(xlated), i) for i in range(8)]
    results: dict[int, int] = {}

    def go(i: int) -> None:
        stack = rig.space.add(16 * 512, RegionKind.STACK)
        context = rig.context(xlated)
        context.stack_top = stack.base + stack.size
        results[i] = linked.run(context, i)
        rig.space.remove(stack)

    threads = [threading.Thread(target=go, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [results[i] for i in range(8)] == expected


def test_a_run_inside_a_run(make_rig: type[Rig], op: Op) -> None:
    module = ModuleType("nested")
    depth = 0

    @helper(1, RetType.INTEGER, (ArgType.ANYTHING,))
    def again(run: RunContext, a: int) -> int:
        nonlocal depth
        depth += 1
        return linked.run(rig.context(xlated), a - 1) if a else 7

    module.again = again  # type: ignore[attr-defined]
    rig = make_rig(registry=Registry([module]))
    xlated = rig.xlated([op("call_helper", imm=1), op("add_imm", 0, imm=1), op("exit")])
    linked = rig.jit.link(xlated, rig.machine)
    assert linked.run(rig.context(xlated), 3) == 7 + 4
    assert depth == 4


def test_code_goes_when_nobody_holds_the_program(rig: Rig, op: Op) -> None:
    xlated = rig.xlated([op("call_helper", imm=2), op("exit")])
    linked = rig.jit.link(xlated, rig.machine)
    code = weakref.ref(linked._code)
    with pytest.raises(Oops):
        linked.run(rig.context(xlated), 0)
    del linked
    gc.collect()
    assert code() is None


def test_unseen_slots_are_traps(rig: Rig, op: Op) -> None:
    xlated = rig.xlated(
        [op("jeq_imm", 1, off=1), op("exit"), op("mov_imm", 0, imm=1), op("exit")], verified=True
    )
    aux = (*xlated.aux[:2], replace(xlated.aux[2], seen=False), replace(xlated.aux[3], seen=False))
    linked = rig.jit.link(replace(xlated, aux=aux), rig.machine)
    assert linked.run(rig.context(xlated), 1) == 0
    with pytest.raises(InternalError, match="pc 2"):
        linked.run(rig.context(xlated), 0)


def test_the_text_holds_no_addresses(make_rig: type[Rig], op: Op) -> None:
    texts = set()
    for _ in range(2):
        rig = make_rig()
        xlated = rig.xlated([op("ldxdw", 0, 10, off=-8), op("call_helper", imm=1), op("exit")])
        texts.add(rig.jit.llvm_ir(xlated))
    assert len(texts) == 1


def test_dumps(rig: Rig, op: Op) -> None:
    xlated = rig.xlated(
        [op("stdw", 10, off=-8, imm=5), op("ldxdw", 0, 10, off=-8), op("exit")], verified=True
    )
    assert "define internal i64 @sub_0" in rig.jit.llvm_ir(xlated)
    optimized = rig.careful_jit.llvm_ir(xlated, optimized=True)
    assert "alloca" not in optimized  # registers and the stack have dissolved
    assert "bpf_main:" in rig.jit.native_text(xlated)
    assert rig.jit.native_code(xlated)


def test_what_is_compiled_with_care(rig: Rig, op: Op) -> None:
    loop = [op("sub_imm", 1, imm=1), op("jne_imm", 1, off=-2), op("exit")]
    forward = [op("jne_imm", 1, off=1), op("sub_imm", 1, imm=1), op("exit")]
    picked = rig.jit.pipeline_of
    assert picked(rig.xlated(loop, verified=True)) is Pipeline.NORMAL
    assert picked(rig.xlated(forward, verified=True)) is Pipeline.QUICK
    assert picked(rig.xlated(loop)) is Pipeline.QUICK
    big = [op("mov_imm", 0)] * 5000
    assert picked(rig.xlated([*big, *loop], verified=True)) is Pipeline.QUICK


def test_llvmlite_is_imported_late() -> None:
    code = "import sys, bpfvm, bpfvm.vm; sys.exit('llvmlite' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
