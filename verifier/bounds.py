"""What is known of a number: a tnum and four ranges, kept in step with each other.

A `Scalar` stands for every 64-bit x that is a member of its tnum (*value*, *mask*), lies in
[umin, umax] read as unsigned and in [smin, smax] read as signed, and whose low 32 bits lie in the
u32 and s32 ranges. Rules: Linux 6.18 (bpf_reg_state and reg_bounds_sync); each function here is
sound: it keeps every member, or says which members it may drop.

Pointers use the same value for their variable offset. Nothing here knows about programs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

from verifier import cnum, tnum
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
    s32,
    s64,
    sext,
)

__all__ = [
    "UNKNOWN",
    "ZERO",
    "Scalar",
    "coerce_to_size",
    "const",
    "contains",
    "contradictions",
    "is_broken",
    "is_u32",
    "only_member",
    "range32",
    "range64",
    "range_within",
    "reset_if_broken",
    "scalar_attrs",
    "scalar_text",
    "settle",
    "sign_extend",
    "snum_text",
    "sync",
    "unbounded",
    "unum_text",
    "var_off",
    "var_off_text",
    "zext32",
]


class Scalar(NamedTuple):
    """A set of 64-bit values; *s...* fields are signed ints, the others unsigned.

    *gap64* and *gap32* belong to 7.3's domain (`cnum_bounds`): the circular range of that width
    where it wraps both as signed and as unsigned, so that no end tells of it, as
    base << width | size; else 0.
    """

    value: int
    mask: int
    smin: int
    smax: int
    umin: int
    umax: int
    s32_min: int
    s32_max: int
    u32_min: int
    u32_max: int
    gap64: int = 0
    gap32: int = 0


#: Every 64-bit value.
UNKNOWN = Scalar(0, U64_MAX, S64_MIN, S64_MAX, 0, U64_MAX, S32_MIN, S32_MAX, 0, U32_MAX)
#: Zero alone.
ZERO = Scalar(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def const(value: int) -> Scalar:
    """Return the scalar whose only member is *value* mod 2**64 (kernel: __mark_reg_known)."""
    value &= U64_MAX
    low = value & U32_MAX
    signed = (value ^ SIGN64) - SIGN64
    low_signed = (low ^ SIGN32) - SIGN32
    return Scalar(value, 0, signed, signed, value, value, low_signed, low_signed, low, low)


def unbounded(value: int, mask: int) -> Scalar:
    """Return the tnum (*value*, *mask*) with no range known: a superset of any scalar with it."""
    return Scalar(value, mask, S64_MIN, S64_MAX, 0, U64_MAX, S32_MIN, S32_MAX, 0, U32_MAX)


def is_u32(s: Scalar) -> bool:
    """Return whether no member is above 2**32 - 1 (kernel: get_reg_width(reg) <= 32)."""
    return s.umax <= U32_MAX


def var_off(s: Scalar) -> Tnum:
    """Return the tnum alone."""
    return Tnum(s.value, s.mask)


def contains(s: Scalar, x: int) -> bool:
    """Return whether *x* (mod 2**64) is a member."""
    x &= U64_MAX
    return (
        x & ~s.mask == s.value
        and s.umin <= x <= s.umax
        and s.smin <= s64(x) <= s.smax
        and s.u32_min <= x & U32_MAX <= s.u32_max
        and s.s32_min <= s32(x) <= s.s32_max
        and (not s.gap64 or cnum.contains(range64(s), x, U64_MAX))
        and (not s.gap32 or cnum.contains(range32(s), x, U32_MAX))
    )


@lru_cache(maxsize=1 << 14)
def sync(s: Scalar) -> Scalar:
    """Return *s* with tnum and ranges tightened by each other; every member is kept.

    kernel: reg_bounds_sync, in its order: ranges by the tnum; ranges by each other, three rounds;
    the tnum by the ranges; ranges by the tnum. An empty set may become any other. No lower bound
    in the order of `range_within`: `_by_low_half` replaces an end where it could tighten it.
    """
    s = _by_tnum(s)
    if not s.mask:
        return s
    for _ in range(3):
        before = s
        s = _by_low_half(_by_other_sign(_low_by_wide(s)))
        if s is before:
            break
    return _by_tnum(_tnum_by_ranges(s))


# The steps of `sync`; each returns its very argument where it changes nothing.


def _by_tnum(s: Scalar) -> Scalar:
    """Tighten the ranges by the tnum (kernel: __update_reg_bounds).

    Where [umin, umax] is seen to hold just one member of the tnum, that is the value.
    """
    value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max, *_ = s
    if not mask and umin <= value <= umax:
        known = const(value)
        return s if s == known else known
    low, low_high = value & U32_MAX, (value | mask) & U32_MAX
    if low > u32_min:
        u32_min = low
    if low_high < u32_max:
        u32_max = low_high
    bound = ((low | mask & SIGN32) ^ SIGN32) - SIGN32
    if bound > s32_min:
        s32_min = bound
    bound = ((low | mask & S32_MAX) ^ SIGN32) - SIGN32
    if bound < s32_max:
        s32_max = bound
    high = value | mask
    if value > umin:
        umin = value
    if high < umax:
        umax = high
    bound = ((value | mask & SIGN64) ^ SIGN64) - SIGN64
    if bound > smin:
        smin = bound
    bound = ((value | mask & S64_MAX) ^ SIGN64) - SIGN64
    if bound < smax:
        smax = bound
    only = only_member(value, mask, umin, umax)
    if only is not None:
        return const(only)
    tightened = (value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max)
    return s if s[:10] == tightened else Scalar(*tightened)


def only_member(value: int, mask: int, umin: int, umax: int) -> int | None:
    """Return the member of the tnum in [umin, umax] where it is seen to be the only one."""
    if not mask & (mask + 1) and umin < umax:
        return None  # the unknown bits are the low ones: the tnum has no gaps
    t = Tnum(value, mask)
    following = tnum.next_member(t, umin)
    if umin & ~mask == value:
        return umin if following > umax else None
    if following == value | mask or following <= umax < tnum.next_member(t, following):
        return following
    return None


def _low_by_wide(s: Scalar) -> Scalar:
    """Tighten the 32-bit ranges by the 64-bit ones and by each other."""
    value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max, *_ = s
    if umin >> HALF == umax >> HALF:
        # One high half: the low halves of the ends enclose the low half.
        u32_min, u32_max = max(u32_min, umin & U32_MAX), min(u32_max, umax & U32_MAX)
    if smin >> HALF == smax >> HALF:
        u32_min, u32_max = max(u32_min, smin & U32_MAX), min(u32_max, smax & U32_MAX)
    for low, high in ((umin, umax), (smin, smax)):
        if (high >> HALF) - (low >> HALF) <= 1:
            # One high half, or two that follow each other: where the low halves of the ends are
            # in signed order, no low half lies outside them.
            a, b = ((low & U32_MAX) ^ SIGN32) - SIGN32, ((high & U32_MAX) ^ SIGN32) - SIGN32
            if a <= b and (a < 0 <= b or high >> HALF == low >> HALF):
                s32_min, s32_max = max(s32_min, a), min(s32_max, b)
    a, b = (u32_min ^ SIGN32) - SIGN32, (u32_max ^ SIGN32) - SIGN32
    if a <= b:
        s32_min, s32_max = max(s32_min, a), min(s32_max, b)
    a, b = s32_min & U32_MAX, s32_max & U32_MAX
    if a <= b:
        u32_min, u32_max = max(u32_min, a), min(u32_max, b)
    elif u32_max < a:
        # The signed range is [a, top] and [0, b] read as unsigned; only the second is left.
        s32_min, u32_max = (u32_min ^ SIGN32) - SIGN32, min(u32_max, b)
    elif b < u32_min:
        s32_max, u32_min = (u32_max ^ SIGN32) - SIGN32, max(u32_min, a)
    if s[6:10] == (s32_min, s32_max, u32_min, u32_max):
        return s
    return Scalar(value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max)


def _by_other_sign(s: Scalar) -> Scalar:
    """Tighten the two 64-bit ranges by each other."""
    _, _, smin, smax, umin, umax, *_ = s
    a, b = (umin ^ SIGN64) - SIGN64, (umax ^ SIGN64) - SIGN64
    if a <= b:
        smin, smax = max(smin, a), min(smax, b)
    a, b = smin & U64_MAX, smax & U64_MAX
    if a <= b:
        umin, umax = max(umin, a), min(umax, b)
    elif umax < a:  # as for 32 bits
        smin, umax = (umin ^ SIGN64) - SIGN64, min(umax, b)
    elif b < umin:
        smax, umin = (umax ^ SIGN64) - SIGN64, max(umin, a)
    if s[2:6] == (smin, smax, umin, umax):
        return s
    return Scalar(s.value, s.mask, smin, smax, umin, umax, *s[6:])


def _by_low_half(s: Scalar) -> Scalar:
    """Tighten the 64-bit ranges by the 32-bit ones: the low half of an end is a low half."""
    value, mask, smin, smax, umin, umax, s32_min, _, u32_min, u32_max, *_ = s
    umin = max(umin, umin & ~U32_MAX | u32_min)
    umax = min(umax, umax & ~U32_MAX | u32_max)
    smin = max(smin, smin & ~U32_MAX | u32_min)
    smax = min(smax, smax & ~U32_MAX | u32_max)
    if s32_min >= 0 and smin >= S32_MIN and smax <= S32_MAX:
        # A sign-extended number whose low half is not negative is that low half.
        smin, smax = umin, umax = s[6:8]
        value, mask = tnum.intersect(Tnum(value, mask), tnum.range_(smin, smax))
    if s[:6] == (value, mask, smin, smax, umin, umax):
        return s
    return Scalar(value, mask, smin, smax, umin, umax, *s[6:])


def _tnum_by_ranges(s: Scalar) -> Scalar:
    """Tighten the tnum by the unsigned ranges (kernel: __reg_bound_offset)."""
    whole = tnum.intersect(Tnum(s.value, s.mask), tnum.range_(s.umin, s.umax))
    low = tnum.intersect(tnum.subreg(whole), tnum.range_(s.u32_min, s.u32_max))
    value, mask = tnum.with_subreg(whole, low)
    if value == s.value and mask == s.mask:
        return s
    return Scalar(value, mask, *s[2:])


def zext32(s: Scalar) -> Scalar:
    """Return the low 32 bits of every member, zero-extended; not synced (kernel: zext_32_to_64)."""
    if s.s32_min >= 0 and s.s32_max >= 0:
        smin, smax = s.s32_min, s.s32_max
    else:
        smin, smax = 0, U32_MAX
    return Scalar(s.value & U32_MAX, s.mask & U32_MAX, smin, smax, s.u32_min, s.u32_max, *s[6:])


def coerce_to_size(s: Scalar, size: int) -> Scalar:
    """Return the low *size* bytes (below 8) of every member, zero-extended (narrow loads)."""
    bits = (1 << BYTE * size) - 1
    value, mask = s.value & bits, s.mask & bits
    if s.umin & ~bits == s.umax & ~bits:
        umin, umax = s.umin & bits, s.umax & bits
    else:
        umin, umax = 0, bits
    low = s[6:] if BYTE * size == HALF else (S32_MIN, S32_MAX, 0, U32_MAX)
    return sync(Scalar(value, mask, umin, umax, umin, umax, *low))


def sign_extend(s: Scalar, from_bytes: int, to_bits: int) -> Scalar:
    """Return the low *from_bytes* of every member sign-extended to *to_bits*, the rest zero.

    kernel: coerce_reg_to_size_sx; for 32 bits coerce_subreg_to_size_sx and the zero-extension.
    The range is kept where both its ends agree above the field and have one sign after it;
    otherwise only the range of the field remains.
    """
    field = BYTE * from_bytes
    if to_bits == WIDE:
        if not s.mask:
            return const(sext(s.value, field))
        return _sign_extended(s.smin, s.smax, field)
    if not s.mask:
        return const(sext(s.value, field) & U32_MAX)
    x = _sign_extended(s.s32_min, s.s32_max, field)
    return sync(zext32(x))


def _sign_extended(low: int, high: int, field: int) -> Scalar:
    if low >> field == high >> field:
        a, b = sorted((sext(low, field), sext(high, field)))
        if (a >= 0) == (b >= 0):
            t = tnum.range_(a, b)
            unsigned = a & U64_MAX, b & U64_MAX
            return Scalar(*t, a, b, *unsigned, a, b, a & U32_MAX, b & U32_MAX)
    half = 1 << field - 1
    return Scalar(0, U64_MAX, -half, half - 1, 0, U64_MAX, -half, half - 1, 0, U32_MAX)


def is_broken(s: Scalar) -> bool:
    """Return whether the fields contradict each other: an empty range, or a known value outside.

    kernel: reg_bounds_sanity_check. Only an empty set can get there, on a path that cannot run.
    """
    value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max, *_ = s
    if umin > umax or smin > smax or u32_min > u32_max or s32_min > s32_max:
        return True
    if not mask and not (umin == umax == value and smin == smax == s64(value)):
        return True
    if mask & U32_MAX:
        return False
    low = value & U32_MAX
    return not (u32_min == u32_max == low and s32_min == s32_max == s32(low))


#: Where contradictions are collected, or None.
_noted: list[Scalar] | None = None
#: Rounds of `sync` after which a contradiction that is to be found has been.
_ROUNDS = 6


@contextmanager
def contradictions() -> Iterator[list[Scalar]]:
    """Collect the scalars that are found to contradict themselves, now or after more tightening.

    A kernel of 6.18 warns of the first of them since it was booted, and is tainted. Slow: what
    was remembered of scalars is forgotten.
    """
    global _noted
    before, _noted = _noted, []
    settle.cache_clear()
    try:
        yield _noted
    finally:
        _noted = before


def _note(s: Scalar, noted: list[Scalar]) -> None:
    tighter = s
    for _ in range(_ROUNDS):
        if is_broken(tighter):
            noted.append(s)
            return
        tighter = sync(tighter)


def reset_if_broken(s: Scalar) -> Scalar:
    """Return *s*, or where it contradicts itself its tnum with no range known."""
    if _noted is not None:
        _note(s, _noted)
    return unbounded(s.value, s.mask) if is_broken(s) else s


@lru_cache(maxsize=1 << 14)  # the same insn sees the same scalars on many paths
def settle(s: Scalar) -> Scalar:
    """Return *s* synced, as every insn leaves a scalar: never one that contradicts itself."""
    return reset_if_broken(sync(s))


def range_within(old: Scalar, cur: Scalar) -> bool:
    """Return whether each range and the tnum of *cur* lies inside that of *old* (for pruning)."""
    return (
        old.umin <= cur.umin
        and old.umax >= cur.umax
        and old.smin <= cur.smin
        and old.smax >= cur.smax
        and old.u32_min <= cur.u32_min
        and old.u32_max >= cur.u32_max
        and old.s32_min <= cur.s32_min
        and old.s32_max >= cur.s32_max
        and not cur.mask & ~old.mask
        and cur.value & ~old.mask == old.value
        and (not old.gap64 or cnum.is_in(range64(old), range64(cur), U64_MAX))
        and (not old.gap32 or cnum.is_in(range32(old), range32(cur), U32_MAX))
    )


def range64(s: Scalar) -> Cnum:
    """Return a circular range around all members: the unsigned one if it tells anything."""
    umin, umax = s.umin, s.umax
    if umin or umax != U64_MAX:
        return umin, umax - umin
    smin = s.smin
    size = s.smax - smin
    if size != U64_MAX:
        return smin & U64_MAX, size
    gap = s.gap64
    return (gap >> WIDE, gap & U64_MAX) if gap else (0, U64_MAX)


def range32(s: Scalar) -> Cnum:
    """Return a circular range around the low 32 bits of all members, as `range64`."""
    umin, umax = s.u32_min, s.u32_max
    if umin or umax != U32_MAX:
        return umin, umax - umin
    smin = s.s32_min
    size = s.s32_max - smin
    if size != U32_MAX:
        return smin & U32_MAX, size
    gap = s.gap32
    return (gap >> HALF, gap & U32_MAX) if gap else (0, U32_MAX)


def snum_text(value: int) -> str:
    """Return a signed 64-bit number (given signed or unsigned) as the kernel's log prints it."""
    signed = s64(value)
    return str(signed) if -0x8000 <= signed <= 0x7FFF else f"{value & U64_MAX:#x}"


def unum_text(value: int) -> str:
    """Return an unsigned number as the kernel's log prints it."""
    return str(value) if value <= 0xFFFF else f"{value:#x}"


def var_off_text(s: Scalar) -> str:
    """Return the tnum as the kernel's log prints it."""
    return tnum.text(Tnum(s.value, s.mask))


def scalar_text(s: Scalar) -> str:
    """Return the log's text of an imprecise scalar without id: `5`, `scalar(umax=255,...)`."""
    if not s.mask:
        return snum_text(s.value)
    return f"scalar({','.join(scalar_attrs(s))})"


def scalar_attrs(s: Scalar) -> list[str]:
    """Return the log's attributes for what is not constant: ranges, then `var_off`.

    kernel: print_scalar_ranges. A range end at its default is left out; ends of one kind (minimum
    or maximum) with one value share it: `smin=umin=5`. A negative signed end shares with signed
    ends only. A 32-bit signed end too large for decimal prints as 32 bits of hex.
    """
    ends = (
        ("smin", s.smin, s.smin == S64_MIN),
        ("smax", s.smax, s.smax == S64_MAX),
        ("umin", s.umin, s.umin == 0),
        ("umax", s.umax, s.umax == U64_MAX),
        ("smin32", _printed32(s.s32_min), s.s32_min == S32_MIN),
        ("smax32", _printed32(s.s32_max), s.s32_max == S32_MAX),
        ("umin32", s.u32_min, s.u32_min == 0),
        ("umax32", s.u32_max, s.u32_max == U32_MAX),
    )
    merged: set[str] = set()
    parts = []
    for i, (name, number, is_default) in enumerate(ends):
        if is_default or name in merged:
            continue
        names = [name]
        for later, other, is_later_default in ends[i + 2 :: 2]:
            if not is_later_default and later not in merged and other == number:
                merged.add(later)
                names.append(later)
        is_signed = name[0] == "s"
        parts.append("=".join([*names, snum_text(number) if is_signed else unum_text(number)]))
    if s.mask != U64_MAX:
        parts.append(f"var_off={var_off_text(s)}")
    return parts


def _printed32(value: int) -> int:
    return value if -0x8000 <= value <= 0x7FFF else value & U32_MAX
