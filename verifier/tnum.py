"""Tristate numbers: 64-bit values of which some bits are known (kernel: struct tnum).

A tnum (value, mask) stands for every x with x & ~mask == value; a bit of *mask* is an unknown
bit, and value & mask == 0. Everything is modulo 2**64. Functions are pure, and sound: the result
of an operation holds the result for every choice of members of its operands.
"""

from __future__ import annotations

from typing import NamedTuple

from verifier.width import HALF, U32_MAX, U64_MAX, WIDE, bswap, hi32, s32, s64

__all__ = [
    "UNKNOWN",
    "Tnum",
    "add",
    "and_",
    "arshift",
    "byte_swap",
    "const",
    "contains",
    "intersect",
    "is_aligned",
    "is_in",
    "lshift",
    "mul",
    "neg",
    "next_member",
    "or_",
    "overlap",
    "range_",
    "rshift",
    "sub",
    "subreg",
    "text",
    "union",
    "with_subreg",
    "xor",
]


class Tnum(NamedTuple):
    """A set of 64-bit values: those that agree with *value* on every bit outside *mask*."""

    value: int
    mask: int


#: Every 64-bit value.
UNKNOWN = Tnum(0, U64_MAX)


def const(value: int) -> Tnum:
    """Return the tnum whose only member is *value* mod 2**64."""
    return Tnum(value & U64_MAX, 0)


def range_(low: int, high: int) -> Tnum:
    """Return the smallest tnum that holds every value of [low, high], taken mod 2**64."""
    low &= U64_MAX
    differing = (low ^ high) & U64_MAX
    bits = differing.bit_length()
    if bits >= WIDE:
        return UNKNOWN
    mask = (1 << bits) - 1
    return Tnum(low & ~mask, mask)


def lshift(a: Tnum, shift: int) -> Tnum:
    """Return *a* shifted left by *shift* (below 64): exact."""
    return Tnum(a.value << shift & U64_MAX, a.mask << shift & U64_MAX)


def rshift(a: Tnum, shift: int) -> Tnum:
    """Return *a* shifted right by *shift*, zeros coming in: exact."""
    return Tnum(a.value >> shift, a.mask >> shift)


def arshift(a: Tnum, shift: int, bits: int) -> Tnum:
    """Return the low *bits* (32 or 64) of *a* shifted right, copies of the sign bit coming in.

    An unknown sign bit makes the bits that come in unknown, a known one makes them known. The
    result has no bits above *bits*.
    """
    if bits == HALF:
        return Tnum(s32(a.value) >> shift & U32_MAX, s32(a.mask) >> shift & U32_MAX)
    return Tnum(s64(a.value) >> shift & U64_MAX, s64(a.mask) >> shift & U64_MAX)


def add(a: Tnum, b: Tnum) -> Tnum:
    """Return a tnum with every sum: a bit is known where no carry pattern can change it."""
    value = a.value + b.value & U64_MAX
    unknown = (a.mask + b.mask + value ^ value) & U64_MAX | a.mask | b.mask
    return Tnum(value & ~unknown, unknown)


def sub(a: Tnum, b: Tnum) -> Tnum:
    """Return a tnum with every difference: a bit is known where no borrow can change it."""
    value = a.value - b.value & U64_MAX
    unknown = (value + a.mask ^ value - b.mask) & U64_MAX | a.mask | b.mask
    return Tnum(value & ~unknown, unknown)


def neg(a: Tnum) -> Tnum:
    """Return a tnum with the negative of every member."""
    return sub(Tnum(0, 0), a)


def and_(a: Tnum, b: Tnum) -> Tnum:
    """Return the bitwise and: exact, bit by bit."""
    value = a.value & b.value
    return Tnum(value, (a.value | a.mask) & (b.value | b.mask) & ~value)


def or_(a: Tnum, b: Tnum) -> Tnum:
    """Return the bitwise or: exact, bit by bit."""
    value = a.value | b.value
    return Tnum(value, (a.mask | b.mask) & ~value)


def xor(a: Tnum, b: Tnum) -> Tnum:
    """Return the bitwise exclusive or: exact, bit by bit."""
    unknown = a.mask | b.mask
    return Tnum((a.value ^ b.value) & ~unknown, unknown)


def union(a: Tnum, b: Tnum) -> Tnum:
    """Return the smallest tnum that holds the members of both."""
    unknown = (a.value ^ b.value) | a.mask | b.mask
    return Tnum(a.value & b.value & ~unknown, unknown)


def intersect(a: Tnum, b: Tnum) -> Tnum:
    """Return the members of both; where the two contradict each other the bit reads as one.

    A value in both operands is in the result, so a contradiction (no such value) is sound too.
    """
    unknown = a.mask & b.mask
    return Tnum((a.value | b.value) & ~unknown, unknown)


def mul(a: Tnum, b: Tnum) -> Tnum:
    """Return a tnum with every product: long multiplication by the bits of *a* (Linux 6.18).

    For an unknown bit of *a* both outcomes, with the shifted *b* added and without, are joined.
    """
    value, mask = a
    term, term_mask = b
    acc, acc_mask = 0, 0
    while (value or mask) and acc_mask != U64_MAX:
        if (value | mask) & 1:
            # `add` and `union` on plain ints: this loop runs up to 64 times.
            total = acc + term & U64_MAX
            unknown = (acc_mask + term_mask + total ^ total) & U64_MAX | acc_mask | term_mask
            total &= ~unknown
            if not value & 1:
                unknown |= acc ^ total
                total &= acc & ~unknown
            acc, acc_mask = total, unknown
        value, mask = value >> 1, mask >> 1
        term, term_mask = term << 1 & U64_MAX, term_mask << 1 & U64_MAX
    return Tnum(acc, acc_mask)


def byte_swap(a: Tnum, bits: int) -> Tnum:
    """Return the low *bits* (16, 32 or 64) of *a* with their bytes reversed: exact."""
    return Tnum(bswap(a.value, bits), bswap(a.mask, bits))


def contains(a: Tnum, x: int) -> bool:
    """Return whether *x* (mod 2**64) is a member."""
    return x & ~a.mask & U64_MAX == a.value


def is_in(outer: Tnum, inner: Tnum) -> bool:
    """Return whether every member of *inner* is one of *outer*."""
    if inner.mask & ~outer.mask:
        return False
    return inner.value & ~outer.mask == outer.value


def overlap(a: Tnum, b: Tnum) -> bool:
    """Return whether some value is a member of both."""
    known = ~(a.mask | b.mask)
    return a.value & known == b.value & known


def next_member(a: Tnum, x: int) -> int:
    """Return the least member greater than *x*, or the greatest member where there is none.

    kernel: tnum_step. The distance from `value` counts in the unknown bits only: with every known
    bit filled by a one, adding one carries over it; the bits below the highest known bit of the
    distance are filled too, for all smaller combinations of them lie below *x*.
    """
    highest = a.value | a.mask
    if x >= highest:
        return highest
    if x < a.value:
        return a.value
    distance = x - a.value
    below = (1 << (distance & ~a.mask).bit_length()) - 1
    return a.value | ((distance | below | (~a.mask & U64_MAX)) + 1 & a.mask)


def subreg(a: Tnum) -> Tnum:
    """Return *a* cut to its low 32 bits."""
    return Tnum(a.value & U32_MAX, a.mask & U32_MAX)


def with_subreg(a: Tnum, low: Tnum) -> Tnum:
    """Return *a* with its low 32 bits replaced by those of *low*."""
    return Tnum(hi32(a.value) | low.value & U32_MAX, hi32(a.mask) | low.mask & U32_MAX)


def is_aligned(a: Tnum, size: int) -> bool:
    """Return whether every member is a multiple of *size*, a power of two."""
    return not (a.value | a.mask) & (size - 1)


def text(a: Tnum) -> str:
    """Return *a* as the kernel's log prints it: the number, or `(value; mask)`."""
    if a.mask:
        return f"({a.value:#x}; {a.mask:#x})"
    return str(a.value) if a.value <= 0xFFFF else f"{a.value:#x}"
