"""The kernel's formatting for programs: what `bpf_trace_printk` and the stream kfuncs print.

A format holds printable ASCII and white space, and conversions of a fixed set: integers
(`%d %i %u %x %X`, with `l` or `ll`), `%c`, strings (`%s %pks %pus`), pointers (`%p %px %pK`),
symbols (`%ps %pS %pB`) and IP addresses (`%pi4 %pI4 %pi6 %pI6`), each with flags `0 + -` or space
and a width. Pointers are printed as they are: hashing them would hide nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bpfvm.bits import s32, s64, u32
from bpfvm.memory import AddressSpace

__all__ = ["BUFFER_SIZE", "c_string", "clip", "format_text"]

#: Bytes of the buffer that a formatted text must fit in, with its NUL.
BUFFER_SIZE = 1024
#: Most bytes taken of a string argument, with its NUL.
_STRING_SIZE = 512
#: kernel: FIELD_WIDTH_MAX; a wider field is made as wide.
_WIDTH_MAX = (1 << 23) - 1

_ENDS_WORD = rb"(?=$|[\s!-/:-@\[-`{-~])"
_SPEC = re.compile(
    rb"%(?P<flags>[0+\- ]*)(?P<width>[1-9][0-9]*)?(?:"
    rb"(?P<ip>p[iI][46])|(?P<string>(?:p[ku])?s" + _ENDS_WORD + rb")|(?P<symbol>p[sSB])"
    rb"|(?P<pointer>p(?:[Kx]|" + _ENDS_WORD + rb"))|(?P<char>c)"
    rb"|(?P<long>l{0,2})(?P<int>[diuxX]))"
)
_PLAIN = re.compile(rb"[\t-\r -~]*")


def format_text(fmt: bytes, args: Sequence[int], space: AddressSpace) -> bytes | None:
    """Return *fmt* (without its NUL) with *args* put in, or None where it is not a valid format
    or asks for more arguments than there are (EINVAL)."""
    if not _PLAIN.fullmatch(fmt):
        return None
    out = bytearray()
    left = list(args)
    at = 0
    while at < len(fmt):
        percent = fmt.find(b"%", at)
        if percent < 0:
            break
        out += fmt[at:percent]
        if fmt.startswith(b"%%", percent):
            out += b"%"
            at = percent + 2
            continue
        spec = _SPEC.match(fmt, percent)
        if spec is None or not left:
            return None
        out += _convert(spec, left.pop(0), space)
        at = spec.end()
    return bytes(out + fmt[at:])


def clip(text: bytes) -> bytes:
    """Return what of *text* fits into the kernel's buffer beside its NUL."""
    return text[: BUFFER_SIZE - 1]


def c_string(space: AddressSpace, addr: int, limit: int) -> bytes | None:
    """Return the bytes at *addr* up to a NUL, at most *limit*; None where they can't be read."""
    out = bytearray()
    while len(out) < limit:
        byte = space.read(addr + len(out), 1)
        if byte is None:
            return None
        if byte == b"\0":
            break
        out += byte
    return bytes(out)


def _convert(spec: re.Match[bytes], arg: int, space: AddressSpace) -> bytes:
    # Eight digits are beyond the limit already.
    flags, width = spec["flags"], min(int((spec["width"] or b"0")[:8]), _WIDTH_MAX)
    if spec["int"]:
        return _number(flags, width, spec["int"], arg, is_long=bool(spec["long"]))
    if spec["pointer"]:
        text = b"%0*x" % (width or 16, arg)
    elif spec["symbol"]:
        text = b"0x%x" % arg  # there are no kernel symbols here
    elif spec["ip"]:
        text = _address(spec["ip"], arg, space)
    elif spec["char"]:
        text = bytes([arg & 0xFF])
    else:
        text = c_string(space, arg, _STRING_SIZE - 1) or b""
    return text.ljust(width) if b"-" in flags else text.rjust(width)


def _number(flags: bytes, width: int, how: bytes, arg: int, *, is_long: bool) -> bytes:
    sign = b""
    if how in b"di":
        value = s64(arg) if is_long else s32(arg)
        if value < 0:
            sign = b"-"
        elif b"+" in flags:
            sign = b"+"
        elif b" " in flags:
            sign = b" "
        digits = b"%d" % abs(value)
    else:
        value = arg if is_long else u32(arg)
        digits = {b"u": b"%d", b"x": b"%x", b"X": b"%X"}[how] % value
    if b"-" in flags:
        return (sign + digits).ljust(width)
    if b"0" in flags:
        return sign + digits.rjust(width - len(sign), b"0")
    return (sign + digits).rjust(width)


def _address(how: bytes, arg: int, space: AddressSpace) -> bytes:
    """Return an IP address; bytes that can't be read count as zero."""
    size = 4 if how.endswith(b"4") else 16
    raw = space.read(arg, size) or bytes(size)
    if size == 4:
        return b".".join((b"%d" if how[1:2] == b"I" else b"%03d") % byte for byte in raw)
    groups = [raw[i : i + 2].hex().encode() for i in range(0, size, 2)]
    return (b":" if how[1:2] == b"I" else b"").join(groups)
