"""Conditional jumps on scalars in 7.3's domain: which way they go, and what each way teaches.

Rules: Linux 7.3 (is_scalar_branch_taken, simulate_both_branches_taken, regs_refine_cond_op). Where
the ends decide nothing, both ways are tried: one that leaves a scalar without members is dead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

from bpfvm.errors import InternalError
from bpfvm.isa import JmpOp
from verifier import branch, cnum, tnum
from verifier.bounds import Scalar, range32, range64
from verifier.branch import NEGATED, Ways
from verifier.cnum import Cnum
from verifier.cnum_bounds import FULL32, FULL64, sync
from verifier.tnum import Tnum
from verifier.width import HALF, S32_MAX, S32_MIN, S64_MAX, S64_MIN, U32_MAX, U64_MAX

__all__ = ["comparison"]

#: Tnum, 64-bit range, 32-bit range: a scalar's parts, each to be tightened on its own.
_Parts = tuple[Tnum, Cnum | None, Cnum | None]
_Pair = tuple[_Parts, _Parts]
_Keep = Callable[[int, Scalar, Scalar], _Pair]


def comparison(op: JmpOp) -> Callable[[int, Scalar, Scalar], bool | Ways]:
    """Return the function that says of `a op b` on *width* bits whether it always (True) or never
    (False) holds, or what is known of both operands where it does and where it does not."""
    return _COMPARISONS[op]


def _compare(
    keep: _Keep, keep_not: _Keep, op: JmpOp, width: int, a: Scalar, b: Scalar
) -> bool | Ways:
    taken = branch.is_taken(op, width, a, b)
    if taken is not None:
        return taken
    x, y = keep_not(width, a, b)
    fall_a, fall_b = sync(*x[0], x[1], x[2]), sync(*y[0], y[1], y[2])
    if fall_a is None or fall_b is None:
        return True
    x, y = keep(width, a, b)
    taken_a, taken_b = sync(*x[0], x[1], x[2]), sync(*y[0], y[1], y[2])
    if taken_a is None or taken_b is None:
        return False
    return (taken_a, taken_b), (fall_a, fall_b)


def _parts(s: Scalar) -> _Parts:
    return Tnum(s.value, s.mask), range64(s), range32(s)


def _within(width: int, s: Scalar, low: int, high: int) -> _Parts:
    """Return *s* without what lies outside [low, high], both signed or both unsigned."""
    if width == HALF:
        kept = cnum.intersect(range32(s), cnum.from_range(low, high, U32_MAX), U32_MAX)
        return Tnum(s.value, s.mask), range64(s), kept
    kept = cnum.intersect(range64(s), cnum.from_range(low, high, U64_MAX), U64_MAX)
    return Tnum(s.value, s.mask), kept, range32(s)


def _equal(width: int, a: Scalar, b: Scalar) -> _Pair:
    """Both are in the intersection."""
    ta, tb = Tnum(a.value, a.mask), Tnum(b.value, b.mask)
    if width == HALF:
        low = cnum.intersect(range32(a), range32(b), U32_MAX)
        t = tnum.intersect(tnum.subreg(ta), tnum.subreg(tb))
        return (
            (tnum.with_subreg(ta, t), range64(a), low),
            (tnum.with_subreg(tb, t), range64(b), low),
        )
    t, wide = tnum.intersect(ta, tb), cnum.intersect(range64(a), range64(b), U64_MAX)
    return (t, wide, range32(a)), (t, wide, range32(b))


def _not_equal(width: int, a: Scalar, b: Scalar) -> _Pair:
    """Not equal to a known value: an end of the range moves by one."""
    if (known := branch.known(width, b)) is not None:
        return _without(width, a, known), _parts(b)
    if (known := branch.known(width, a)) is not None:
        return _parts(a), _without(width, b, known)
    return _parts(a), _parts(b)


def _without(width: int, s: Scalar, x: int) -> _Parts:
    if width == HALF:
        others = (x + 1 & U32_MAX, U32_MAX - 1)
        return Tnum(s.value, s.mask), range64(s), cnum.intersect(range32(s), others, U32_MAX)
    others = (x + 1 & U64_MAX, U64_MAX - 1)
    return Tnum(s.value, s.mask), cnum.intersect(range64(s), others, U64_MAX), range32(s)


def _any_bit(width: int, a: Scalar, b: Scalar) -> _Pair:
    """Some bit of a known value is set: of a single bit, that it is set."""
    if (bits := branch.known(width, b)) is not None:
        return _with_bit(a, bits), _parts(b)
    if (bits := branch.known(width, a)) is not None:
        return _parts(a), _with_bit(b, bits)
    return _parts(a), _parts(b)


def _with_bit(s: Scalar, bits: int) -> _Parts:
    if not bits or bits & (bits - 1):
        return _parts(s)
    return Tnum(s.value | bits, s.mask & ~bits), range64(s), range32(s)


def _no_bit(width: int, a: Scalar, b: Scalar) -> _Pair:
    """No bit of a known value is set: those bits are zero. The ranges are forgotten."""
    if (bits := branch.known(width, b)) is not None:
        return (Tnum(a.value & ~bits, a.mask & ~bits), FULL64, FULL32), _parts(b)
    if (bits := branch.known(width, a)) is not None:
        return _parts(a), (Tnum(b.value & ~bits, b.mask & ~bits), FULL64, FULL32)
    return _parts(a), _parts(b)


def _less_equal(width: int, a: Scalar, b: Scalar) -> _Pair:
    """a is at most b's maximum, b at least a's minimum."""
    if width == HALF:
        return _within(width, a, 0, b.u32_max), _within(width, b, a.u32_min, U32_MAX)
    return _within(width, a, 0, b.umax), _within(width, b, a.umin, U64_MAX)


def _less(width: int, a: Scalar, b: Scalar) -> _Pair:
    if width == HALF:
        return _within(width, a, 0, b.u32_max - 1), _within(width, b, a.u32_min + 1, U32_MAX)
    return _within(width, a, 0, b.umax - 1), _within(width, b, a.umin + 1, U64_MAX)


def _signed_less_equal(width: int, a: Scalar, b: Scalar) -> _Pair:
    if width == HALF:
        return _within(width, a, S32_MIN, b.s32_max), _within(width, b, a.s32_min, S32_MAX)
    return _within(width, a, S64_MIN, b.smax), _within(width, b, a.smin, S64_MAX)


def _signed_less(width: int, a: Scalar, b: Scalar) -> _Pair:
    if width == HALF:
        return _within(width, a, S32_MIN, b.s32_max - 1), _within(width, b, a.s32_min + 1, S32_MAX)
    return _within(width, a, S64_MIN, b.smax - 1), _within(width, b, a.smin + 1, S64_MAX)


def _swapped(keep: _Keep) -> _Keep:
    def kept(width: int, a: Scalar, b: Scalar) -> _Pair:
        y, x = keep(width, b, a)
        return x, y

    return kept


#: What is known of both operands where the comparison holds; not synced.
_KEEP: dict[JmpOp, _Keep] = {
    JmpOp.JEQ: _equal,
    JmpOp.JGT: _swapped(_less),
    JmpOp.JGE: _swapped(_less_equal),
    JmpOp.JSET: _any_bit,
    JmpOp.JNE: _not_equal,
    JmpOp.JSGT: _swapped(_signed_less),
    JmpOp.JSGE: _swapped(_signed_less_equal),
    JmpOp.JLT: _less,
    JmpOp.JLE: _less_equal,
    JmpOp.JSLT: _signed_less,
    JmpOp.JSLE: _signed_less_equal,
}
if missing := set(JmpOp) - set(_KEEP):
    raise InternalError(f"no rule for {missing}")
_COMPARISONS: dict[JmpOp, Callable[[int, Scalar, Scalar], bool | Ways]] = {
    op: lru_cache(maxsize=1 << 12)(
        partial(_compare, keep, _no_bit if op is JmpOp.JSET else _KEEP[NEGATED[op]], op)
    )
    for op, keep in _KEEP.items()
}
