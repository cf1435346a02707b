"""Timers: where they are, and callbacks that are verified apart from the program."""

from __future__ import annotations

import pytest

from bpfvm import vm
from bpfvm.xlated import Verdict

MAPS = """.map timers type=array key=4 value=32 entries=2 fields=bpf_timer@8
.map others type=array key=4 value=32 entries=2 fields=bpf_timer@8
.map plain type=array key=4 value=32 entries=2
"""
LOOKUP = """*(u32 *)(r10 - 4) = 0
r2 = r10
r2 += -4
r1 = map({})
call bpf_map_lookup_elem
if r0 == 0 goto done
r6 = r0
r6 += {}
"""
DONE = "done:\nr0 = 0\nexit\n.func cb ret=int\n"
SET = "r1 = r6\nr2 = func(cb)\ncall bpf_timer_set_callback\n"
INIT = "r1 = r6\nr2 = map({})\nr3 = 1\ncall bpf_timer_init\n"


def program(body: str, callback: str = "r0 = 0\nexit", name: str = "timers", at: int = 8) -> str:
    return f"{MAPS}.prog p\n{LOOKUP.format(name, at)}{body}{DONE}{callback}\n"


def check(text: str, kernel: str = "7.3", log_level: int = 1) -> Verdict:
    return vm.assemble(text).programs["p"].verify(kernel=kernel, log_level=log_level)


def test_a_timer_is_where_btf_says() -> None:
    assert check(program(SET)).ok
    assert check(program(SET, at=0)).last == (
        "off 0 doesn't point to 'struct bpf_timer' that is at 8"
    )
    plain = check(program(SET, name="plain")).last
    assert plain == "map 'plain' has to have BTF in order to use bpf_timer"
    moved = "r1 = r6\ncall bpf_get_prandom_u32\nr0 &= 8\nr6 += r0\n"
    assert check(program(moved + SET)).last == (
        "R1 doesn't have constant offset. bpf_timer has to be at the constant offset"
    )


def test_the_map_is_the_timers_own() -> None:
    assert check(program(INIT.format("timers") + SET)).ok
    assert check(program(INIT.format("others") + SET)).last == (
        "timer pointer in R1 map_uid=0 doesn't match map pointer in R2 map_uid=0"
    )


def test_what_the_callback_gets_and_returns() -> None:
    get = "r0 = *(u32 *)(r2 + 0)\nr0 = *(u64 *)(r3 + 0)\nr0 = 0\nexit"
    assert check(program(SET, get)).ok
    assert check(program(SET, "r0 = *(u64 *)(r3 + 8)\nr0 = 0\nexit")).last == (
        "bpf_timer cannot be accessed directly by load/store"
    )
    assert check(program(SET, "r0 = r4\nexit")).last == "R4 !read_ok"
    assert check(program(SET, "r0 = 1\nexit")).last == (
        "At async callback return the register R0 has smin=1 smax=1 should have been in [0, 0]"
    )
    assert check(program(SET, "r0 = r10\nexit")).last == (
        "At async callback return the register R0 is not a known value (fp)"
    )
    assert " async_cb\n" in check(program(SET), log_level=2).log


def test_a_callback_may_set_itself_again() -> None:
    again = "r1 = r3\nr1 += 8\nr2 = func(cb)\ncall bpf_timer_set_callback\nr0 = 0\nexit"
    assert check(program(SET, again)).ok
    endless = check(program(SET, "r6 = 0\ngoto -2\nr0 = 0\nexit"))
    assert not endless.ok


def test_its_stack_is_its_own() -> None:
    use = "*(u64 *)(r10 - 400) = 0\n"
    assert check(program(use + SET, use + "r0 = 0\nexit")).ok


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_timers_are_set_up_and_cancelled(engine: str) -> None:
    steps = (
        "r1 = r6\nr2 = 5\nr3 = 0\ncall bpf_timer_start\nr7 = r0\n"  # not initialised
        + INIT.format("timers")
        + "r7 += r0\n"
        + INIT.format("timers")
        + "r7 += r0\n"  # a second time
        + SET
        + "r7 += r0\nr1 = r6\nr2 = 5\nr3 = 0\ncall bpf_timer_start\nr7 += r0\n"
        "r1 = r6\ncall bpf_timer_cancel\nr7 += r0\nr0 = r7\nexit\n"
    )
    text = program(steps).replace(".prog p\n", ".prog p type=syscall\n")
    result = vm.assemble(text).programs["p"].run(engine=engine).r0
    assert result - (1 << 64) == -22 + 0 - 16 + 0 + 0 + 1
