"""Order, joins, idempotence: the laws that pruning and merging rest on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfvm.bits import S64_MAX, S64_MIN, U32_MAX, U64_MAX
from verifier import bounds, cnum, tnum
from verifier.bounds import Scalar, range_within
from verifier.cnum import Cnum
from verifier.cnum_bounds import pack, resync
from verifier.tnum import Tnum

pytestmark = pytest.mark.property

WORDS = st.one_of(
    st.integers(0, U64_MAX),
    st.integers(0, 40),
    st.sampled_from((1 << 31, U32_MAX, 1 << 32, S64_MAX, 1 << 63, U64_MAX)),
)
TNUMS = st.builds(lambda v, m: Tnum(v & ~m, m), WORDS, WORDS)
RANGES = st.builds(lambda b, s: (0, U64_MAX) if s == U64_MAX else (b, s), WORDS, WORDS)
LOW_RANGES = st.builds(
    lambda b, s: (0, U32_MAX) if s & U32_MAX == U32_MAX else (b & U32_MAX, s & U32_MAX),
    WORDS,
    WORDS,
)


def _ranges(t: Tnum, u: list[int], s: list[int]) -> Scalar:
    """Return a scalar of 6.18's domain that holds at least the first of *u* and what is like it."""
    low, high = sorted(u)
    least, most = sorted(s)
    return bounds.settle(bounds.unbounded(*t)._replace(umin=low, umax=high, smin=least, smax=most))


OLD = st.builds(
    _ranges,
    TNUMS,
    st.lists(WORDS, min_size=2, max_size=2),
    st.lists(st.integers(S64_MIN, S64_MAX), min_size=2, max_size=2),
)
NEW = st.builds(
    lambda t, wide, low: resync(pack(t.value, t.mask, wide, low)), TNUMS, RANGES, LOW_RANGES
)
SCALARS = st.one_of(OLD, NEW)


@given(TNUMS, TNUMS, TNUMS)
def test_tnums_are_ordered_and_joined(a: Tnum, b: Tnum, c: Tnum) -> None:
    joined, met = tnum.union(a, b), tnum.intersect(a, b)
    assert joined == tnum.union(b, a)
    assert met == tnum.intersect(b, a)
    assert tnum.union(a, a) == tnum.intersect(a, a) == a
    assert tnum.union(joined, c) == tnum.union(a, tnum.union(b, c))
    assert tnum.is_in(joined, a)
    assert tnum.is_in(joined, b)
    assert tnum.union(joined, a) == joined
    if tnum.overlap(a, b):
        assert tnum.is_in(a, met)
        assert tnum.is_in(b, met)
        assert tnum.union(a, met) == a
    assert tnum.is_in(a, b) == (tnum.union(a, b) == a)


@given(RANGES, RANGES, RANGES)
def test_circular_ranges_are_ordered(a: Cnum, b: Cnum, c: Cnum) -> None:
    assert cnum.is_in(a, a, U64_MAX)
    assert cnum.intersect(a, a, U64_MAX) == a
    if cnum.is_in(a, b, U64_MAX) and cnum.is_in(b, c, U64_MAX):
        assert cnum.is_in(a, c, U64_MAX)
    if cnum.is_in(a, b, U64_MAX):
        assert cnum.intersect(a, b, U64_MAX) == b
        assert not cnum.is_in(b, a, U64_MAX) or a == b
    both = cnum.intersect(a, b, U64_MAX)
    assert both == cnum.intersect(b, a, U64_MAX)
    assert both is None or cnum.is_in(a, both, U64_MAX) or cnum.is_in(b, both, U64_MAX)


@given(RANGES, RANGES)
def test_sums_of_circular_ranges(a: Cnum, b: Cnum) -> None:
    assert cnum.neg(cnum.neg(a, U64_MAX), U64_MAX) == a
    assert cnum.add(a, b, U64_MAX) == cnum.add(b, a, U64_MAX)
    assert cnum.sub(a, b, U64_MAX) == cnum.add(a, cnum.neg(b, U64_MAX), U64_MAX)


@pytest.mark.parametrize(
    "op", [tnum.add, tnum.sub, tnum.and_, tnum.or_, tnum.xor], ids=lambda op: op.__name__
)
@given(a=TNUMS, b=TNUMS, wider=TNUMS)
def test_a_wider_tnum_gives_a_wider_result(
    op: Callable[[Tnum, Tnum], Tnum], a: Tnum, b: Tnum, wider: Tnum
) -> None:
    assert tnum.is_in(op(tnum.union(a, wider), b), op(a, b))


@given(SCALARS, SCALARS, SCALARS, WORDS)
def test_scalars_are_ordered(a: Scalar, b: Scalar, c: Scalar, x: int) -> None:
    assert range_within(a, a)
    assert range_within(bounds.UNKNOWN, a)
    if range_within(a, b):
        assert bounds.contains(a, x) or not bounds.contains(b, x)
        assert not range_within(b, a) or a == b
        assert not range_within(b, c) or range_within(a, c)


@given(NEW)
def test_ranges_pack_and_unpack(s: Scalar) -> None:
    assert pack(s.value, s.mask, bounds.range64(s), bounds.range32(s)) == s


@given(OLD)
def test_what_is_settled_is_whole(s: Scalar) -> None:
    assert not bounds.is_broken(s)
    assert not bounds.is_broken(bounds.settle(s))
