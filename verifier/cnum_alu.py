"""Arithmetic on scalars in 7.3's domain: `alu` with a circular range of either width.

Rules: Linux 7.3 (adjust_scalar_min_max_vals). Each transfer is sound: the result holds the value
the engines compute (RFC 9669) for every pair of members. A range that wraps round is kept, and so
are the ranges of quotients and remainders by a known divisor.
"""

from __future__ import annotations

from collections.abc import Callable

from bpfvm.errors import InternalError
from bpfvm.isa import AluOp, EndOp
from verifier import cnum, tnum
from verifier.bounds import UNKNOWN, ZERO, Scalar, const, range32, range64
from verifier.cnum import Cnum
from verifier.cnum_bounds import (
    FULL32,
    FULL64,
    coerce_to_size,
    pack,
    resync,
    settle,
    settle32,
    sign_extend,
    zext32,
)
from verifier.tnum import Tnum
from verifier.width import (
    BYTE,
    HALF,
    S32_MAX,
    S32_MIN,
    S64_MAX,
    S64_MIN,
    U32_MAX,
    U64_MAX,
    WIDE,
)

__all__ = ["TRANSFER", "add_ptr", "end", "movsx", "neg", "sub_ptr"]


def neg(width: int, s: Scalar) -> Scalar:
    """Return what is known after `s = -s` of *width* bits."""
    return _sub(width, ZERO, s)


def movsx(width: int, bits: int, s: Scalar) -> Scalar:
    """Return the low *bits* of every member sign-extended to *width*, zeros above that."""
    return sign_extend(s, bits // BYTE, width)


def end(op: EndOp, bits: int, s: Scalar) -> Scalar:
    """Return what is known after a byte order operation on the low *bits* (little-endian host).

    A swap permutes the tnum and forgets the ranges; `le` only truncates.
    """
    if op is EndOp.LE:
        return resync(s) if bits == WIDE else coerce_to_size(s, bits // BYTE)
    return settle(*tnum.byte_swap(Tnum(s.value, s.mask), bits), FULL64, FULL32)


def add_ptr(base: Scalar, delta: Scalar) -> Scalar:
    """Return the variable offset of a pointer after `ptr += delta`, not yet synced."""
    t = tnum.add(Tnum(base.value, base.mask), Tnum(delta.value, delta.mask))
    return pack(*t, cnum.add(range64(base), range64(delta), U64_MAX), FULL32)


def sub_ptr(base: Scalar, delta: Scalar) -> Scalar:
    """Return the variable offset of a pointer after `ptr -= delta`, not yet synced."""
    t = tnum.sub(Tnum(base.value, base.mask), Tnum(delta.value, delta.mask))
    return pack(*t, cnum.sub(range64(base), range64(delta), U64_MAX), FULL32)


def _const(width: int, value: int) -> Scalar:
    return const(value & U32_MAX if width == HALF else value)


def _add(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Ranges are added: it does not matter where they wrap."""
    if not dst.mask and not src.mask:
        return _const(width, dst.value + src.value)
    value, mask = tnum.add(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = cnum.add(range32(dst), range32(src), U32_MAX)
    if width == HALF:
        return settle32(value, mask, low)
    return settle(value, mask, cnum.add(range64(dst), range64(src), U64_MAX), low)


def _sub(width: int, dst: Scalar, src: Scalar) -> Scalar:
    if not dst.mask and not src.mask:
        return _const(width, dst.value - src.value)
    value, mask = tnum.sub(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = cnum.sub(range32(dst), range32(src), U32_MAX)
    if width == HALF:
        return settle32(value, mask, low)
    return settle(value, mask, cnum.sub(range64(dst), range64(src), U64_MAX), low)


def _mul(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Ends are multiplied; a view is lost where any product overflows, and one range remains."""
    if not dst.mask and not src.mask:
        return _const(width, dst.value * src.value)
    low = _products(dst[6:10], src[6:10], S32_MAX, U32_MAX)
    if width == HALF:
        a = Tnum(dst.value & U32_MAX, dst.mask & U32_MAX)
        b = Tnum(src.value & U32_MAX, src.mask & U32_MAX)
        return settle(*tnum.subreg(tnum.mul(a, b)), _zero_extended(low), low)
    t = tnum.mul(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    return settle(*t, _products(dst[2:6], src[2:6], S64_MAX, U64_MAX), low)


def _products(
    a: tuple[int, int, int, int], b: tuple[int, int, int, int], smax: int, ones: int
) -> Cnum | None:
    """Return a range around all products, from the signed and unsigned ends of both."""
    unsigned = (0, ones)
    if a[3] * b[3] <= ones:
        unsigned = cnum.from_range(a[2] * b[2], a[3] * b[3], ones)
    products = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    low, high = min(products), max(products)
    if low < -smax - 1 or high > smax:
        return unsigned
    return cnum.intersect(unsigned, cnum.from_range(low, high, ones), ones)


def _zero_extended(low: Cnum | None) -> Cnum | None:
    return low if low is None or low[0] + low[1] <= U32_MAX else FULL32


def _and(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Unsigned: at least the bits known to be set, at most the smaller operand."""
    value, mask = tnum.and_(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = cnum.from_range(value & U32_MAX, min(dst.u32_max, src.u32_max), U32_MAX)
    if width == HALF:
        return settle32(value, mask, low)
    return settle(value, mask, cnum.from_range(value, min(dst.umax, src.umax), U64_MAX), low)


def _or(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Unsigned: at least the larger operand, at most the bits that can be set."""
    value, mask = tnum.or_(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = cnum.from_range(max(dst.u32_min, src.u32_min), (value | mask) & U32_MAX, U32_MAX)
    if width == HALF:
        return settle32(value, mask, low)
    return settle(value, mask, cnum.from_range(max(dst.umin, src.umin), value | mask, U64_MAX), low)


def _xor(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Unsigned: between the bits known to be set and the bits that can be set."""
    value, mask = tnum.xor(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = cnum.from_range(value & U32_MAX, (value | mask) & U32_MAX, U32_MAX)
    if width == HALF:
        return settle32(value, mask, low)
    return settle(value, mask, (value, mask), low)


def _shift_count(width: int, src: Scalar) -> int | None:
    """Return the count where it is one known number below *width*, else None."""
    if src.umax >= width or (src.mask & U32_MAX if width == HALF else src.mask):
        return None
    return src.u32_min if width == HALF else src.umin


def _lsh(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """By a known count: unsigned ends are shifted unless a bit may fall out."""
    k = _shift_count(width, src)
    if k is None:
        return UNKNOWN
    low: Cnum | None = FULL32
    if k < HALF and dst.u32_max <= 1 << HALF - 1 - k:
        low = cnum.from_range(dst.u32_min << k, dst.u32_max << k, U32_MAX)
    value, mask = tnum.lshift(Tnum(dst.value, dst.mask), k)
    if width == HALF:
        return settle(value & U32_MAX, mask & U32_MAX, _zero_extended(low), low)
    wide: Cnum | None = FULL64
    if dst.umax <= 1 << WIDE - 1 - k:
        wide = cnum.from_range(dst.umin << k, dst.umax << k, U64_MAX)
    if k == HALF and wide is not None:
        # Compilers sign-extend by this and a shift back; the low half keeps its order.
        signed = cnum.from_range(dst.s32_min << HALF, dst.s32_max << HALF, U64_MAX)
        wide = cnum.intersect(wide, signed, U64_MAX)
    return settle(value, mask, wide, low)


def _rsh(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """By a known count: unsigned ends are shifted."""
    k = _shift_count(width, src)
    if k is None:
        return UNKNOWN
    if width == HALF:
        t = tnum.rshift(Tnum(dst.value & U32_MAX, dst.mask & U32_MAX), k)
        return settle32(*t, cnum.from_range(dst.u32_min >> k, dst.u32_max >> k, U32_MAX))
    t = tnum.rshift(Tnum(dst.value, dst.mask), k)
    return settle(*t, cnum.from_range(dst.umin >> k, dst.umax >> k, U64_MAX), FULL32)


def _arsh(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """By a known count: signed ends are shifted."""
    k = _shift_count(width, src)
    if k is None:
        return UNKNOWN
    t = tnum.arshift(Tnum(dst.value, dst.mask), k, width)
    if width == HALF:
        return settle32(*t, cnum.from_range(dst.s32_min >> k, dst.s32_max >> k, U32_MAX))
    return settle(*t, cnum.from_range(dst.smin >> k, dst.smax >> k, U64_MAX), FULL32)


# Division and modulo by a divisor that is known in the insn's width


def _quotient(width: int, ends: Cnum) -> Scalar:
    """Return what is known of a result whose (signed or unsigned) ends are *ends*."""
    low, high = ends
    if width == HALF:
        return settle32(0, U64_MAX, cnum.from_range(low, high, U32_MAX))
    return settle(0, U64_MAX, cnum.from_range(low, high, U64_MAX), FULL32)


def _divisor(width: int, src: Scalar) -> int | None:
    if width == HALF:
        return None if src.mask & U32_MAX else src.value & U32_MAX
    return None if src.mask else src.value


def _unsigned(width: int, s: Scalar) -> tuple[int, int]:
    return (s.u32_min, s.u32_max) if width == HALF else (s.umin, s.umax)


def _signed(width: int, s: Scalar) -> tuple[int, int]:
    return (s.s32_min, s.s32_max) if width == HALF else (s.smin, s.smax)


def _unchanged(width: int, dst: Scalar) -> Scalar:
    return zext32(dst) if width == HALF else resync(dst)


def _div(width: int, dst: Scalar, src: Scalar) -> Scalar:
    c = _divisor(width, src)
    if c is None:
        return UNKNOWN
    if c == 0:
        return ZERO
    low, high = _unsigned(width, dst)
    return _quotient(width, (low // c, high // c))


def _sdiv(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """The least number divided by -1 is itself; else quotients are ordered as the dividends, or
    against them."""
    if _divisor(width, src) is None:
        return UNKNOWN
    c, _ = _signed(width, src)
    if c == 0:
        return ZERO
    low, high = _signed(width, dst)
    least = S32_MIN if width == HALF else S64_MIN
    if c == -1 and low == least:
        return _quotient(width, (least, least if high == least else -least - 1))
    a, b = _truncated(low, c), _truncated(high, c)
    return _quotient(width, (a, b) if a <= b else (b, a))


def _truncated(x: int, c: int) -> int:
    """Return x / c, towards zero."""
    return abs(x) // abs(c) if (x < 0) == (c < 0) else -(abs(x) // abs(c))


def _mod(width: int, dst: Scalar, src: Scalar) -> Scalar:
    c = _divisor(width, src)
    if c is None:
        return UNKNOWN
    if c == 0 or _unsigned(width, dst)[1] < c:
        return _unchanged(width, dst)
    return _quotient(width, (0, c - 1))


def _smod(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """A remainder has the dividend's sign and is nearer to zero than the divisor."""
    if _divisor(width, src) is None:
        return UNKNOWN
    c, _ = _signed(width, src)
    low, high = _signed(width, dst)
    most = abs(c) - 1
    if c == 0 or -most <= low <= high <= most:
        return _unchanged(width, dst)
    if low >= 0:
        return _quotient(width, (0, min(high, most)))
    if high <= 0:
        return _quotient(width, (max(low, -most), 0))
    return _quotient(width, (-most, most))


def _mov(width: int, dst: Scalar, src: Scalar) -> Scalar:
    return zext32(src) if width == HALF else src


def _neg(width: int, dst: Scalar, src: Scalar) -> Scalar:
    return neg(width, dst)


#: Per operation, what is known after `dst op= src` of *width* bits (32: zero-extended).
TRANSFER: dict[AluOp, Callable[[int, Scalar, Scalar], Scalar]] = {
    AluOp.ADD: _add,
    AluOp.SUB: _sub,
    AluOp.MUL: _mul,
    AluOp.DIV: _div,
    AluOp.SDIV: _sdiv,
    AluOp.OR: _or,
    AluOp.AND: _and,
    AluOp.LSH: _lsh,
    AluOp.RSH: _rsh,
    AluOp.NEG: _neg,
    AluOp.MOD: _mod,
    AluOp.SMOD: _smod,
    AluOp.XOR: _xor,
    AluOp.MOV: _mov,
    AluOp.ARSH: _arsh,
}
if missing := set(AluOp) - set(TRANSFER):
    raise InternalError(f"no transfer for {missing}")
