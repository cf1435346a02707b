"""What is known of a number from Linux 7.3 on: a tnum and a circular range of either width.

A `Scalar` of this domain offers the same eight ends as one of 6.18's, for printing and for checks;
they are derived from the two ranges, and `bounds.range64`, `bounds.range32` give these back. A
range that wraps in one sign has no ends there, and one that wraps in both is kept in its gap field.
Each function here is sound: it keeps every member.
"""

from __future__ import annotations

from functools import lru_cache

from verifier import bounds, cnum, tnum
from verifier.bounds import Scalar, const, range32, range64, unbounded
from verifier.cnum import Cnum
from verifier.tnum import Tnum
from verifier.width import (
    BYTE,
    HALF,
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    SIGN32,
    SIGN64,
    U32_MAX,
    U64_MAX,
    WIDE,
    sext,
)

__all__ = [
    "FULL32",
    "FULL64",
    "coerce_to_size",
    "pack",
    "resync",
    "settle",
    "settle32",
    "sign_extend",
    "sync",
    "zext32",
]

FULL64: Cnum = (0, U64_MAX)
FULL32: Cnum = (0, U32_MAX)


def pack(value: int, mask: int, wide: Cnum, low: Cnum) -> Scalar:
    """Return the scalar of a tnum and two ranges, with the ends that follow from them.

    Ends of a range that wraps in a sign are that sign's least and greatest number.
    """
    smin, smax, umin, umax, gap64 = S64_MIN, S64_MAX, 0, U64_MAX, 0
    base, size = wide
    end = base + size
    if end <= U64_MAX:
        umin, umax = base, end
        if base >= SIGN64 or end < SIGN64:
            smin, smax = (base ^ SIGN64) - SIGN64, (end ^ SIGN64) - SIGN64
    elif base >= SIGN64 and end - U64_MAX <= SIGN64:
        smin, smax = base - U64_MAX - 1, end - U64_MAX - 1
    elif size != U64_MAX:
        gap64 = base << WIDE | size
    s32_min, s32_max, u32_min, u32_max, gap32 = S32_MIN, S32_MAX, 0, U32_MAX, 0
    base, size = low
    end = base + size
    if end <= U32_MAX:
        u32_min, u32_max = base, end
        if base >= SIGN32 or end < SIGN32:
            s32_min, s32_max = (base ^ SIGN32) - SIGN32, (end ^ SIGN32) - SIGN32
    elif base >= SIGN32 and end - U32_MAX <= SIGN32:
        s32_min, s32_max = base - U32_MAX - 1, end - U32_MAX - 1
    elif size != U32_MAX:
        gap32 = base << HALF | size
    return Scalar(
        value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max, gap64, gap32
    )


@lru_cache(maxsize=1 << 14)  # the same insn sees the same scalars on many paths
def sync(value: int, mask: int, wide: Cnum | None, low: Cnum | None) -> Scalar | None:
    """Return the scalar whose tnum and ranges have tightened each other; None if it has no member.

    kernel: reg_bounds_sync, in its order: ranges by the tnum; ranges by each other, two rounds;
    the tnum by the ranges; ranges by the tnum. The tnum's only member in the range is the value.
    """
    if (ranges := _by_tnum(value, mask, wide, low)) is None:
        return None
    if not mask:
        return const(value)
    if (only := _only_member(value, mask, ranges[0])) is not None:
        return const(only)
    for _ in range(2):
        if (ranges := _by_each_other(*ranges)) is None:
            return None
    value, mask = _tnum_by_ranges(value, mask, *ranges)
    if (ranges := _by_tnum(value, mask, *ranges)) is None:
        return None
    if not mask:
        return const(value)
    if (only := _only_member(value, mask, ranges[0])) is not None:
        return const(only)
    return pack(value, mask, *ranges)


# The steps of `sync`


def _by_tnum(
    value: int, mask: int, wide: Cnum | None, low: Cnum | None
) -> tuple[Cnum, Cnum] | None:
    """Tighten the ranges by the tnum (kernel: __update_reg_bounds)."""
    if wide is None or low is None:
        return None
    low = cnum.intersect(low, cnum.of_tnum(value & U32_MAX, mask & U32_MAX, SIGN32), U32_MAX)
    wide = cnum.intersect(wide, cnum.of_tnum(value, mask, SIGN64), U64_MAX)
    return None if wide is None or low is None else (wide, low)


def _only_member(value: int, mask: int, wide: Cnum) -> int | None:
    """Return the member of the tnum in the unsigned range where it is seen to be the only one."""
    base, size = wide
    end = base + size
    if end > U64_MAX:
        base, end = 0, U64_MAX
    return bounds.only_member(value, mask, base, end)


def _by_each_other(wide: Cnum, low: Cnum) -> tuple[Cnum, Cnum] | None:
    """Tighten each range by the other (kernel: deduce_bounds_32_from_64, .._64_from_32)."""
    narrowed = cnum.intersect(low, cnum.low_half(wide), U32_MAX)
    if narrowed is None:
        return None
    cut = cnum.cut_by_low(wide, narrowed)
    return None if cut is None else (cut, narrowed)


def _tnum_by_ranges(value: int, mask: int, wide: Cnum, low: Cnum) -> Tnum:
    """Tighten the tnum by the unsigned ends (kernel: __reg_bound_offset)."""
    whole = Tnum(value, mask)
    base, size = wide
    if base + size <= U64_MAX:
        whole = tnum.intersect(whole, tnum.range_(base, base + size))
    base, size = low
    if base + size > U32_MAX:
        return whole
    half = tnum.intersect(tnum.subreg(whole), tnum.range_(base, base + size))
    return tnum.with_subreg(whole, half)


def settle(value: int, mask: int, wide: Cnum | None, low: Cnum | None) -> Scalar:
    """Return what is left after an insn: synced, or where nothing is left its tnum alone."""
    s = sync(value, mask, wide, low)
    return unbounded(value, mask) if s is None else s


def settle32(value: int, mask: int, low: Cnum) -> Scalar:
    """Return what a 32-bit insn leaves whose low half this is: zero-extended (zext_32_to_64)."""
    base, size = low
    wide = low if base + size <= U32_MAX else FULL32
    return settle(value & U32_MAX, mask & U32_MAX, wide, low)


def resync(s: Scalar) -> Scalar:
    """Return *s* synced once more; it may come from anywhere."""
    return settle(s.value, s.mask, range64(s), range32(s))


def zext32(s: Scalar) -> Scalar:
    """Return the low 32 bits of every member, zero-extended."""
    return settle32(s.value, s.mask, range32(s))


def coerce_to_size(s: Scalar, size: int) -> Scalar:
    """Return the low *size* bytes (below 8) of every member, zero-extended (narrow loads)."""
    bits = (1 << BYTE * size) - 1
    wide = (0, bits)
    if s.umin & ~bits == s.umax & ~bits:
        wide = cnum.from_range(s.umin & bits, s.umax & bits, U64_MAX)
    low = range32(s) if BYTE * size == HALF else FULL32
    return settle(s.value & bits, s.mask & bits, wide, low)


def sign_extend(s: Scalar, from_bytes: int, to_bits: int) -> Scalar:
    """Return the low *from_bytes* of every member sign-extended to *to_bits*, the rest zero.

    As in 6.18 (`bounds.sign_extend`), with a range of either width.
    """
    field = BYTE * from_bytes
    if to_bits == WIDE:
        if not s.mask:
            return const(sext(s.value, field))
        return settle(*_sign_extended(s.smin, s.smax, field))
    if not s.mask:
        return const(sext(s.value, field) & U32_MAX)
    value, mask, _, low = _sign_extended(s.s32_min, s.s32_max, field)
    return settle32(value, mask, low)


def _sign_extended(low: int, high: int, field: int) -> tuple[int, int, Cnum, Cnum]:
    if low >> field == high >> field:
        a, b = sorted((sext(low, field), sext(high, field)))
        if (a >= 0) == (b >= 0):
            t = tnum.range_(a, b)
            return *t, cnum.from_range(a, b, U64_MAX), cnum.from_range(a, b, U32_MAX)
    half = 1 << field - 1
    wide = cnum.from_range(-half, half - 1, U64_MAX)
    return 0, U64_MAX, wide, cnum.from_range(-half, half - 1, U32_MAX)
