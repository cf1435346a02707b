"""Wrap-around integer helpers: the only place that masks or sign-extends by hand.

Every value a program computes is kept as an unsigned 64-bit Python int; the signed views below
are taken at the moment an operation needs them (RFC 9669 section 4.1).
"""

from __future__ import annotations

__all__ = [
    "S32_MAX",
    "S32_MIN",
    "S64_MAX",
    "S64_MIN",
    "U32_MAX",
    "U64_MAX",
    "bswap",
    "hi32",
    "s16",
    "s32",
    "s64",
    "sext",
    "to_unsigned",
    "u32",
    "u64",
]

U32_MAX = (1 << 32) - 1
U64_MAX = (1 << 64) - 1
S32_MIN = -(1 << 31)
S32_MAX = (1 << 31) - 1
S64_MIN = -(1 << 63)
S64_MAX = (1 << 63) - 1


def u64(value: int) -> int:
    """Return *value* modulo 2**64."""
    return value & U64_MAX


def u32(value: int) -> int:
    """Return *value* modulo 2**32."""
    return value & U32_MAX


def to_unsigned(value: int, bits: int) -> int:
    """Return *value* modulo 2**bits."""
    return value & ((1 << bits) - 1)


def sext(value: int, bits: int) -> int:
    """Return the low *bits* bits of *value* read as a two's complement number (a signed int)."""
    sign = 1 << (bits - 1)
    return ((value & ((1 << bits) - 1)) ^ sign) - sign


def s64(value: int) -> int:
    """Return *value* modulo 2**64 read as signed."""
    return ((value & U64_MAX) ^ (1 << 63)) - (1 << 63)


def s32(value: int) -> int:
    """Return *value* modulo 2**32 read as signed."""
    return ((value & U32_MAX) ^ (1 << 31)) - (1 << 31)


def s16(value: int) -> int:
    """Return *value* modulo 2**16 read as signed."""
    return ((value & 0xFFFF) ^ 0x8000) - 0x8000


def hi32(value: int) -> int:
    """Return *value* (mod 2**64) with its low 32 bits cleared."""
    return value & 0xFFFFFFFF00000000


def bswap(value: int, bits: int) -> int:
    """Return the low *bits* bits (16, 32 or 64) of *value* with their bytes reversed."""
    count = bits // 8
    return int.from_bytes(to_unsigned(value, bits).to_bytes(count, "little"), "big")
