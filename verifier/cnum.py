"""Circular ranges: the values met when counting up from a base, round the end of the word too
(kernel: struct cnum64, cnum32).

A range (base, size) holds base, base + 1, ..., base + size, all modulo 2**W. The functions serve
both widths: *ones* is 2**W - 1. A constant has size 0, the full range is (0, ones), and no range
is empty: where a result can be, it is None. Functions are pure, and sound: a result holds the
result for every choice of members.
"""

from __future__ import annotations

from verifier.width import U32_MAX, U64_MAX

__all__ = [
    "Cnum",
    "add",
    "contains",
    "cut_by_low",
    "from_range",
    "intersect",
    "is_in",
    "low_half",
    "neg",
    "of_tnum",
    "sub",
]

#: Base and size.
Cnum = tuple[int, int]


def from_range(low: int, high: int, ones: int) -> Cnum:
    """Return [low, high], both signed or both unsigned; an unsigned *low* above *high* wraps."""
    size = high - low & ones
    return (0, ones) if size == ones else (low & ones, size)


def contains(a: Cnum, x: int, ones: int) -> bool:
    """Return whether *x* (mod 2**W) is a member."""
    return x - a[0] & ones <= a[1]


def is_in(outer: Cnum, inner: Cnum, ones: int) -> bool:
    """Return whether every member of *inner* is one of *outer* (kernel: cnum_is_subset)."""
    return outer[1] == ones or (inner[0] - outer[0] & ones) + inner[1] <= outer[1]


def add(a: Cnum, b: Cnum, ones: int) -> Cnum:
    """Return all sums."""
    size = a[1] + b[1]
    return (a[0] + b[0] & ones, size) if size < ones else (0, ones)


def neg(a: Cnum, ones: int) -> Cnum:
    """Return all negatives."""
    return (-(a[0] + a[1]) & ones, a[1]) if a[1] != ones else a


def sub(a: Cnum, b: Cnum, ones: int) -> Cnum:
    """Return all differences."""
    size = a[1] + b[1]
    return (a[0] - b[0] - b[1] & ones, size) if size < ones else (0, ones)


def intersect(a: Cnum, b: Cnum, ones: int) -> Cnum | None:
    """Return a range around the members of both.

    Two ranges can overlap at both ends; one range can't tell that, and the shorter of the two is
    what remains (kernel: cnum_intersect).
    """
    if a[0] > b[0]:
        a, b = b, a
    base, size = a
    other, other_size = b
    ahead = other - base
    past = ahead + other_size - ones - 1
    if past >= 0:  # b runs on to a's base
        if ahead <= size:
            return b if other_size < size else a
        return base, size if size < past else past
    if ahead > size:
        return None
    size -= ahead
    return other, size if size < other_size else other_size


def low_half(a: Cnum) -> Cnum:
    """Return the low halves of a range of whole words (kernel: cnum32_from_cnum64)."""
    return (a[0] & U32_MAX, a[1]) if a[1] < U32_MAX else (0, U32_MAX)


def cut_by_low(a: Cnum, low: Cnum) -> Cnum | None:
    """Return *a*, whole words, without what stands at its ends and has no low half in *low*.

    kernel: cnum64_cnum32_intersect. Counted from a's base, *low* begins at *first* and ends at
    *last*.
    """
    base, size = a
    first = low[0] - base & U32_MAX
    last = first + low[1]
    end = size & U32_MAX
    if last > U32_MAX:
        last -= U32_MAX + 1
        if last < end < first:
            size -= end - last
        return base, size
    if size < first:
        return None
    base, size = base + first, size - first
    if end < first:
        size -= end + U32_MAX + 1 - last
    elif end > last:
        size -= end - last
    return None if size < 0 else (base & U64_MAX, size)


def of_tnum(value: int, mask: int, sign: int) -> Cnum:
    """Return the range around a tnum's members; *sign* is the sign bit.

    With an unknown sign bit it is a signed range, from the least negative member on.
    """
    return value | mask & sign, mask
