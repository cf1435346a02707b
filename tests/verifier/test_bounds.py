"""Scalars: members are kept, and the log's text is the kernel's."""

from __future__ import annotations

import random

import pytest
from domain_kit import parse, samples, values

from bpfvm.bits import S32_MAX, S32_MIN, S64_MIN, U32_MAX, U64_MAX, sext
from verifier import bounds
from verifier.bounds import UNKNOWN, ZERO, Scalar, const, contains, sync, unbounded
from verifier.tnum import Tnum


def test_a_constant_holds_itself_alone() -> None:
    rng = random.Random(1)
    for x in [values(rng) for _ in range(500)]:
        s = const(x)
        assert contains(s, x)
        assert not contains(s, x + 1)
        assert bounds.var_off(s) == Tnum(x, 0)
        assert not bounds.is_broken(s)
        assert sync(s) == s


def test_sync_keeps_members_and_is_done_at_once() -> None:
    rng = random.Random(2)
    for s, members in samples(3000):
        loose = Scalar(*(UNKNOWN[i] if i > 1 and rng.random() < 0.5 else s[i] for i in range(10)))
        tight = sync(loose)
        assert all(contains(tight, x) for x in members)
        assert sync(tight) == tight
        assert not bounds.is_broken(tight)


def test_narrowing_keeps_members() -> None:
    for s, members in samples(2000):
        low = sync(bounds.zext32(s))
        cut = {size: bounds.coerce_to_size(s, size) for size in (1, 2, 4)}
        wide = {size: bounds.sign_extend(s, size, 64) for size in (1, 2, 4)}
        narrow = {size: bounds.sign_extend(s, size, 32) for size in (1, 2)}
        for x in members:
            assert contains(low, x & U32_MAX)
            assert all(contains(r, x & (1 << 8 * size) - 1) for size, r in cut.items())
            assert all(contains(r, sext(x, 8 * size)) for size, r in wide.items())
            assert all(contains(r, sext(x, 8 * size) & U32_MAX) for size, r in narrow.items())


def test_range_within_is_an_order() -> None:
    for (old, _), (cur, members) in zip(samples(3000, 1), samples(3000, 2), strict=True):
        assert bounds.range_within(old, old)
        assert bounds.range_within(UNKNOWN, cur)
        if bounds.range_within(old, cur):
            assert all(contains(old, x) for x in members)
            assert bounds.range_within(cur, old) == (cur == old)


def test_what_a_range_says_of_the_other_views() -> None:
    # A 64-bit range inside one high half is a range of the low half.
    s = sync(unbounded(0, U64_MAX)._replace(umin=0x100000005, umax=0x100000009))
    assert (s.u32_min, s.u32_max, s.s32_min, s.s32_max) == (5, 9, 5, 9)
    assert (s.smin, s.smax) == (0x100000005, 0x100000009)
    assert bounds.var_off(s) == Tnum(0x100000000, 0xF)
    # From -2 to 3: two high halves that follow each other.
    s = sync(unbounded(0, U64_MAX)._replace(smin=-2, smax=3))
    assert (s.s32_min, s.s32_max, s.umin, s.umax) == (-2, 3, 0, U64_MAX)
    # Signed crosses zero and unsigned keeps to one side of it.
    s = sync(unbounded(0, U64_MAX)._replace(smin=-2, smax=3, umin=2, umax=100))
    assert (s.smin, s.smax, s.umin, s.umax) == (2, 3, 2, 3)
    s = sync(unbounded(0, U64_MAX)._replace(smin=-5, smax=3, umin=10))
    assert (s.smin, s.smax, s.umin) == (-5, -1, U64_MAX - 4)
    # The same in 32 bits.
    s = sync(unbounded(0, U64_MAX)._replace(s32_min=-1, s32_max=15, u32_min=15, u32_max=0xFFFFFF0F))
    assert (s.s32_min, s.s32_max, s.u32_min, s.u32_max) == (15, 15, 15, 15)
    # A sign-extended number whose low half is not negative.
    s = sync(UNKNOWN._replace(smin=S32_MIN, smax=S32_MAX, s32_min=0, s32_max=7))
    assert (s.umin, s.umax, s.mask) == (0, 7, 7)


def test_a_range_that_holds_one_member_of_the_tnum_is_that_value() -> None:
    every_16 = unbounded(3, U64_MAX & ~15)
    assert sync(every_16._replace(umin=20, umax=40)) == const(35)
    assert sync(every_16._replace(umin=35, umax=50)) == const(35)
    assert sync(unbounded(0, 0x30)._replace(umin=0x21)) == const(0x30)
    assert sync(every_16._replace(umin=20, umax=51)).mask


def test_contradictions_are_found_and_reset() -> None:
    for broken in (
        UNKNOWN._replace(umin=5, umax=4),
        UNKNOWN._replace(smin=5, smax=4),
        UNKNOWN._replace(u32_min=5, u32_max=4),
        UNKNOWN._replace(s32_min=5, s32_max=4),
        const(7)._replace(umin=6),
        const(7)._replace(smax=8),
        UNKNOWN._replace(value=7, mask=U64_MAX & ~U32_MAX),
    ):
        assert bounds.is_broken(broken)
        assert bounds.reset_if_broken(broken) == unbounded(broken.value, broken.mask)
        assert not bounds.is_broken(bounds.settle(broken))
    assert bounds.reset_if_broken(ZERO) is ZERO


def test_unknown() -> None:
    assert sync(UNKNOWN) == UNKNOWN
    assert sync(unbounded(0, 0xFF)).umax == 0xFF
    assert not bounds.is_u32(UNKNOWN)
    assert bounds.is_u32(const(U32_MAX))
    assert not bounds.is_u32(const(U32_MAX + 1))
    assert bounds.UNKNOWN.smin == S64_MIN


#: Printed by Linux 6.18.44.
KERNEL_TEXTS = [
    "0",
    "-1",
    "-32768",
    "0xffffffffffff7fff",
    "32767",
    "0x8000",
    "scalar()",
    "scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
    "scalar(smax=0x7ffffffffffffffe,umax=0xfffffffffffffffe,umax32=0xfffffffe)",
    "scalar(smin=umin=256,smax=umax=0xffffffff00,smax32=0x7fffff00,umax32=0xffffff00,"
    "var_off=(0x0; 0xffffffff00))",
    "scalar(smin=smin32=0,smax=umax=smax32=umax32=999,var_off=(0x0; 0x3ff))",
    "scalar(smin=umin=smin32=umin32=0x80000100,smax=umax=smax32=umax32=0x800002ff,"
    "var_off=(0x80000000; 0x300))",
    "scalar(smin=0,smax=umax=0xffffffff,smin32=-2,smax32=0,var_off=(0x0; 0xffffffff))",
    "scalar(umin=1)",
    "scalar(smin=smin32=-8,smax=smax32=247)",
    "scalar(smax=smax32=umax32=0,umax=0xffffffff00000000,smin32=0,"
    "var_off=(0x0; 0xffffffff00000000))",
    "scalar(smin=0x8000000080000000,smax=0x7fffffffffffff0f,umin=umin32=0x80000000,"
    "umax=0xffffffffffffff0f,smax32=-241,umax32=0xffffff0f,"
    "var_off=(0x80000000; 0xffffffff7fffffff))",
]


@pytest.mark.parametrize("text", KERNEL_TEXTS)
def test_text_is_the_kernels(text: str) -> None:
    s = parse(text)
    assert bounds.scalar_text(s) == text
    assert sync(s) == s


def test_numbers_print_as_in_the_kernel() -> None:
    assert bounds.snum_text(U64_MAX) == "-1"
    assert bounds.snum_text(40000) == "0x9c40"
    assert bounds.unum_text(40000) == "40000"
    assert bounds.unum_text(65536) == "0x10000"
    assert bounds.var_off_text(const(5)) == "5"
