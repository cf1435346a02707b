"""Timers and work queues run what they were told to, in simulated time, under both engines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bpfvm import commands, vm
from bpfvm.errors import BpfError
from bpfvm.runtime import RunContext

ENGINES = ("interp", "jit")

#: Values: the field at 0, and at 16 what the callback adds 1 to.
SOURCE = """
.map m type={kind} key=4 value=24 entries=2 fields={field}@0
.prog main type=sched_cls
{enter}
r0 = 0; exit
.func cb ret=int
r6 = r3; r7 = *(u32 *)(r2 + 0); r0 = *(u64 *)(r6 + 16); r0 += 1; *(u64 *)(r6 + 16) = r0
{callback}
r0 = 0; exit
"""
#: r6 = address of the value of key 1, which is made if need be.
VALUE = """
*(u32 *)(r10 - 4) = 1
*(u64 *)(r10 - 32) = 0; *(u64 *)(r10 - 24) = 0; *(u64 *)(r10 - 16) = 0
r1 = map(m); r2 = r10; r2 += -4; r3 = r10; r3 += -32; r4 = 0; call bpf_map_update_elem
r1 = map(m); r2 = r10; r2 += -4; call bpf_map_lookup_elem
if r0 != 0 goto +2
r0 = 9; exit
r6 = r0
"""
INIT = "r1 = r6; r2 = map(m); r3 = 1; call bpf_timer_init\n"
SET = "r1 = r6; r2 = func(cb); call bpf_timer_set_callback\n"
START = "r1 = r6; r2 = {}; r3 = {}; call bpf_timer_start\n"
CANCEL = "r1 = r6; call bpf_timer_cancel\n"
RESULT = "*(u64 *)(r6 + 16) = r0\n"


def made(kind: str, field: str, enter: str, callback: str = "") -> vm.Object:
    text = SOURCE.format(kind=kind, field=field, enter=VALUE + enter, callback=callback)
    if "func(cb)" not in enter:
        text = text[: text.index(".func")]
    return vm.assemble(text.replace("; ", "\n"))


def timed(enter: str, callback: str = "", kind: str = "hash") -> vm.Object:
    return made(kind, "bpf_timer", enter, callback)


def run(obj: vm.Object, engine: str, kernel: str = "7.3") -> None:
    def at(run: RunContext) -> None:
        run.clock = lambda: 1000

    assert obj.programs["main"].run(engine=engine, kernel=kernel, setup=at).r0 == 0


def count(obj: vm.Object) -> int:
    return int.from_bytes(obj.maps["m"][1][16:], "little")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["hash", "array"])
def test_a_timer_fires_when_its_time_has_come(engine: str, kind: str) -> None:
    obj = timed(INIT + SET + START.format(500, 0), kind=kind)
    run(obj, engine)
    assert obj.advance(499) == []
    assert count(obj) == 0
    (fired,) = obj.advance(1)
    assert (fired.kind, fired.prog, fired.time, fired.r0) == ("bpf_timer", "main", 1500, 0)
    assert count(obj) == 1
    assert obj.advance(10_000) == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_absolute_time(engine: str) -> None:
    obj = timed(INIT + SET + START.format(1200, 1))
    run(obj, engine)
    assert [fired.time for fired in obj.advance(1000)] == [1200]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_callback_sees_the_time_and_may_start_its_timer_again(engine: str) -> None:
    again = (
        "call bpf_ktime_get_ns\nr1 = r0; r0 = *(u64 *)(r6 + 16); if r0 s> 2 goto +4\n"
        "r1 = r6; r2 = 100; r3 = 0; call bpf_timer_start\n"
    )
    obj = timed(INIT + SET + START.format(100, 0), again)
    run(obj, engine)
    assert [fired.time for fired in obj.advance(10_000)] == [1100, 1200, 1300]
    assert count(obj) == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_cancelled_or_gone_does_not_fire(engine: str) -> None:
    obj = timed(INIT + SET + START.format(100, 0) + CANCEL + RESULT)
    run(obj, engine)
    assert count(obj) == 1  # it was going to
    assert obj.advance(1000) == []
    for end in ("delete", "replace"):
        obj = timed(INIT + SET + START.format(100, 0))
        run(obj, engine)
        if end == "delete":
            del obj.maps["m"][1]
        else:
            obj.maps["m"][1] = bytes(24)
        assert obj.advance(1000) == []


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("enter", "result"),
    [
        (START.format(1, 0), -22),
        (SET, -22),
        (CANCEL, -22),
        (INIT + START.format(1, 0), -22),
        (INIT + INIT, -16),
        (INIT + SET + START.format(1, 4), -22),
        (INIT + CANCEL, 0),
    ],
)
def test_errors(engine: str, enter: str, result: int) -> None:
    obj = timed(enter + RESULT)
    run(obj, engine)
    assert count(obj) == result % 2**64


@pytest.mark.parametrize("engine", ENGINES)
def test_a_callback_may_not_wait_for_itself(engine: str) -> None:
    obj = timed(INIT + SET + START.format(1, 0), "r1 = r6; call bpf_timer_cancel\n" + RESULT)
    run(obj, engine)
    obj.advance(1)
    assert count(obj) == -35 % 2**64


def test_an_endless_timer_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vm, "MAX_FIRED", 10)
    obj = timed(INIT + SET + START.format(0, 0), START.format(0, 0))
    run(obj, "interp")
    with pytest.raises(BpfError, match="more than 10 callbacks"):
        obj.advance(1)


WORK = (
    "r1 = r6; r2 = map(m); r3 = 0; call bpf_wq_init\n"
    "r1 = r6; r2 = func(cb); r3 = 0; r4 = 0; call {}\n"
    "r1 = r6; r2 = 0; call bpf_wq_start\n"
)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("name", "kernel"), [("bpf_wq_set_callback_impl", "6.18"), ("bpf_wq_set_callback", "7.3")]
)
def test_work_runs_where_it_may_sleep(engine: str, name: str, kernel: str) -> None:
    obj = made("array", "bpf_wq", WORK.format(name))
    run(obj, engine, kernel=kernel)
    assert count(obj) == 0
    (fired,) = obj.advance()
    assert (fired.kind, fired.time, count(obj)) == ("bpf_wq", 1000, 1)
    assert obj.advance(1000) == []


def test_the_command_line_lets_time_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SOURCE.format(
        kind="array",
        field="bpf_timer",
        enter=VALUE + INIT + SET + START.format(500, 0),
        callback="r1 = 1; call bpf_stream_print_stack",
    )
    path = tmp_path / "timed.s"
    path.write_text(text.replace("; ", "\n"))
    assert commands.run(str(path), "interp", None, None, None, False, None, False, 500) == 0
    _, fired, *trace = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"main  bpf_timer at \d+ ns", fired)
    assert any("cb+" in line for line in trace)
