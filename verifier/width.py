"""The widths that the value domain is written for: 64-bit numbers, their low 32 bits, bytes.

`tnum`, `cnum`, `bounds`, `alu` and their kin take every width from here, so that the proofs can
load the very same sources at widths small enough to try every value (tests/proofs).
"""

from __future__ import annotations

from bpfvm.bits import (
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    U32_MAX,
    U64_MAX,
    bswap,
    hi32,
    s32,
    s64,
    sext,
)

__all__ = [
    "BYTE",
    "HALF",
    "S32_MAX",
    "S32_MIN",
    "S64_MAX",
    "S64_MIN",
    "SIGN32",
    "SIGN64",
    "U32_MAX",
    "U64_MAX",
    "WIDE",
    "bswap",
    "hi32",
    "s32",
    "s64",
    "sext",
]

#: Bits of a number, of its low half, of a byte.
WIDE, HALF, BYTE = 64, 32, 8
#: The sign bits.
SIGN64, SIGN32 = 1 << 63, 1 << 31
