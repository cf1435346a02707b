"""Conditional jumps on scalars: which way they go, and what each way teaches.

Rules: Linux 6.18 (is_scalar_branch_taken, regs_refine_cond_op). `is_taken` is sound: it says True
or False only where every pair of members agrees. `refine` is sound: it keeps every pair of
members that goes the given way; pairs that go the other way may stay.
"""

from __future__ import annotations

from collections.abc import Callable

from bpfvm.errors import InternalError
from bpfvm.isa import JmpOp
from verifier import tnum
from verifier.bounds import Scalar, settle, sync, unbounded
from verifier.tnum import Tnum
from verifier.width import HALF, U32_MAX, U64_MAX, WIDE, s32, s64

__all__ = ["NEGATED", "Ways", "comparison", "is_taken", "known", "refine", "refine_same"]

_Pair = tuple[Scalar, Scalar]
#: Both operands as known where the jump is taken, and where it is not.
Ways = tuple[_Pair, _Pair]


def is_taken(op: JmpOp, width: int, a: Scalar, b: Scalar) -> bool | None:
    """Return whether `a op b` on *width* bits always holds, never holds, or (None) may do both."""
    return _TAKEN[op](width, a, b)


def refine(op: JmpOp, width: int, a: Scalar, b: Scalar, taken: bool) -> _Pair:
    """Return *a* and *b* as known after the jump was (*taken* False: was not) taken.

    Both are synced, and reset where they contradict themselves (a way that cannot be gone). For
    one register on both sides use `refine_same`.
    """
    if taken:
        a, b = _REFINE[op](width, a, b)
    elif op is JmpOp.JSET:
        a, b = _no_bit_set(width, a, b)
    else:
        a, b = _REFINE[NEGATED[op]](width, a, b)
    return settle(a), settle(b)


def refine_same(op: JmpOp, width: int, a: Scalar, taken: bool) -> Scalar:
    """Return *a* as known after `a op a`, one register on both sides, went the given way.

    Linux 6.18 tightens the one register from both sides: the way that cannot be gone loses its
    ends, the other keeps every member.
    """
    if (op if taken else NEGATED.get(op)) in _STRICT:
        is_signed = op in (JmpOp.JSLT, JmpOp.JSGT, JmpOp.JSLE, JmpOp.JSGE)
        first = (6 if width == HALF else 2) + (0 if is_signed else 2)
        fields = list(a)
        fields[first] += 1
        fields[first + 1] -= 1
        a = Scalar(*fields)
    return settle(sync(a))


def comparison(op: JmpOp) -> Callable[[int, Scalar, Scalar], bool | Ways]:
    """Return the function that says of `a op b` on *width* bits whether it always (True) or never
    (False) holds, or what is known of both operands where it does and where it does not."""

    def compare(width: int, a: Scalar, b: Scalar) -> bool | Ways:
        taken = _TAKEN[op](width, a, b)
        if taken is not None:
            return taken
        return refine(op, width, a, b, True), refine(op, width, a, b, False)

    return compare


def known(width: int, s: Scalar) -> int | None:
    """Return the value of the low *width* bits where it is known, else None."""
    if width == HALF:
        return None if s.mask & U32_MAX else s.value & U32_MAX
    return None if s.mask else s.value


# Which way


def _equal(width: int, a: Scalar, b: Scalar) -> bool | None:
    ones = U32_MAX if width == HALF else U64_MAX
    if not (a.mask | b.mask) & ones:
        return a.value & ones == b.value & ones
    if (a.value ^ b.value) & ~(a.mask | b.mask) & ones:
        return False
    if width == WIDE and (a.umin > b.umax or a.umax < b.umin or a.smin > b.smax or a.smax < b.smin):
        return False
    if (
        a.u32_min > b.u32_max
        or a.u32_max < b.u32_min
        or a.s32_min > b.s32_max
        or a.s32_max < b.s32_min
    ):
        return False
    return None


def _not_equal(width: int, a: Scalar, b: Scalar) -> bool | None:
    equal = _equal(width, a, b)
    return None if equal is None else not equal


def _any_bit(width: int, a: Scalar, b: Scalar) -> bool | None:
    if (bits := known(width, b)) is None:
        a, b = b, a
        if (bits := known(width, b)) is None:
            return None
    if a.value & bits:
        return True
    if not (a.value | a.mask) & bits:
        return False
    return None


def _less(width: int, a: Scalar, b: Scalar) -> bool | None:
    amin, amax, bmin, bmax = _unsigned(width, a, b)
    if amax < bmin:
        return True
    return False if amin >= bmax else None


def _less_equal(width: int, a: Scalar, b: Scalar) -> bool | None:
    amin, amax, bmin, bmax = _unsigned(width, a, b)
    if amax <= bmin:
        return True
    return False if amin > bmax else None


def _signed_less(width: int, a: Scalar, b: Scalar) -> bool | None:
    amin, amax, bmin, bmax = _signed(width, a, b)
    if amax < bmin:
        return True
    return False if amin >= bmax else None


def _signed_less_equal(width: int, a: Scalar, b: Scalar) -> bool | None:
    amin, amax, bmin, bmax = _signed(width, a, b)
    if amax <= bmin:
        return True
    return False if amin > bmax else None


def _unsigned(width: int, a: Scalar, b: Scalar) -> tuple[int, int, int, int]:
    if width == HALF:
        return a.u32_min, a.u32_max, b.u32_min, b.u32_max
    return a.umin, a.umax, b.umin, b.umax


def _signed(width: int, a: Scalar, b: Scalar) -> tuple[int, int, int, int]:
    if width == HALF:
        return a.s32_min, a.s32_max, b.s32_min, b.s32_max
    return a.smin, a.smax, b.smin, b.smax


# What each way teaches; the ranges and tnum of the compared width only, not synced


def _keep_equal(width: int, a: Scalar, b: Scalar) -> _Pair:
    """Equal: both are in the intersection."""
    ta, tb = Tnum(a.value, a.mask), Tnum(b.value, b.mask)
    if width == HALF:
        low = (
            max(a.s32_min, b.s32_min),
            min(a.s32_max, b.s32_max),
            max(a.u32_min, b.u32_min),
            min(a.u32_max, b.u32_max),
        )
        t = tnum.intersect(tnum.subreg(ta), tnum.subreg(tb))
        ta, tb = tnum.with_subreg(ta, t), tnum.with_subreg(tb, t)
        return Scalar(*ta, *a[2:6], *low), Scalar(*tb, *b[2:6], *low)
    wide = (
        max(a.smin, b.smin),
        min(a.smax, b.smax),
        max(a.umin, b.umin),
        min(a.umax, b.umax),
    )
    t = tnum.intersect(ta, tb)
    return Scalar(*t, *wide, *a[6:]), Scalar(*t, *wide, *b[6:])


def _keep_not_equal(width: int, a: Scalar, b: Scalar) -> _Pair:
    """Not equal to a known value: where that is an end of a range, the end moves by one."""
    if (only := known(width, b)) is not None:
        return _without(width, a, only), b
    if (only := known(width, a)) is not None:
        return a, _without(width, b, only)
    return a, b


def _without(width: int, s: Scalar, x: int) -> Scalar:
    value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max, *_ = s
    if width == HALF:
        signed = s32(x)
        u32_min += u32_min == x
        u32_max -= u32_max == x
        s32_min += s32_min == signed
        s32_max -= s32_max == signed
    else:
        signed = s64(x)
        umin += umin == x
        umax -= umax == x
        smin += smin == signed
        smax -= smax == signed
    return Scalar(value, mask, smin, smax, umin, umax, s32_min, s32_max, u32_min, u32_max)


def _keep_any_bit(width: int, a: Scalar, b: Scalar) -> _Pair:
    """Some bit of a known value is set: of a single bit, that it is set."""
    if (bits := known(width, b)) is not None:
        return _with_bit(a, bits), b
    if (bits := known(width, a)) is not None:
        return a, _with_bit(b, bits)
    return a, b


def _with_bit(s: Scalar, bits: int) -> Scalar:
    if not bits or bits & (bits - 1):
        return s
    return Scalar(s.value | bits, s.mask & ~bits, *s[2:])


def _no_bit_set(width: int, a: Scalar, b: Scalar) -> _Pair:
    """No bit of a known value is set: those bits are zero. The ranges are forgotten."""
    if (bits := known(width, b)) is not None:
        return unbounded(a.value & ~bits, a.mask & ~bits), b
    if (bits := known(width, a)) is not None:
        return a, unbounded(b.value & ~bits, b.mask & ~bits)
    return a, b


def _keep_less_equal(width: int, a: Scalar, b: Scalar) -> _Pair:
    """`a <= b`: a's maximum is at most b's, b's minimum at least a's."""
    return _capped(a, b, 8 if width == HALF else 4, 0)


def _keep_less(width: int, a: Scalar, b: Scalar) -> _Pair:
    """`a < b`: a's maximum is below b's, b's minimum above a's."""
    return _capped(a, b, 8 if width == HALF else 4, 1)


def _keep_signed_less_equal(width: int, a: Scalar, b: Scalar) -> _Pair:
    """`a s<= b`, as `_keep_less_equal`."""
    return _capped(a, b, 6 if width == HALF else 2, 0)


def _keep_signed_less(width: int, a: Scalar, b: Scalar) -> _Pair:
    """`a s< b`, as `_keep_less`."""
    return _capped(a, b, 6 if width == HALF else 2, 1)


def _capped(a: Scalar, b: Scalar, first: int, gap: int) -> _Pair:
    """Cut the range in fields [first, first + 2) so that `a + gap <= b` can hold."""
    low, high = a[first] + gap, b[first + 1] - gap
    return (
        _with_field(a, first + 1, high) if a[first + 1] > high else a,
        _with_field(b, first, low) if b[first] < low else b,
    )


def _with_field(s: Scalar, index: int, end: int) -> Scalar:
    fields = list(s)
    fields[index] = end
    return Scalar(*fields)


def _swapped(
    keep: Callable[[int, Scalar, Scalar], _Pair],
) -> Callable[[int, Scalar, Scalar], _Pair]:
    def kept(width: int, a: Scalar, b: Scalar) -> _Pair:
        b, a = keep(width, b, a)
        return a, b

    return kept


_TAKEN: dict[JmpOp, Callable[[int, Scalar, Scalar], bool | None]] = {
    JmpOp.JEQ: _equal,
    JmpOp.JGT: lambda width, a, b: _less(width, b, a),
    JmpOp.JGE: lambda width, a, b: _less_equal(width, b, a),
    JmpOp.JSET: _any_bit,
    JmpOp.JNE: _not_equal,
    JmpOp.JSGT: lambda width, a, b: _signed_less(width, b, a),
    JmpOp.JSGE: lambda width, a, b: _signed_less_equal(width, b, a),
    JmpOp.JLT: _less,
    JmpOp.JLE: _less_equal,
    JmpOp.JSLT: _signed_less,
    JmpOp.JSLE: _signed_less_equal,
}
_REFINE: dict[JmpOp, Callable[[int, Scalar, Scalar], _Pair]] = {
    JmpOp.JEQ: _keep_equal,
    JmpOp.JGT: _swapped(_keep_less),
    JmpOp.JGE: _swapped(_keep_less_equal),
    JmpOp.JSET: _keep_any_bit,
    JmpOp.JNE: _keep_not_equal,
    JmpOp.JSGT: _swapped(_keep_signed_less),
    JmpOp.JSGE: _swapped(_keep_signed_less_equal),
    JmpOp.JLT: _keep_less,
    JmpOp.JLE: _keep_less_equal,
    JmpOp.JSLT: _keep_signed_less,
    JmpOp.JSLE: _keep_signed_less_equal,
}
#: `not (a op b)` is `a negated b`; JSET has no opposite among the operators.
NEGATED = {
    JmpOp.JEQ: JmpOp.JNE,
    JmpOp.JNE: JmpOp.JEQ,
    JmpOp.JGT: JmpOp.JLE,
    JmpOp.JLE: JmpOp.JGT,
    JmpOp.JGE: JmpOp.JLT,
    JmpOp.JLT: JmpOp.JGE,
    JmpOp.JSGT: JmpOp.JSLE,
    JmpOp.JSLE: JmpOp.JSGT,
    JmpOp.JSGE: JmpOp.JSLT,
    JmpOp.JSLT: JmpOp.JSGE,
}
_STRICT = frozenset({JmpOp.JGT, JmpOp.JLT, JmpOp.JSGT, JmpOp.JSLT})
if missing := set(JmpOp) - set(_TAKEN) | set(JmpOp) - set(_REFINE):
    raise InternalError(f"no rule for {missing}")
