"""Callbacks: walked as loops through their call, and run in both engines."""

from __future__ import annotations

import pytest
from walk_kit import check

from bpfvm import vm
from bpfvm.errors import RunFault


def loop(body: str, count: str = "10", ctx: str = "r3 = 0", after: str = "") -> str:
    """Return a program that calls bpf_loop with callback *body*."""
    return (
        f"{ctx}\nr1 = {count}\nr2 = func(cb)\nr4 = 0\ncall bpf_loop\n{after}\n"
        f"r0 = 0\nexit\n.func cb ret=int\n{body}\n"
    )


STACK_CTX = "*(u64 *)(r10 - 8) = 0\nr3 = r10\nr3 += -8"
GO_ON = "r0 = 0\nexit"


def test_a_callback_that_does_nothing() -> None:
    for kernel in ("6.18", "7.3"):
        assert check(loop(GO_ON), kernel=kernel).ok


def test_what_a_callback_may_return() -> None:
    assert check(loop("r0 = 1\nexit")).ok
    assert check(loop("call bpf_get_prandom_u32\nr0 &= 1\nexit")).ok
    wrong = "At callback return the register R0 has smin=2 smax=2 should have been in [0, 1]"
    assert check(loop("r0 = 2\nexit")).last == wrong
    unknown = check(loop("r0 = *(u64 *)(r2 + 0)\nexit", ctx="r3 = r10\nr3 += -8"))
    assert unknown.last == (
        "At callback return the register R0 has unknown scalar value should have been in [0, 1]"
    )
    assert check(loop("r0 = r10\nexit")).last == "cannot return stack pointer to the caller"
    assert check(loop("r0 = r2\nexit", ctx=STACK_CTX)).errno == 22
    assert check(loop("exit")).last == "R0 not a scalar value"


def test_a_callback_sees_its_arguments_only() -> None:
    assert check(loop("r0 = r1\nr0 = r2\nr0 = 0\nexit")).ok
    assert check(loop("r0 = r3\nexit")).last == "R3 !read_ok"
    assert check(loop("r0 = r6\nexit")).last == "R6 !read_ok"
    # The index may be anything for the verifier.
    store = "r3 = r2\nr3 += r1\n*(u8 *)(r3 + 0) = 1\n" + GO_ON
    assert "unbounded" in check(loop(store, ctx=STACK_CTX)).last


def test_what_it_changes_is_seen_after_and_in_its_next_turn() -> None:
    count = "r1 = *(u64 *)(r2 + 0)\nr1 += 1\n*(u64 *)(r2 + 0) = r1\n" + GO_ON
    assert check(loop(count, ctx=STACK_CTX)).ok
    use = "r1 = *(u64 *)(r10 - 8)\nr2 = r10\nr2 += r1\n*(u8 *)(r2 - 8) = 1"
    assert not check(loop(count, ctx=STACK_CTX, after=use)).ok
    assert check(loop(GO_ON, ctx=STACK_CTX, after=use)).ok
    # The second turn meets what the first one left: no pointer any more.
    spoil = "r1 = *(u64 *)(r2 + 0)\nr0 = *(u64 *)(r1 - 16)\n*(u64 *)(r2 + 0) = 7\n" + GO_ON
    ctx = "*(u64 *)(r10 - 8) = r10\nr3 = r10\nr3 += -8"
    assert check(loop(spoil, ctx=ctx)).last == "R1 invalid mem access 'scalar'"
    assert check(loop(spoil, ctx=ctx, count="1")).ok


def test_a_known_count_ends_the_turns() -> None:
    spoil = "r1 = *(u64 *)(r2 + 0)\nr1 += 1\n*(u64 *)(r2 + 0) = r1\n" + GO_ON
    use = "r1 = *(u64 *)(r10 - 8)\nif r1 <= 3 goto +1\nr0 = *(u64 *)(r9 + 0)"
    assert check(loop(spoil, ctx=STACK_CTX, count="0", after=use)).ok
    log = check(loop(GO_ON, count="0"), log_level=2).log
    assert "frame0 bpf_loop iteration limit reached\n" in log


def test_loops_inside_and_callbacks_of_callbacks() -> None:
    nested = "r1 = 5\nr2 = func(inner)\nr3 = 0\nr4 = 0\ncall bpf_loop\nr0 = 0\nexit\n"
    assert check(loop(nested + ".func inner ret=int\n" + GO_ON)).ok
    inside = "r6 = 0\nr6 += 1\nif r6 < 100 goto -2\n" + GO_ON
    assert check(loop(inside)).ok
    endless = check(loop("r6 = 0\ngoto -2\n" + GO_ON))
    assert endless.last.startswith(("old state:", "unreachable"))


def test_the_log_tells_a_callback() -> None:
    log = check(loop(GO_ON), log_level=2).log
    assert " frame1: R1=scalar() R2=0 R10=fp0 cb\n" in log
    assert "to caller at 5:\n" in log


def test_which_functions_may_be_called_back() -> None:
    text = loop(GO_ON)
    assert check(text.replace(".func cb", ".func cb global")).last == "callback function not static"
    bare = text.replace(".func cb ret=int", ".func cb")
    assert check(bare).last == "missing btf func_info"
    to_main = "r1 = 1\nr2 = func(p)\nr3 = 0\nr4 = 0\ncall bpf_loop\nexit\n.func x ret=int\n" + GO_ON
    assert check(".func p\n" + to_main).last in (
        "callback function cannot be the main program",
        "unreachable insn 7",
    )


def test_the_callback_argument() -> None:
    text = "r1 = 1\nr2 = 5\nr3 = 0\nr4 = 0\ncall bpf_loop\nexit"
    assert check(text).last == "R2 type=scalar expected=func"
    assert check(loop(GO_ON, ctx="r3 = 5")).last == "R3 type=scalar expected=fp"
    moved = loop(GO_ON).replace("r4 = 0\ncall", "r2 += 8\nr4 = 0\ncall")
    assert not check(moved).ok


def each(body: str, name: str = "array") -> str:
    return (
        f"*(u64 *)(r10 - 8) = 0\nr3 = r10\nr3 += -8\nr1 = map({name})\nr2 = func(cb)\nr4 = 0\n"
        f"call bpf_for_each_map_elem\nr0 = *(u64 *)(r10 - 8)\nexit\n.func cb ret=int\n{body}\n"
    )


def test_elements_of_a_map() -> None:
    total = (
        "r5 = *(u64 *)(r3 + 8)\nr0 = *(u32 *)(r2 + 0)\nr5 += r0\n*(u64 *)(r4 + 0) = r5\n" + GO_ON
    )
    assert check(each(total)).ok
    assert check(each("*(u64 *)(r3 + 8) = 1\n" + GO_ON)).ok
    assert (
        check(each("*(u32 *)(r2 + 0) = 1\n" + GO_ON)).last == "write to change key R2 not allowed"
    )
    beyond = check(each("r0 = *(u32 *)(r2 + 1)\n" + GO_ON))
    assert "invalid access to map key, key_size=4 off=1 size=4\n" in beyond.log
    lookup = "r1 = map(hash)\ncall bpf_map_lookup_elem\n" + GO_ON
    assert check(each(lookup)).ok
    arena = check(each(GO_ON, "arena"))
    assert (arena.errno, arena.last) == (524, "callback function not allowed for map")


# -- running -----------------------------------------------------------------------------------

ENGINES = ("interp", "jit")
MAPS = """.map array type=array key=4 value=16 entries=4
.map hash type=hash key=4 value=8 entries=8
"""


def run(text: str, engine: str, **given: object) -> int:
    file = vm.assemble(f"{MAPS}.prog p type=syscall\n{text}")
    return file.programs["p"].run(engine=engine, **given).r0  # type: ignore[arg-type]


COUNT = """
*(u64 *)(r10 - 8) = 0
r3 = r10
r3 += -8
r1 = {count}
r2 = func(cb)
r4 = {flags}
call bpf_loop
r1 = *(u64 *)(r10 - 8)
r0 <<= 32
r0 |= r1
exit
.func cb ret=int
r3 = *(u64 *)(r2 + 0)
r3 += r1
*(u64 *)(r2 + 0) = r3
r0 = 0
if r1 != {last} goto +1
r0 = 1
exit
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_bpf_loop_counts(engine: str) -> None:
    assert run(COUNT.format(count=5, flags=0, last=99), engine) == 5 << 32 | 10
    assert run(COUNT.format(count=5, flags=0, last=2), engine) == 3 << 32 | 3
    assert run(COUNT.format(count=0, flags=0, last=2), engine) == 0
    assert run(COUNT.format(count=5, flags=1, last=2), engine) == (-22 << 32) % (1 << 64)
    assert run(COUNT.format(count=(1 << 23) + 1, flags=0, last=2), engine) == (-7 << 32) % (1 << 64)


NESTED = """
r3 = r10
r3 += -8
*(u64 *)(r10 - 8) = 0
r1 = 3
r2 = func(outer)
r4 = 0
call bpf_loop
r0 = *(u64 *)(r10 - 8)
exit
.func outer ret=int
r6 = r1
*(u64 *)(r10 - 8) = 100
r3 = r2
r1 = 4
r2 = func(inner)
r4 = 0
call bpf_loop
r1 = r6
call add_one
r1 = *(u64 *)(r10 - 8)
r0 = 0
if r1 == 100 goto +1
r0 = 1
exit
.func inner ret=int
r7 = r2
call add_one
r1 = *(u64 *)(r7 + 0)
r1 += r0
*(u64 *)(r7 + 0) = r1
r0 = 0
exit
.func add_one
r0 = r1
r0 += 1
exit
"""


@pytest.mark.parametrize("engine", ENGINES)
def test_callbacks_nest_and_call(engine: str) -> None:
    assert run(NESTED, engine) == 3 * (1 + 2 + 3 + 4)
    assert run(NESTED, engine, verify=False) == 3 * (1 + 2 + 3 + 4)


@pytest.mark.parametrize("engine", ENGINES)
def test_elements_are_handed_over(engine: str) -> None:
    fill = """
r6 = 3
*(u32 *)(r10 - 4) = r6
r7 = r6
r7 *= 7
*(u64 *)(r10 - 16) = r7
r1 = map(hash)
r2 = r10
r2 += -4
r3 = r10
r3 += -16
r4 = 0
call bpf_map_update_elem
r6 -= 1
if r6 != 0 goto -14
"""
    text = fill + each(
        "r5 = *(u64 *)(r3 + 0)\nr0 = *(u32 *)(r2 + 0)\nr0 <<= 8\nr5 += r0\nr1 = *(u64 *)(r4 + 0)\n"
        "r5 += r1\n*(u64 *)(r4 + 0) = r5\n" + GO_ON,
        "hash",
    )
    assert run(text, engine) == 6 * 7 + (6 << 8)
    assert run(text, engine, verify=False) == 6 * 7 + (6 << 8)
    four = each("r5 = *(u64 *)(r4 + 0)\nr5 += 1\n*(u64 *)(r4 + 0) = r5\n" + GO_ON)
    assert run(four, engine) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_may_end_in_a_callback(engine: str) -> None:
    bad = loop("r0 = *(u64 *)(r9 + 0)\nexit")
    with pytest.raises(RunFault, match="invalid read of 8 bytes at 0x0"):
        run(bad, engine, verify=False)
    endless = loop("goto -1\n" + GO_ON)
    with pytest.raises(RunFault, match="budget"):
        run(endless, engine, verify=False, budget=1000)
    number = "r1 = 3\nr2 = 8\nr3 = 0\nr4 = 0\ncall bpf_loop\nexit\n"
    with pytest.raises(RunFault, match="0x8 is not a subprogram"):
        run(number, engine, verify=False)


def test_both_engines_use_up_the_same_budget() -> None:
    for budget in range(20, 200, 7):
        ends = []
        for engine in ENGINES:
            try:
                ends.append(str(run(NESTED, engine, verify=False, budget=budget)))
            except RunFault as fault:
                ends.append(str(fault))
        assert ends[0] == ends[1], budget


@pytest.mark.parametrize("kernel", ["6.18", "7.3"])
def test_a_context_that_was_taken_for_null_stays_null(kernel: str) -> None:
    # Both paths meet before the call: the callback was walked with a context of 0 alone.
    text = (
        "call bpf_get_prandom_u32\nr6 = 5\nif r0 > 0 goto +1\nr6 = 0\nr7 = 1\nr3 = r6\nr1 = 3\n"
        "r2 = func(cb)\nr4 = 0\ncall bpf_loop\nr0 = 0\nexit\n"
        ".func cb ret=int\nif r2 == 0 goto +2\nr0 = 0\nexit\nr0 = 1\nexit\n"
    )
    assert check(text, kernel=kernel, flags=8).last == "R3 type=scalar expected=fp"
