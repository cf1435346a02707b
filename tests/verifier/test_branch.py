"""Branches on scalars: never a wrong prediction, no member lost, and what the kernel learns."""

from __future__ import annotations

import random

import pytest
from domain_kit import compare, parse, samples, values

from bpfvm.isa import JmpOp
from verifier import bounds, branch
from verifier.bounds import UNKNOWN, const, contains

WIDTHS = (32, 64)


@pytest.mark.parametrize("op", JmpOp)
@pytest.mark.parametrize("width", WIDTHS)
def test_a_prediction_is_right_and_refinement_keeps_what_goes_its_way(
    op: JmpOp, width: int
) -> None:
    predicted = 0
    for (left, xs), (right, ys) in zip(samples(500, 1), samples(500, 2), strict=True):
        always = branch.is_taken(op, width, left, right)
        predicted += always is not None
        ways = {t: branch.refine(op, width, left, right, t) for t in (True, False)}
        for x in xs:
            for y in ys:
                taken = compare(op, width, x, y)
                assert always is None or always == taken
                new_left, new_right = ways[taken]
                assert contains(new_left, x)
                assert contains(new_right, y)
    assert predicted > 50


@pytest.mark.parametrize("op", JmpOp)
def test_one_register_on_both_sides(op: JmpOp) -> None:
    for s, members in samples(300):
        for width in WIDTHS:
            always = branch.is_taken(op, width, s, s)
            for x in members:
                taken = compare(op, width, x, x)
                assert always is None or always == taken
                assert contains(branch.refine_same(op, width, s, taken), x)


@pytest.mark.parametrize("op", JmpOp)
def test_constants_are_predicted(op: JmpOp) -> None:
    rng = random.Random(1)
    for _ in range(200):
        x, y = values(rng), values(rng)
        for width in WIDTHS:
            assert branch.is_taken(op, width, const(x), const(y)) == compare(op, width, x, y)


def test_a_forgotten_bit_stays_forgotten() -> None:
    s, _ = branch.refine(JmpOp.JSET, 64, UNKNOWN, const(3), False)
    assert bounds.var_off_text(s) == "(0x0; 0xfffffffffffffffc)"
    s, _ = branch.refine(JmpOp.JSET, 64, UNKNOWN, const(4), True)
    assert s.value == 4
    s, _ = branch.refine(JmpOp.JSET, 64, UNKNOWN, const(6), True)
    assert s == UNKNOWN
    s, _ = branch.refine(JmpOp.JSET, 32, UNKNOWN, const(-1), False)
    assert (s.u32_min, s.u32_max) == (0, 0)


def test_an_end_moves_when_its_value_is_excluded() -> None:
    s, _ = branch.refine(JmpOp.JNE, 64, UNKNOWN, const(0), True)
    assert bounds.scalar_text(s) == "scalar(umin=1)"
    s, _ = branch.refine(JmpOp.JEQ, 64, UNKNOWN, const(0), False)
    assert bounds.scalar_text(s) == "scalar(umin=1)"
    _, s = branch.refine(JmpOp.JNE, 32, const(-1), UNKNOWN, True)
    assert s.u32_max == 0xFFFFFFFE


def test_one_register_below_itself() -> None:
    assert branch.is_taken(JmpOp.JLT, 64, UNKNOWN, UNKNOWN) is None
    s = branch.refine_same(JmpOp.JLT, 64, UNKNOWN, True)
    assert (s.umin, s.umax) == (1, 2**64 - 2)
    assert branch.refine_same(JmpOp.JGE, 64, UNKNOWN, True) == UNKNOWN
    assert branch.refine_same(JmpOp.JGE, 64, UNKNOWN, False) == s


U32 = "scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))"

#: (op, width, left, right, left and right after the fall-through), printed by Linux 6.18.44.
KERNEL_FALL = [
    (
        JmpOp.JGE,
        32,
        "scalar()",
        U32,
        "scalar(smax=0x7ffffffffffffffe,umax=0xfffffffffffffffe,umax32=0xfffffffe)",
        "scalar(smin=umin=umin32=1,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
    ),
    (
        JmpOp.JGT,
        32,
        "scalar(smax=0x7ffffffffffffffe,umax=0xfffffffffffffffe,umax32=0xfffffffe)",
        "2",
        "scalar(smax=0x7fffffff00000002,umax=0xffffffff00000002,smin32=0,smax32=umax32=2,"
        "var_off=(0x0; 0xffffffff00000003))",
        "2",
    ),
    (
        JmpOp.JSGE,
        64,
        "scalar(smin=umin=256,smax=umax=0xff7fffff00,smin32=umin32=256,smax32=umax32=0x7fffff00,"
        "var_off=(0x0; 0xff7fffff00))",
        "scalar(smin=smin32=0,smax=umax=smax32=umax32=999,var_off=(0x0; 0x3ff))",
        "scalar(smin=umin=smin32=umin32=256,smax=umax=smax32=umax32=768,var_off=(0x0; 0x300))",
        "scalar(smin=umin=smin32=umin32=257,smax=umax=smax32=umax32=999,var_off=(0x0; 0x3ff))",
    ),
    (
        JmpOp.JLT,
        32,
        "scalar(smin=0x8000000080000000,smax=0x7fffffffffffff0f,umin=umin32=0x80000000,"
        "umax=0xffffffffffffff0f,smax32=-241,umax32=0xffffff0f,"
        "var_off=(0x80000000; 0xffffffff7fffffff))",
        "scalar(smin=umin=umin32=15,smax=umax=0xffffffff,smin32=-1,smax32=15,"
        "var_off=(0xf; 0xfffffff0))",
        "scalar(smin=0x8000000080000000,smax=0x7fffffffffffff0f,umin=umin32=0x80000000,"
        "umax=0xffffffffffffff0f,smax32=-241,umax32=0xffffff0f,"
        "var_off=(0x80000000; 0xffffffff7fffffff))",
        "15",
    ),
    (
        JmpOp.JSET,
        32,
        "scalar(smax=0x7fffffff00000003,umin=1,umax=0xffffffff00000003,smin32=0,smax32=umax32=3,"
        "var_off=(0x0; 0xffffffff00000003))",
        "3",
        "scalar(smax=0x7fffffff00000000,umax=0xffffffff00000000,smin32=0,smax32=umax32=0,"
        "var_off=(0x0; 0xffffffff00000000))",
        "3",
    ),
    (
        JmpOp.JNE,
        32,
        "scalar()",
        "-2",
        "scalar(smin=0x80000000fffffffe,smax=0x7ffffffffffffffe,umin=umin32=0xfffffffe,"
        "umax=0xfffffffffffffffe,smin32=-2,smax32=-2,umax32=0xfffffffe,"
        "var_off=(0xfffffffe; 0xffffffff00000000))",
        "-2",
    ),
]


@pytest.mark.parametrize(("op", "width", "left", "right", "new_left", "new_right"), KERNEL_FALL)
def test_what_the_kernel_learns_on_the_fall_through(
    op: JmpOp, width: int, left: str, right: str, new_left: str, new_right: str
) -> None:
    got = branch.refine(op, width, parse(left), parse(right), False)
    assert tuple(map(bounds.scalar_text, got)) == (new_left, new_right)
