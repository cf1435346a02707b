"""Arithmetic on scalars: what is known of `dst op src` from what is known of dst and src.

Rules: Linux 6.18 (adjust_scalar_min_max_vals). Each transfer is sound: the result holds the
value the engines compute (RFC 9669) for every pair of members. What the kernel does not follow
(division, modulo, shifts by an unknown count) gives the unknown scalar.

A transfer gets whole scalars and makes three things: the tnum, the ranges of all 64 bits and the
ranges of the low 32. For a 32-bit insn the 64-bit ranges come from the low ones afterwards.
"""

from __future__ import annotations

from collections.abc import Callable

from bpfvm.errors import InternalError
from bpfvm.isa import AluOp, EndOp
from verifier import tnum
from verifier.bounds import (
    UNKNOWN,
    ZERO,
    Scalar,
    coerce_to_size,
    const,
    reset_if_broken,
    settle,
    sign_extend,
    sync,
    unbounded,
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
    s32,
    s64,
)

__all__ = ["TRANSFER", "add_ptr", "alu", "end", "mov32", "movsx", "neg", "sub_ptr"]

#: Signed minimum and maximum, unsigned minimum and maximum.
_Range = tuple[int, int, int, int]
_FULL64: _Range = (S64_MIN, S64_MAX, 0, U64_MAX)
_FULL32: _Range = (S32_MIN, S32_MAX, 0, U32_MAX)


def alu(op: AluOp, width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Return what is known after `dst op= src` of *width* bits (32: zero-extended).

    Every value that the insn can leave in the register is kept. MOV gives *src*, or its low 32
    bits; NEG ignores *src*.
    """
    return TRANSFER[op](width, dst, src)


def neg(width: int, s: Scalar) -> Scalar:
    """Return what is known after `s = -s` of *width* bits."""
    return _sub(width, ZERO, s)


def mov32(s: Scalar) -> Scalar:
    """Return the low 32 bits of every member, zero-extended."""
    return sync(zext32(s))


def movsx(width: int, bits: int, s: Scalar) -> Scalar:
    """Return the low *bits* of every member sign-extended to *width*, zeros above that."""
    return reset_if_broken(sign_extend(s, bits // BYTE, width))


def end(op: EndOp, bits: int, s: Scalar) -> Scalar:
    """Return what is known after a byte order operation on the low *bits* (little-endian host).

    A swap permutes the tnum and forgets the ranges; `le` only truncates.
    """
    match op:
        case EndOp.BE | EndOp.SWAP:
            s = unbounded(*tnum.byte_swap(Tnum(s.value, s.mask), bits))
        case EndOp.LE:
            pass
    return settle(s if bits == WIDE else coerce_to_size(s, bits // BYTE))


def add_ptr(base: Scalar, delta: Scalar) -> Scalar:
    """Return the variable offset of a pointer after `ptr += delta`, not yet synced.

    A pointer carries no 32-bit ranges. The caller checks that the offset is sane, then calls
    `bounds.sync` (kernel: adjust_ptr_min_max_vals; a constant delta goes to the fixed offset).
    """
    t = tnum.add(Tnum(base.value, base.mask), Tnum(delta.value, delta.mask))
    smin, smax = base.smin + delta.smin, base.smax + delta.smax
    if smin < S64_MIN or smax > S64_MAX:
        smin, smax = S64_MIN, S64_MAX
    umin, umax = base.umin + delta.umin, base.umax + delta.umax
    if umax > U64_MAX:
        umin, umax = 0, U64_MAX
    return Scalar(*t, smin, smax, umin, umax, *_FULL32)


def sub_ptr(base: Scalar, delta: Scalar) -> Scalar:
    """Return the variable offset of a pointer after `ptr -= delta`, not yet synced."""
    t = tnum.sub(Tnum(base.value, base.mask), Tnum(delta.value, delta.mask))
    smin, smax = base.smin - delta.smax, base.smax - delta.smin
    if smin < S64_MIN or smax > S64_MAX:
        smin, smax = S64_MIN, S64_MAX
    umin, umax = base.umin - delta.umax, base.umax - delta.umin
    if umin < 0:
        umin, umax = 0, U64_MAX
    return Scalar(*t, smin, smax, umin, umax, *_FULL32)


def _finish(width: int, t: Tnum, wide: _Range, low: _Range) -> Scalar:
    s = Scalar(*t, *wide, *low)
    return settle(zext32(s) if width == HALF else s)


def _const(width: int, value: int) -> Scalar:
    return const(value & U32_MAX if width == HALF else value)


def _add(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Ends are added; a range is lost where one end wraps round and the other does not."""
    if not dst.mask and not src.mask:
        return _const(width, dst.value + src.value)
    t = tnum.add(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = _add_range(dst[6:10], src[6:10], S32_MAX, U32_MAX)
    if width == HALF:
        return _finish(HALF, t, _FULL64, low)
    return _finish(WIDE, t, _add_range(dst[2:6], src[2:6], S64_MAX, U64_MAX), low)


def _add_range(a: _Range, b: _Range, smax: int, umax: int) -> _Range:
    low, high, ulow, uhigh = a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]
    if low < -smax - 1 or high > smax:
        low, high = -smax - 1, smax
    if uhigh > umax:
        if ulow > umax:
            return low, high, ulow & umax, uhigh & umax
        return low, high, 0, umax
    return low, high, ulow, uhigh


def _sub(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Opposite ends are subtracted; a range is lost where one wraps round and not the other."""
    if not dst.mask and not src.mask:
        return _const(width, dst.value - src.value)
    t = tnum.sub(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = _sub_range(dst[6:10], src[6:10], S32_MAX, U32_MAX)
    if width == HALF:
        return _finish(HALF, t, _FULL64, low)
    return _finish(WIDE, t, _sub_range(dst[2:6], src[2:6], S64_MAX, U64_MAX), low)


def _sub_range(a: _Range, b: _Range, smax: int, umax: int) -> _Range:
    low, high, ulow, uhigh = a[0] - b[1], a[1] - b[0], a[2] - b[3], a[3] - b[2]
    if low < -smax - 1 or high > smax:
        low, high = -smax - 1, smax
    if ulow < 0:
        if uhigh < 0:
            return low, high, ulow & umax, uhigh & umax
        return low, high, 0, umax
    return low, high, ulow, uhigh


def _mul(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Ends are multiplied; a range is lost where any product overflows."""
    if not dst.mask and not src.mask:
        return _const(width, dst.value * src.value)
    low = _mul_range(dst[6:10], src[6:10], S32_MAX, U32_MAX)
    if width == HALF:
        a = Tnum(dst.value & U32_MAX, dst.mask & U32_MAX)
        b = Tnum(src.value & U32_MAX, src.mask & U32_MAX)
        return _finish(HALF, tnum.mul(a, b), _FULL64, low)
    t = tnum.mul(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    return _finish(WIDE, t, _mul_range(dst[2:6], src[2:6], S64_MAX, U64_MAX), low)


def _mul_range(a: _Range, b: _Range, smax: int, umax: int) -> _Range:
    products = (a[0] * b[0], a[0] * b[1], a[1] * b[0], a[1] * b[1])
    low, high = min(products), max(products)
    if low < -smax - 1 or high > smax:
        low, high = -smax - 1, smax
    ulow, uhigh = a[2] * b[2], a[3] * b[3]
    if uhigh > umax:
        ulow, uhigh = 0, umax
    return low, high, ulow, uhigh


def _and(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Unsigned: at least the bits known to be set, at most the smaller operand."""
    t = tnum.and_(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = _from_unsigned32(t.value & U32_MAX, min(dst.u32_max, src.u32_max))
    wide = _from_unsigned64(t.value, min(dst.umax, src.umax))
    return _finish(width, t, wide, low)


def _or(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Unsigned: at least the larger operand, at most the bits that can be set."""
    t = tnum.or_(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = _from_unsigned32(max(dst.u32_min, src.u32_min), (t.value | t.mask) & U32_MAX)
    wide = _from_unsigned64(max(dst.umin, src.umin), t.value | t.mask)
    return _finish(width, t, wide, low)


def _xor(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Unsigned: between the bits known to be set and the bits that can be set."""
    t = tnum.xor(Tnum(dst.value, dst.mask), Tnum(src.value, src.mask))
    low = _from_unsigned32(t.value & U32_MAX, (t.value | t.mask) & U32_MAX)
    return _finish(width, t, _from_unsigned64(t.value, t.value | t.mask), low)


def _from_unsigned32(umin: int, umax: int) -> _Range:
    smin, smax = s32(umin), s32(umax)
    return (smin, smax, umin, umax) if smin <= smax else (S32_MIN, S32_MAX, umin, umax)


def _from_unsigned64(umin: int, umax: int) -> _Range:
    smin, smax = s64(umin), s64(umax)
    return (smin, smax, umin, umax) if smin <= smax else (S64_MIN, S64_MAX, umin, umax)


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
    u32_min, u32_max = dst.u32_min << k, dst.u32_max << k
    if k >= HALF or dst.u32_max > 1 << HALF - 1 - k:
        u32_min, u32_max = 0, U32_MAX
    low = (S32_MIN, S32_MAX, u32_min, u32_max)
    t = tnum.lshift(Tnum(dst.value, dst.mask), k)
    if width == HALF:
        return _finish(HALF, t, _FULL64, low)
    umin, umax = dst.umin << k, dst.umax << k
    if dst.umax > 1 << WIDE - 1 - k:
        umin, umax = 0, U64_MAX
    smin, smax = S64_MIN, S64_MAX
    if k == HALF:
        # Compilers sign-extend by this and a shift back; the low half keeps its order.
        smin, smax = dst.s32_min << HALF, dst.s32_max << HALF
    return _finish(WIDE, t, (smin, smax, umin, umax), low)


def _rsh(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """By a known count: unsigned ends are shifted, the signed ones follow from them."""
    k = _shift_count(width, src)
    if k is None:
        return UNKNOWN
    if width == HALF:
        t = tnum.rshift(Tnum(dst.value & U32_MAX, dst.mask & U32_MAX), k)
        return _finish(HALF, t, _FULL64, (S32_MIN, S32_MAX, dst.u32_min >> k, dst.u32_max >> k))
    t = tnum.rshift(Tnum(dst.value, dst.mask), k)
    return _finish(WIDE, t, (S64_MIN, S64_MAX, dst.umin >> k, dst.umax >> k), _FULL32)


def _arsh(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """By a known count: signed ends are shifted, the unsigned ones follow from them."""
    k = _shift_count(width, src)
    if k is None:
        return UNKNOWN
    t = tnum.arshift(Tnum(dst.value, dst.mask), k, width)
    if width == HALF:
        return _finish(HALF, t, _FULL64, (dst.s32_min >> k, dst.s32_max >> k, 0, U32_MAX))
    return _finish(WIDE, t, (dst.smin >> k, dst.smax >> k, 0, U64_MAX), _FULL32)


def _unknown(width: int, dst: Scalar, src: Scalar) -> Scalar:
    """Division and modulo are not followed, not even their zero-extension."""
    return UNKNOWN


def _mov(width: int, dst: Scalar, src: Scalar) -> Scalar:
    return mov32(src) if width == HALF else src


def _neg(width: int, dst: Scalar, src: Scalar) -> Scalar:
    return neg(width, dst)


#: Per operation, what is known after `dst op= src` of *width* bits (32: zero-extended).
TRANSFER: dict[AluOp, Callable[[int, Scalar, Scalar], Scalar]] = {
    AluOp.ADD: _add,
    AluOp.SUB: _sub,
    AluOp.MUL: _mul,
    AluOp.DIV: _unknown,
    AluOp.SDIV: _unknown,
    AluOp.OR: _or,
    AluOp.AND: _and,
    AluOp.LSH: _lsh,
    AluOp.RSH: _rsh,
    AluOp.NEG: _neg,
    AluOp.MOD: _unknown,
    AluOp.SMOD: _unknown,
    AluOp.XOR: _xor,
    AluOp.MOV: _mov,
    AluOp.ARSH: _arsh,
}
if missing := set(AluOp) - set(TRANSFER):
    raise InternalError(f"no transfer for {missing}")
