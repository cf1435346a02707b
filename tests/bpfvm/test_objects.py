"""Regions and iterators, verified and run in both engines."""

from __future__ import annotations

import pytest

from bpfvm import vm
from bpfvm.errors import RunFault
from bpfvm.proto import Variant
from bpfvm.runtime import RunContext

SUM = """
.prog sum type=socket_filter license=GPL
r6 = 0
r1 = r10
r1 += -8
r2 = {first}
r3 = {end}
call bpf_iter_num_new
r7 = r0
loop:
r1 = r10
r1 += -8
call bpf_iter_num_next
if r0 == 0 goto done
r1 = *(s32 *)(r0 + 0)
r6 += r1
goto loop
done:
r1 = r10
r1 += -8
call bpf_iter_num_next
if r0 == 0 goto over
r6 = 1000000
over:
r1 = r10
r1 += -8
call bpf_iter_num_destroy
r0 = r6
if r7 == 0 goto +1
r0 = r7
exit
"""


@pytest.fixture(params=vm.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(text: str, engine: str, **options: object) -> int:
    (prog,) = vm.assemble(text).programs.values()
    return prog.run(engine=engine, **options).r0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "end", "expected"),
    [
        (0, 10, 45),
        (0, 1, 0),
        (5, 5, 0),
        (-3, 3, 2**64 - 3),
        (-(2**31), -(2**31) + 2, 2**64 - 2**32 + 1),
        (2**31 - 3, 2**31 - 1, 2**32 - 5),
        (1, 0, 2**32 - 22),  # -EINVAL
        (0, 8 * 2**20 + 1, 2**32 - 7),  # -E2BIG
    ],
)
def test_numbers(engine: str, first: int, end: int, expected: int) -> None:
    assert run(SUM.format(first=first, end=end), engine) == expected


def test_the_sandbox_counts_too(engine: str) -> None:
    assert run(SUM.format(first=0, end=10), engine, verify=False) == 45


def test_regions_are_counted(engine: str) -> None:
    text = """
.prog p type=socket_filter license=GPL
call bpf_rcu_read_lock
call bpf_preempt_disable
call bpf_preempt_disable
r1 = r10
r1 += -8
call bpf_local_irq_save
{rest}
r0 = 7
exit
"""
    rest = """
r1 = r10
r1 += -8
call bpf_local_irq_restore
call bpf_preempt_enable
call bpf_preempt_enable
call bpf_rcu_read_unlock
"""
    seen: list[RunContext] = []
    assert run(text.format(rest=rest), engine, setup=seen.append) == 7
    assert (seen[0].rcu_depth, seen[0].preempt_depth, seen[0].irq_depth) == (0, 0, 0)
    # What the verifier refuses, the sandbox runs.
    assert run(text.format(rest=""), engine, setup=seen.append, verify=False) == 7
    assert (seen[1].rcu_depth, seen[1].preempt_depth, seen[1].irq_depth) == (1, 2, 1)


@pytest.mark.parametrize(
    "name", ["bpf_rcu_read_unlock", "bpf_preempt_enable", "bpf_local_irq_restore"]
)
def test_leaving_what_was_never_entered_ends_a_sandbox_run(engine: str, name: str) -> None:
    text = f".prog p type=socket_filter license=GPL\nr1 = r10\nr1 += -8\ncall {name}\nexit\n"
    with pytest.raises(RunFault, match="unmatched"):
        run(text, engine, verify=False)


@pytest.mark.parametrize(
    ("enter", "leave", "context"),
    [
        ("call bpf_rcu_read_lock", "call bpf_rcu_read_unlock", "rcu_read_lock region"),
        ("call bpf_preempt_disable", "call bpf_preempt_enable", "non-preemptible region"),
        (
            "r1 = r10\nr1 += -8\ncall bpf_local_irq_save",
            "r1 = r10\nr1 += -8\ncall bpf_local_irq_restore",
            "IRQ-disabled region",
        ),
    ],
)
def test_a_region_chooses_the_kfuncs_variant(
    engine: str, enter: str, leave: str, context: str
) -> None:
    alloc = """
r1 = map(arena)
r2 = 0
r3 = 1
r4 = -1
r5 = 0
call bpf_arena_alloc_pages
"""
    (prog,) = vm.assemble(
        ".map arena type=arena entries=4 flags=mmapable\n"
        ".prog p type=syscall sleepable license=GPL\n"
        f"{alloc}{enter}{alloc}{leave}\nr0 = 3\nexit"
    ).programs.values()
    sites = [a.call for a in prog.xlated().aux if a.call and "alloc" in a.call.proto.name]
    assert [(s.variant, s.sleepable, s.context) for s in sites] == [
        (Variant.SLEEPABLE, True, ""),
        (Variant.NON_SLEEPABLE, False, context),
    ]
    assert prog.run(engine=engine).r0 == 3


BITS = """
.prog bits type=socket_filter license=GPL
r6 = 0
*(u64 *)(r10 - 8) = {high}
*(u64 *)(r10 - 16) = {low}
r1 = r10
r1 += -40
r2 = r10
r2 += {at}
r3 = {count}
call bpf_iter_bits_new
r7 = r0
loop:
r1 = r10
r1 += -40
call bpf_iter_bits_next
if r0 == 0 goto done
r1 = *(s32 *)(r0 + 0)
r6 <<= 8
r6 |= r1
goto loop
done:
r1 = r10
r1 += -40
call bpf_iter_bits_destroy
r0 = r6
if r7 == 0 goto +1
r0 = r7
exit
"""


@pytest.mark.parametrize(
    ("low", "high", "at", "count", "expected"),
    [
        (0b1001, 0, -16, 1, 0x0003),
        (-(1 << 31), 0, -16, 1, sum((31 + i) << 8 * (32 - i) for i in range(33)) % 2**64),
        (1, 2, -16, 2, 0x0041),
        (0, 0, -16, 2, 0),
        (1, 1, -8, 2, 2**32 - 14),  # -EFAULT: the second word lies above the stack
        (1, 1, -16, 0, 2**32 - 22),  # -EINVAL
        (1, 1, -16, 512, 2**32 - 7),  # -E2BIG
    ],
)
def test_bits(engine: str, low: int, high: int, at: int, count: int, expected: int) -> None:
    assert run(BITS.format(low=low, high=high, at=at, count=count), engine) == expected
