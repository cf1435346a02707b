"""Tnums: exhaustively over all of four bits, at both ends of the word, and the kernel's vectors."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterator
from itertools import product

import pytest
from domain_kit import values

from bpfvm.bits import U64_MAX, bswap, s32, s64
from verifier import tnum
from verifier.tnum import UNKNOWN, Tnum

BITS = 4
SMALL = [Tnum(v, m) for m in range(1 << BITS) for v in range(1 << BITS) if not v & m]


def members(t: Tnum) -> Iterator[int]:
    """Yield every member of *t* (few unknown bits, please)."""
    part = t.mask
    while True:
        yield t.value | part
        if not part:
            return
        part = part - 1 & t.mask


def tnums(rng: random.Random) -> Tnum:
    mask = values(rng)
    return Tnum(values(rng) & ~mask, mask)


@pytest.mark.parametrize("shift", [0, 30, 60], ids=["low", "middle", "top"])
@pytest.mark.parametrize(
    ("abstract", "concrete", "is_exact"),
    [
        (tnum.add, operator.add, False),
        (tnum.sub, operator.sub, False),
        (tnum.mul, operator.mul, False),
        (tnum.and_, operator.and_, True),
        (tnum.or_, operator.or_, True),
        (tnum.xor, operator.xor, True),
    ],
)
def test_operations_hold_every_result(
    abstract: Callable[[Tnum, Tnum], Tnum],
    concrete: Callable[[int, int], int],
    is_exact: bool,
    shift: int,
) -> None:
    for a, b in product(SMALL, SMALL):
        a, b = tnum.lshift(a, shift), tnum.lshift(b, shift)
        result = abstract(a, b)
        assert not result.value & result.mask
        got = {concrete(x, y) & U64_MAX for x in members(a) for y in members(b)}
        assert all(tnum.contains(result, x) for x in got), (a, b, result)
        if is_exact:
            assert got == set(members(result))


def test_add_and_sub_lose_no_bit_that_is_the_same_in_every_result() -> None:
    for a, b in product(SMALL, SMALL):
        for abstract, concrete in ((tnum.add, operator.add), (tnum.sub, operator.sub)):
            got = [concrete(x, y) & U64_MAX for x in members(a) for y in members(b)]
            best = tnum.const(got[0])
            for x in got:
                best = tnum.union(best, tnum.const(x))
            assert abstract(a, b) == best


def test_shifts_are_exact() -> None:
    for t in SMALL:
        for shift in range(6):
            assert set(members(tnum.lshift(t, shift))) == {x << shift for x in members(t)}
            assert set(members(tnum.rshift(t, shift))) == {x >> shift for x in members(t)}
            top = tnum.lshift(t, 60)
            moved = tnum.arshift(top, shift, 64)
            assert all(tnum.contains(moved, s64(x) >> shift) for x in members(top))
            low = tnum.lshift(t, 28)
            moved = tnum.arshift(low, shift, 32)
            assert moved.value | moved.mask < 1 << 32
            got = {(s32(x) >> shift) & 0xFFFFFFFF for x in members(low)}
            assert got <= set(members(moved))


def test_neg_holds_every_negative() -> None:
    for t in SMALL:
        assert all(tnum.contains(tnum.neg(t), -x) for x in members(t))


def test_sets() -> None:
    for a, b in product(SMALL, SMALL):
        both, either = set(members(a)) & set(members(b)), set(members(a)) | set(members(b))
        assert tnum.overlap(a, b) == bool(both)
        assert tnum.is_in(a, b) == (set(members(b)) <= set(members(a)))
        assert either <= set(members(tnum.union(a, b)))
        if both:
            assert set(members(tnum.intersect(a, b))) == both


def test_range_is_the_smallest_tnum_around_it() -> None:
    for low in range(20):
        for high in range(low, 20):
            t = tnum.range_(low, high)
            assert set(range(low, high + 1)) <= set(members(t))
            best = tnum.const(low)
            for x in range(low, high + 1):
                best = tnum.union(best, tnum.const(x))
            assert t == best
    assert tnum.range_(-1, 0) == UNKNOWN
    assert tnum.range_(-8, -5) == Tnum(-8 & U64_MAX, 3)


def test_next_member() -> None:
    for t in SMALL:
        ordered = sorted(members(t))
        for x in range(1 << BITS):
            above = [y for y in ordered if y > x]
            assert tnum.next_member(t, x) == (above[0] if above else ordered[-1])


def test_operations_hold_sampled_results_of_whole_words() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        a, b, pick, other = tnums(rng), tnums(rng), values(rng), values(rng)
        x, y = a.value | pick & a.mask, b.value | other & b.mask
        assert tnum.contains(a, x)
        assert tnum.contains(tnum.add(a, b), x + y)
        assert tnum.contains(tnum.sub(a, b), x - y)
        assert tnum.contains(tnum.mul(a, b), x * y)
        assert tnum.contains(tnum.neg(a), -x)
        assert tnum.contains(tnum.union(a, b), x)
        assert tnum.contains(tnum.union(a, b), y)
        assert tnum.contains(tnum.subreg(a), x & 0xFFFFFFFF)
        assert tnum.contains(tnum.with_subreg(a, b), x >> 32 << 32 | y & 0xFFFFFFFF)
        for bits in (16, 32, 64):
            assert tnum.contains(tnum.byte_swap(a, bits), bswap(x, bits))


def test_laws() -> None:
    rng = random.Random(2)
    for _ in range(2000):
        a, b, c = tnums(rng), tnums(rng), tnums(rng)
        for op in (tnum.add, tnum.and_, tnum.or_, tnum.xor, tnum.union, tnum.intersect):
            assert op(a, b) == op(b, a)
        for same in (tnum.and_, tnum.or_, tnum.union, tnum.intersect):
            assert same(a, a) == a
        assert tnum.is_in(a, a)
        assert tnum.is_in(UNKNOWN, a)
        assert tnum.is_in(tnum.union(a, b), a)
        if tnum.is_in(a, b) and tnum.is_in(b, a):
            assert a == b
        if tnum.is_in(a, b) and tnum.is_in(b, c):
            assert tnum.is_in(a, c)
        wider = tnum.union(a, c)
        for monotone in (tnum.add, tnum.sub, tnum.and_, tnum.or_, tnum.xor):
            assert tnum.is_in(monotone(wider, b), monotone(a, b))


def test_is_aligned() -> None:
    assert tnum.is_aligned(tnum.const(24), 8)
    assert not tnum.is_aligned(tnum.const(20), 8)
    assert tnum.is_aligned(Tnum(0, 0xF8), 8)
    assert not tnum.is_aligned(Tnum(0, 0xFC), 8)
    assert tnum.is_aligned(UNKNOWN, 1)


@pytest.mark.parametrize(
    ("t", "text"),
    [
        (tnum.const(0), "0"),
        (tnum.const(65535), "65535"),
        (tnum.const(65536), "0x10000"),
        (tnum.const(-1), "0xffffffffffffffff"),
        (Tnum(0, 0xFF), "(0x0; 0xff)"),
        (Tnum(0x10, 0xF), "(0x10; 0xf)"),
    ],
)
def test_text(t: Tnum, text: str) -> None:
    assert tnum.text(t) == text
