"""Linked scalars: what a branch on one teaches about the others, as Linux 6.18.44 prints it."""

from __future__ import annotations

import re

import pytest
from walk_kit import check

from bpfvm.rules import KERNELS

RANDOM = "call bpf_get_prandom_u32\n"


def state_of(text: str, regno: int, kernel: str = KERNELS[0]) -> str:
    """Return register *regno*, which the last move reads, as the log shows it there."""
    log = check(RANDOM + text, kernel=kernel, log_level=2).log
    moves = [line for line in log.splitlines() if f" = r{regno} " in line]
    found = re.search(rf" R{regno}=(scalar\([^;]*?\)\)|scalar\(.*?\)|\S+)(?= |$)", moves[-1])
    assert found, log
    return found[1]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    ("text", "regno", "seen"),
    [
        pytest.param(
            "w6 = w0\nw7 = w6\nw7 += 1\nif w7 > 10 goto +1\nr0 = r6\nr0 = 0\nexit",
            6,
            "scalar(id=1,smin=0,smax=umax=0xffffffff,smin32=-1,smax32=9,var_off=(0x0; 0xffffffff))",
            id="a 32-bit sum",
        ),
        pytest.param(
            "w6 = w0\nr7 = r6\nw7 -= 5\nif w7 s< 3 goto +1\nr0 = r6\nr0 = 0\nexit",
            6,
            "scalar(id=1,smin=umin=umin32=8,smax=umax=umax32=0x80000004,var_off=(0x0; 0xffffffff))",
            id="a 32-bit difference",
        ),
        pytest.param(
            "w6 = w0\nw7 = w6\nw7 += 1\nr8 = r6\nr8 += 1\nif w7 > 10 goto +0\nr0 = r8\nexit",
            8,
            "scalar(id=2,smin=umin=1,smax=umax=0x100000000,var_off=(0x0; 0x1ffffffff))",
            id="32 bits do not feed 64",
        ),
        pytest.param(
            "w6 = w0\nw7 = w6\nw7 += 1\nr8 = r6\nr8 += 2\nif r8 > 10 goto +0\nr0 = r7\nexit",
            7,
            "scalar(id=2,smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
            id="64 bits do not feed 32",
        ),
        pytest.param(
            "r8 = r0\nw8 += 1\nif r0 > 10 goto +1\nr0 = r8\nr0 = 0\nexit",
            8,
            "scalar(id=2,smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
            id="a 32-bit sum of a wider number is linked to nothing",
        ),
        pytest.param(
            "r6 = r0\nw7 = 8\nr6 -= r7\nif r0 > 10 goto +1\nr1 = r6\nr0 = 0\nexit",
            6,
            "scalar(id=2,smin=smin32=-8,smax=smax32=2)",
            id="a known register",
        ),
        pytest.param(
            "r6 = r0\nr6 += -4\nif r6 s< 0 goto +2\nr1 = r0\ngoto +0\nr0 = 0\nexit",
            0,
            "scalar(id=1,umin=4,umax=0x8000000000000003)",
            id="a negative constant",
        ),
        pytest.param(
            "r6 = r0\nr6 -= -2147483648\nif r0 > 10 goto +1\nr1 = r6\nr0 = 0\nexit",
            6,
            "scalar(id=2)",
            id="a constant whose negative does not fit",
        ),
        pytest.param(
            "r6 = r0\nr6 -= 3\nr6 -= 3\nif r0 > 10 goto +1\nr1 = r6\nr0 = 0\nexit",
            6,
            "scalar(id=2)",
            id="a second sum cuts the link",
        ),
        pytest.param(
            "r6 = r0\nr6 += r6\nif r0 > 10 goto +1\nr1 = r6\nr0 = 0\nexit",
            6,
            "scalar(id=2)",
            id="a sum with itself cuts the link",
        ),
        pytest.param(
            "r6 = r0\nr6 = be16 r6\nif r0 > 10 goto +1\nr1 = r6\nr0 = 0\nexit",
            6,
            "scalar(id=2,smin=smin32=0,smax=umax=smax32=umax32=0xffff,var_off=(0x0; 0xffff))",
            id="a byte swap cuts the link",
        ),
    ],
)
def test_a_branch_teaches(text: str, regno: int, seen: str, kernel: str) -> None:
    assert state_of(text, regno, kernel) == seen


MANY = """
w6 = w0
r1 = r6
r2 = r6
{dead}
r7 = r6
r8 = r6
*(u64 *)(r10 - 8) = r6
*(u64 *)(r10 - 16) = r6
if r6 > 10 goto +7
r0 = r1
r0 = r2
r0 = r6
r0 = r7
r0 = r8
r3 = *(u64 *)(r10 - 8)
r4 = *(u64 *)(r10 - 16)
r0 = 0
exit
"""


@pytest.mark.parametrize(("kernel", "followed"), [("6.18", 6), ("7.3", 5)])
@pytest.mark.parametrize("dead", ["", "r3 = r6\nr4 = r6\nr5 = r6"], ids=["", "unread"])
def test_how_many_follow_a_branch(kernel: str, followed: int, dead: str) -> None:
    log = check(RANDOM + MANY.format(dead=dead), kernel=kernel, log_level=2).log
    reads = [x for x in log.splitlines() if re.search(r" r0 = r[12678] | r[34] = \*", x)][-7:]
    known = [line for line in reads if "umax32=10," in line]
    assert len(reads) == 7
    assert len(known) == followed
    # Those beyond lose their class, and a fill gives them no other.
    assert "R4=scalar(smin=0,smax=umax=0xffffffff," in reads[-1]
