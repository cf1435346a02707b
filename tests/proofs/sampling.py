"""Products, quotients and remainders of random members of random 64-bit scalars.

numpy computes with words that wrap round, as the machine does; the domain's functions are the
imported ones.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from exhaustive import Unsound

from bpfvm.bits import U32_MAX, U64_MAX
from bpfvm.isa import AluOp
from verifier.bounds import Scalar, const, sync, unbounded
from verifier.cnum_bounds import resync
from verifier.domain import CNUM, RANGES, Domain

__all__ = ["sample"]

#: Members drawn of a scalar: of products every pair of them is tried.
_FACTORS, _DIVIDENDS = 64, 512
_OPS = (AluOp.MUL, AluOp.DIV, AluOp.SDIV, AluOp.MOD, AluOp.SMOD)
_EDGES = (0, 1 << 31, U32_MAX, 1 << 32, 1 << 63, U64_MAX)


def _value(rng: random.Random) -> int:
    if rng.random() < 0.4:
        return rng.choice(_EDGES) + rng.randint(-40, 40) & U64_MAX
    return rng.getrandbits(rng.randint(1, 64))


def _scalar(rng: random.Random, np_rng: Any, domain: Domain, count: int) -> tuple[Scalar, Any]:
    """Return a scalar and *count* members of it: a run of numbers, a tnum, a few, or one."""
    base, kind = np.uint64(_value(rng)), rng.randrange(4)
    if kind == 0:
        few = np.array([_value(rng) for _ in range(rng.randint(1, 3))], dtype=np.uint64)
        members = np.resize(few, count)
    elif kind == 1:
        most = rng.getrandbits(rng.randint(1, 40))
        members = base + np_rng.integers(0, most, count, np.uint64, True)
    elif kind == 2:
        mask = np.uint64(_value(rng) & _value(rng))
        members = base & ~mask | np_rng.integers(0, U64_MAX, count, np.uint64, True) & mask
    else:
        members = np.full(1, base)
    ones, some = int(np.bitwise_and.reduce(members)), int(np.bitwise_or.reduce(members))
    signed = members.view(np.int64)
    s = unbounded(ones, ones ^ some)._replace(
        umin=int(members.min()), umax=int(members.max()),
        smin=int(signed.min()), smax=int(signed.max()),
    )  # fmt: skip
    return (resync(s) if domain is CNUM else sync(s)), members


def _computed(op: AluOp, width: int, left: Any, right: Any) -> Any:
    """Return what `a op= b` leaves in a register, for arrays."""
    unsigned, signed = (np.uint64, np.int64) if width == 64 else (np.uint32, np.int32)
    a: Any = left.astype(unsigned)
    b: Any = right.astype(unsigned)
    zero = b == 0
    divisor: Any = np.where(zero, unsigned(1), b)
    match op:
        case AluOp.MUL:
            result = a * b
        case AluOp.DIV:
            result = np.where(zero, unsigned(0), a // divisor)
        case AluOp.MOD:
            result = np.where(zero, a, a % divisor)
        case _:
            x: Any = a.view(signed)
            y: Any = divisor.view(signed)
            # Magnitudes as unsigned numbers: the least number has no positive of its own.
            size_x = np.where(x < 0, unsigned(0) - a, a)
            size_y = np.where(y < 0, unsigned(0) - divisor, divisor)
            quotient = size_x // size_y
            quotient = np.where((x < 0) != (y < 0), unsigned(0) - quotient, quotient)
            if op is AluOp.SDIV:
                result = np.where(zero, unsigned(0), quotient)
            else:
                result = np.where(zero, a, a - quotient * divisor)
    return result.astype(np.uint64)


def _all_in(s: Scalar, xs: Any) -> bool:
    """Return whether all of *xs* are members, by the ends and the tnum."""
    low = (xs & np.uint64(U32_MAX)).astype(np.uint32)
    signed, low_signed = xs.view(np.int64), low.view(np.int32)
    return bool(
        np.all(xs & np.uint64(~s.mask & U64_MAX) == np.uint64(s.value))
        and xs.min() >= s.umin and xs.max() <= s.umax
        and signed.min() >= s.smin and signed.max() <= s.smax
        and low.min() >= s.u32_min and low.max() <= s.u32_max
        and low_signed.min() >= s.s32_min and low_signed.max() <= s.s32_max
    )  # fmt: skip


def _run(domain: Domain, op: AluOp, width: int, cases: int) -> int:
    """Try *op* on at least *cases* pairs of members; return how many."""
    rng, np_rng = random.Random(1), np.random.default_rng(1)
    transfer, tried = domain.transfer[op], 0
    while tried < cases:
        if op is AluOp.MUL:
            dst, xs = _scalar(rng, np_rng, domain, _FACTORS)
            src, ys = _scalar(rng, np_rng, domain, _FACTORS)
        else:
            dst, xs = _scalar(rng, np_rng, domain, _DIVIDENDS)
            divisor = _value(rng) if rng.random() < 0.7 else rng.randint(-9, 9) & U64_MAX
            src, ys = const(divisor), np.array([divisor], dtype=np.uint64)
        results = _computed(op, width, np.repeat(xs, len(ys)), np.tile(ys, len(xs)))
        got = transfer(width, dst, src)
        if not _all_in(got, results):
            raise Unsound(f"{op.name}{width} {dst} {src} -> {got}")
        tried += len(results)
    return tried


def sample() -> Iterator[tuple[str, str, Callable[[int], int]]]:
    """Yield (domain, function, a run of so many cases)."""
    for name, domain in (("6.18", RANGES), ("7.3", CNUM)):
        # 6.18 follows no division.
        ops = _OPS if domain is CNUM else _OPS[:1]
        for op, width in product(ops, (32, 64)):
            yield name, f"{op.name.lower()}{width}", partial(_run, domain, op, width)
