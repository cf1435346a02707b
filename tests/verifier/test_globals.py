"""Global subprograms: what a call must pass, what they may rely on, and what the log says."""

from __future__ import annotations

import pytest
from walk_kit import check


def main(call: str, func: str, body: str) -> str:
    """Return a program whose main does *call*, and global subprog f of signature *func*."""
    return f"{call}\ncall f\nr0 = 0\nexit\n.func f global {func}\n{body}\n"


#: A state is saved at every chance (BPF_F_TEST_STATE_FREQ).
TEST_STATE_FREQ = 8
DEREF = "r0 = *(u64 *)(r1 + 0)\nexit"
CALLER = "Caller passes invalid args into func#1 ('f')"


def test_a_scalar_is_asked_for_and_unknown_inside() -> None:
    assert check(main("r1 = 5", 'args="u64"', "r0 = r1\nexit")).ok
    verdict = check(main("", 'args="u64"', "r0 = r1\nexit"))
    assert verdict.last == CALLER
    assert "R1 is not a scalar\n" in verdict.log
    # What the caller passes is not known inside.
    body = "if r1 == 5 goto +2\nr0 = *(u64 *)(r9 + 0)\nexit\nr0 = 0\nexit"
    assert check(main("r1 = 5", 'args="u64"', body)).last == "R9 !read_ok"


def test_r0_of_a_call_is_any_scalar() -> None:
    text = "r1 = 5\ncall f\nif r0 != 7 goto +2\nr0 = *(u64 *)(r9 + 0)\nexit\nr0 = 0\nexit\n"
    verdict = check(text + '.func f global args="u64"\nr0 = 0\nexit\n')
    assert verdict.last == "R9 !read_ok"


def test_memory_may_be_null_unless_promised() -> None:
    call = "r1 = r10\nr1 += -8"
    verdict = check(main(call, 'args="mem:8"', DEREF))
    assert verdict.last == "R1 invalid mem access 'mem_or_null'"
    checked = "if r1 == 0 goto +2\nr0 = *(u64 *)(r1 + 0)\nexit\nr0 = 0\nexit"
    assert check(main(call, 'args="mem:8"', checked)).ok
    assert check(main(call, 'args="mem:8+nonnull"', DEREF)).ok


def test_memory_has_the_size_of_the_prototype() -> None:
    call = "r1 = r10\nr1 += -8"
    nine = "r0 = *(u8 *)(r1 + 8)\nexit"
    verdict = check(main(call, 'args="mem:8+nonnull"', nine))
    assert verdict.last == "R1 min value is outside of the allowed memory range"
    verdict = check(main(call, 'args="mem:9+nonnull"', nine))
    assert verdict.last == CALLER
    assert "invalid read from stack R1 off=-8 size=9\n" in verdict.log


def test_null_goes_where_it_is_allowed() -> None:
    assert check(main("r1 = 0", 'args="mem:8"', "r0 = 0\nexit")).ok
    for kernel, named in (("6.18", "arg#0"), ("7.3", "R1")):
        verdict = check(main("r1 = 0", 'args="mem:8+nonnull"', DEREF), kernel=kernel)
        assert verdict.last == CALLER
        assert f"{named} is expected to be non-NULL\n" in verdict.log


def test_null_must_stay_null() -> None:
    """A 0 that was passed as a null pointer doesn't stand for other scalars (7.3)."""
    text = main(
        "call bpf_get_prandom_u32\nr1 = 0\nif r0 > 5 goto +1\nr1 = 42\nr0 = 0", 'args="mem:8"',
        "r0 = 0\nexit",
    )  # fmt: skip
    assert check(text).last == CALLER


def test_contexts() -> None:
    body = "r0 = *(u32 *)(r1 + 0)\nexit"
    assert check(main("", 'args="ctx"', body)).ok
    for kernel, named in (("6.18", "arg#0"), ("7.3", "R1")):
        verdict = check(main("r1 = 1", 'args="ctx"', body), kernel=kernel)
        assert verdict.last == CALLER
        assert f"{named} expects pointer to ctx\n" in verdict.log


def test_contexts_that_are_plain_memory() -> None:
    """Their last byte has to be there, and the program has to be allowed to write it."""
    body = "r0 = 0\nexit"
    for size, fits in ((8, True), (1 << 17, False)):
        assert check(main("", f'args="mem:{size}"', body), "syscall").ok == fits
    traced = check(main("", 'args="mem:4"', body), "tracepoint", kernel="6.18")
    assert traced.last == CALLER
    assert "invalid bpf_context access off=3 size=1\n" in traced.log
    traced = check(main("", 'args="mem:4"', body), "tracepoint")
    assert "R1 type=ctx expected=fp\n" in traced.log
    skb = check(main("", 'args="mem:4"', body))
    assert "R1 type=ctx expected=fp\n" in skb.log
    traced = check(main("", 'args="mem:4"', body), "tracepoint")
    assert traced.last == CALLER
    assert "R1 type=ctx expected=fp\n" in traced.log


def test_arena_arguments_are_scalars_inside() -> None:
    call = "r1 = map(arena)\nr1 = addr_space_cast(r1, 0, 1)"
    cast = "r1 = addr_space_cast(r1, 0, 1)\nr0 = *(u64 *)(r1 + 0)\nexit"
    used = "r2 = map(arena)\n" + cast
    assert check(main(call, "args=arena", used)).ok
    assert check(main("r1 = 8", "args=arena", used)).ok
    assert check(main(call, "args=arena", DEREF)).last == "R1 invalid mem access 'scalar'"
    verdict = check(main("", "args=arena", used))
    assert verdict.last == CALLER
    assert "R1 is not a pointer to arena or scalar.\n" in verdict.log
    verdict = check(main(call, "args=u64", used))
    assert "R1 is not a scalar\n" in verdict.log


def test_arena_results() -> None:
    body = "r0 = map(arena)\nr0 = addr_space_cast(r0, 0, 1)\nexit"
    text = main("", "ret=arena", body)
    assert check(text).ok
    verdict = check(text, kernel="6.18")
    assert verdict.last == CALLER
    assert "Global function f() doesn't return scalar. Only those are supported." in verdict.log
    old = check(main("", "ret=u64", body), kernel="6.18")
    assert old.last == "At subprogram exit the register R0 is not a scalar value (arena)"


def test_results_are_scalars() -> None:
    verdict = check(main("", "", "r0 = r10\nexit"))
    assert verdict.last == "At subprogram exit the register R0 is not a scalar value (fp)"
    assert check(main("", "", "exit")).last == "R0 !read_ok"


def test_void() -> None:
    assert check(main("", "ret=void", "exit")).ok
    old = check(main("", "ret=void", "exit"), kernel="6.18")
    assert (old.errno, old.last) == (22, CALLER)
    text = "call f\nexit\n.func f global ret=void\nr0 = 0\nexit\n"
    assert check(text).last == "R0 !read_ok"


def test_prototypes_that_have_no_rule() -> None:
    for args, line in (
        ("ptr", "arg#0 reference type('UNKNOWN ') size cannot be determined: -22"),
        ("arena+nonnull", "arg#0 arena cannot be combined with any other tags"),
        ("arena+ctx", "arg#0 has invalid combination of tags"),
        ("u64+arena", "arg#0 has pointer tag, but is not a pointer type"),
        ("mem:8+nullable", "arg#0 has invalid combination of tags"),
        ("mem:8+wrong", "arg#0 has unsupported set of tags"),
    ):
        verdict = check(main("r1 = 0", f'args="{args}"', "r0 = 0\nexit"))
        assert verdict.last == CALLER
        assert line + "\n" in verdict.log, args


@pytest.mark.parametrize(
    ("kernel", "passing", "line"),
    [
        ("6.18", "r1 = 0", "Global function f() with 6 > 5 args. Buggy compiler."),
        (
            "7.3",
            "r1 = 0\n*(u64 *)(r11 - 8) = 6",
            "global function f has 6 > 5 args, stack args not supported",
        ),
    ],
)
def test_more_than_five_arguments(kernel: str, passing: str, line: str) -> None:
    text = main(passing, 'args="u64,u64,u64,u64,u64,u64"', "r0 = 0\nexit")
    verdict = check(text, kernel=kernel)
    assert verdict.last == CALLER
    assert line + "\n" in verdict.log


def test_the_log_of_a_good_one() -> None:
    text = main("r1 = 5", "args=u64", "r0 = r1\nexit")
    log = check(text, log_level=2).log
    for line in (
        "Func#1 ('f') is global and assumed valid.",
        "Validating f() func#1...",
        "Func#1 ('f') is safe for any args that match its prototype",
    ):
        assert line + "\n" in log
    brief = check(text, log_level=1).log.splitlines()
    assert brief[0] == "Func#1 ('f') is safe for any args that match its prototype"


def test_only_what_is_called_is_verified() -> None:
    bad = "r0 = *(u64 *)(r9 + 0)\nexit"
    dead = "r0 = 0\nif r0 == 0 goto +1\ncall f\nexit\n.func f global\n" + bad
    assert check(dead).ok
    through = main("", "", "call g\nr0 = 0\nexit\n.func g global\n" + bad)
    assert check(through).last == "R9 !read_ok"


def test_locals_may_be_walked_into_from_a_global_one() -> None:
    body = "call g\nexit\n.func g\nr0 = r1\nexit"
    assert check(main("r1 = 1", "args=u64", body)).ok
    loop = "r6 = 0\nr6 += 1\nif r6 < 100 goto -2\nr0 = r6\nexit"
    assert check(main("r1 = 1", "args=u64", loop)).ok


def test_precision_ends_at_the_arguments() -> None:
    body = "r2 = r10\nif r1 > 8 goto +3\nr1 -= 16\nr2 += r1\n*(u8 *)(r2 + 0) = 1\nr0 = 0\nexit"
    assert check(main("r1 = 5", "args=u64", body)).ok


def test_r0_of_a_global_call_needs_no_trace() -> None:
    text = (
        "r6 = 1\nr1 = 5\ncall f\nif r0 > 7 goto +4\nr2 = r10\nr2 += r0\nr2 += -8\n"
        "*(u8 *)(r2 + 0) = 1\nr0 = 0\nexit\n.func f global args=u64\nr0 = 0\nexit\n"
    )
    assert check(text, flags=TEST_STATE_FREQ).ok


def test_dynptrs_are_handed_over() -> None:
    ringbuf = "r1 = r10\nr1 += -16\n"
    verdict = check(main(ringbuf, "args=dynptr", "r0 = 0\nexit"))
    assert verdict.last == CALLER
    assert "Expected an initialized dynptr as R1\n" in verdict.log
    verdict = check(main("r1 = 5", "args=dynptr", "r0 = 0\nexit"))
    assert "R1 expected pointer to stack or const struct bpf_dynptr\n" in verdict.log
    data = "r2 = 0\nr3 = 4\ncall bpf_dynptr_data\nif r0 == 0 goto +1\nr0 = *(u32 *)(r0 + 0)\nexit"
    made = (
        "*(u32 *)(r10 - 20) = 0\nr2 = r10\nr2 += -20\nr1 = map(array)\ncall bpf_map_lookup_elem\n"
        "if r0 != 0 goto +2\nr0 = 0\nexit\nr1 = r0\nr2 = 16\nr3 = 0\nr4 = r10\nr4 += -16\n"
        "call bpf_dynptr_from_mem\nr1 = r10\nr1 += -16\n"
    )
    assert check(main(made, "args=dynptr", data)).ok


@pytest.mark.parametrize("kernel", ["6.18", "7.3"])
def test_a_number_is_not_pruned_as_the_null_that_was_passed_before(kernel: str) -> None:
    call = "call bpf_get_prandom_u32\nr6 = 5\nif r0 > 0 goto +1\nr6 = 0\nr7 = 1\nr1 = r6"
    body = "if r1 == 0 goto +1\nr2 = *(u64 *)(r1 + 0)\nr0 = 0\nexit"
    text = main(call, 'args="mem:8" ret=int', body)
    assert check(text, kernel=kernel, flags=TEST_STATE_FREQ).last == CALLER
