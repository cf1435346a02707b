"""Helpers on strings (kernel/bpf/helpers.c)."""

from __future__ import annotations

from errno import EINVAL, ERANGE

from bpfvm.bits import S64_MAX, S64_MIN, U64_MAX, u64
from bpfvm.notation import prototype
from bpfvm.proto import implements
from bpfvm.runtime import RunContext

__all__ = ["bpf_strncmp", "bpf_strtol", "bpf_strtoul"]

_BASES = (0, 8, 10, 16)
#: Digits of U64_MAX in the smallest base.
_MOST_DIGITS = 22
_DIGITS = {8: b"01234567", 10: b"0123456789", 16: b"0123456789abcdefABCDEF"}


def _parse(text: bytes, base: int) -> tuple[int, int] | int:
    """Return the number at the start of *text* and how many bytes it takes, or an errno
    (kernel: __bpf_strtoull)."""
    if base not in _BASES or not text:
        return -EINVAL
    start = len(text) - len(text.lstrip(b" \t\n\v\f\r"))
    at = start
    negative = text[at : at + 1] == b"-"
    at += negative
    if base in (0, 16) and text[at : at + 2].lower() == b"0x" and text[at + 2 : at + 3]:
        base, at = 16, at + 2
    elif base == 0:
        base = 8 if text[at : at + 1] == b"0" else 10
    digits = at
    while text[at : at + 1] and text[at] in _DIGITS[base]:
        at += 1
    if at == digits:
        return -EINVAL
    significant = text[digits:at].lstrip(b"0")
    if len(significant) > _MOST_DIGITS:
        return -ERANGE  # Python refuses to convert thousands of them
    value = int(significant or b"0", base)
    if value > U64_MAX:
        return -ERANGE
    return (-value if negative else value), at


@implements(prototype(105, "strtol", "mem size any outfix8"))
def bpf_strtol(run: RunContext, buf: int, size: int, flags: int, res: int) -> int:
    """Write the signed number in a string to *res*; return the bytes that it takes, or an errno.

    *flags*: the base, 0 to guess it.
    """
    found = _parse(run.read(buf, size), flags)
    run.write(res, bytes(8))
    if isinstance(found, int):
        return found
    value, length = found
    if not S64_MIN <= value <= S64_MAX:
        return -ERANGE
    run.write(res, u64(value).to_bytes(8, "little"))
    return length


@implements(prototype(106, "strtoul", "mem size any outfix8"))
def bpf_strtoul(run: RunContext, buf: int, size: int, flags: int, res: int) -> int:
    """As `bpf_strtol`, of an unsigned number."""
    found = _parse(run.read(buf, size), flags)
    run.write(res, bytes(8))
    if isinstance(found, int):
        return found
    value, length = found
    if value < 0:
        return -EINVAL
    run.write(res, value.to_bytes(8, "little"))
    return length


@implements(prototype(182, "strncmp", "mem size str"))
def bpf_strncmp(run: RunContext, s1: int, size: int, s2: int) -> int:
    """Compare at most *size* bytes of two strings: negative, 0 or positive."""
    first = run.read(s1, size)
    for i, a in enumerate(first):
        b = run.read(s2 + i, 1)[0]
        if a != b:
            return a - b
        if not a:
            break
    return 0
