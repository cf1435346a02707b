"""Plain Python functions over symbolic integers: every path, each proved by z3.

A `Sym` stands for a Python int, not for a machine word: it knows bounds, and its bit-vector is
always wide enough for them, so no operation here ever wraps round. Where the code asks whether
something is true, the path forks; ways that cannot be gone are left out. At the end of each path
the caller's claim must follow from what the path assumed.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import z3

__all__ = ["REPLACED", "Engine", "IntSym", "Proof", "Sym", "SymBool"]

_MAX_WIDTH = 320


def _bits(low: int, high: int) -> int:
    """Return how many bits a two's complement number in [low, high] needs."""
    return max(high.bit_length(), (~low).bit_length() if low < 0 else 0) + 1


_BY_PREFIX = {
    z3.Z3_OP_BADD: lambda x, y: x + y,
    z3.Z3_OP_BSUB: lambda x, y: x - y,
    z3.Z3_OP_BMUL: lambda x, y: x * y,
    z3.Z3_OP_BAND: lambda x, y: x & y,
    z3.Z3_OP_BOR: lambda x, y: x | y,
    z3.Z3_OP_BXOR: lambda x, y: x ^ y,
}


def _low_bits(expr: Any, width: int) -> Any:
    """Return the low *width* bits, cut where the numbers come in: sums modulo a power of two are
    then plain sums of words, in which terms cancel."""
    kind, size = expr.decl().kind(), expr.size()
    if size == width:
        return expr
    if kind in (z3.Z3_OP_SIGN_EXT, z3.Z3_OP_ZERO_EXT):
        inner = expr.arg(0)
        if inner.size() >= width:
            return _low_bits(inner, width)
        extend = z3.SignExt if kind == z3.Z3_OP_SIGN_EXT else z3.ZeroExt
        return extend(width - inner.size(), inner)
    if kind in _BY_PREFIX:
        parts = [_low_bits(part, width) for part in expr.children()]
        return functools.reduce(_BY_PREFIX[kind], parts)
    return z3.Extract(width - 1, 0, expr)


class SymBool:
    """A condition; asking for its truth forks the path."""

    __slots__ = ("expr",)

    def __init__(self, expr: Any) -> None:
        self.expr = expr

    def __eq__(self, other: object) -> bool:
        return bool(self) == bool(other)

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        return Engine.current.fork(self.expr)

    def number(self) -> Sym:
        """Return 1 if it holds, else 0."""
        return Sym(z3.If(self.expr, z3.BitVecVal(1, 2), z3.BitVecVal(0, 2)), 0, 1)


class Sym:
    """An int somewhere in [low, high], as a signed bit-vector of just enough bits."""

    __slots__ = ("expr", "high", "low")

    def __init__(self, expr: Any, low: int, high: int) -> None:
        width = _bits(low, high)
        if width > _MAX_WIDTH:
            raise OverflowError("a symbolic number grows without end")
        size = expr.size()
        if size > width:
            expr = _low_bits(expr, width)
        elif size < width:
            expr = z3.SignExt(width - size, expr)
        self.expr, self.low, self.high = expr, low, high

    @staticmethod
    def of(x: Any) -> Sym:
        """Return *x* as a symbolic number."""
        if isinstance(x, Sym):
            return x
        if isinstance(x, SymBool):
            return x.number()
        return Sym(z3.BitVecVal(x, _bits(x, x)), x, x)

    def at(self, width: int) -> Any:
        """Return the bit-vector sign-extended or cut to *width* bits."""
        size = self.expr.size()
        if size < width:
            return z3.SignExt(width - size, self.expr)
        return self.expr if size == width else _low_bits(self.expr, width)

    def _with(self, other: Any, op: Callable[[Any, Any], Any], low: int, high: int) -> Sym:
        b = Sym.of(other)
        width = max(_bits(low, high), self.expr.size(), b.expr.size())
        return Sym(op(self.at(width), b.at(width)), low, high)

    def __add__(self, other: Any) -> Sym:
        b = Sym.of(other)
        return self._with(b, lambda x, y: x + y, self.low + b.low, self.high + b.high)

    def __sub__(self, other: Any) -> Sym:
        b = Sym.of(other)
        return self._with(b, lambda x, y: x - y, self.low - b.high, self.high - b.low)

    def __rsub__(self, other: Any) -> Sym:
        return Sym.of(other) - self

    def __mul__(self, other: Any) -> Sym:
        b = Sym.of(other)
        ends = [x * y for x in (self.low, self.high) for y in (b.low, b.high)]
        return self._with(b, lambda x, y: x * y, min(ends), max(ends))

    def __floordiv__(self, other: Any) -> Sym:
        b = Sym.of(other)
        if (self.low < 0 and Engine.current.may(self < 0)) or b.low < 0:
            raise NotImplementedError("only what is not negative is divided")
        return self._with(b, z3.UDiv, 0, self.high)

    def __and__(self, other: Any) -> Sym:
        b = Sym.of(other)
        ones = b.high if b.low == b.high else 0
        if ones > 0 and not ones & (ones + 1) and self.expr.size() >= ones.bit_length():
            return Sym(z3.ZeroExt(1, _low_bits(self.expr, ones.bit_length())), 0, ones)
        tops = [s.high for s in (self, b) if s.low >= 0]
        if tops:
            return self._with(b, lambda x, y: x & y, 0, min(tops))
        low = -(1 << max(_bits(s.low, s.high) for s in (self, b)) - 1)
        return self._with(b, lambda x, y: x & y, low, max(self.high, b.high))

    def __or__(self, other: Any) -> Sym:
        return self._either(other, lambda x, y: x | y)

    def __xor__(self, other: Any) -> Sym:
        return self._either(other, lambda x, y: x ^ y)

    def _either(self, other: Any, op: Callable[[Any, Any], Any]) -> Sym:
        b = Sym.of(other)
        size = max(_bits(s.low, s.high) for s in (self, b)) - 1
        low = 0 if self.low >= 0 and b.low >= 0 else -(1 << size)
        return self._with(b, op, low, (1 << size) - 1)

    def __lshift__(self, count: Any) -> Sym:
        if isinstance(count, Sym):
            raise NotImplementedError("shifts by unknown counts")
        low, high = self.low << count, self.high << count
        return Sym(self.at(_bits(low, high)) << count, low, high)

    def __rlshift__(self, _one: int) -> Sym:
        raise NotImplementedError("shifts by unknown counts")

    def __rshift__(self, count: int) -> Sym:
        low, high = self.low >> count, self.high >> count
        if count >= self.expr.size():
            count = self.expr.size() - 1
        return Sym(self.expr >> count, low, high)

    def __neg__(self) -> Sym:
        return 0 - self

    def __invert__(self) -> Sym:
        return Sym(~self.expr, ~self.high, ~self.low)

    def __abs__(self) -> Sym:
        if self.low >= 0:
            return self
        high = max(abs(self.low), abs(self.high))
        width = _bits(-high, high)
        x = self.at(width)
        return Sym(z3.If(x < 0, -x, x), 0, high)

    __radd__, __rmul__, __rand__, __ror__, __rxor__ = __add__, __mul__, __and__, __or__, __xor__

    def _compared(self, other: Any, op: Callable[[Any, Any], Any]) -> SymBool:
        b = Sym.of(other)
        width = max(self.expr.size(), b.expr.size())
        return SymBool(op(self.at(width), b.at(width)))

    def __lt__(self, other: Any) -> SymBool:
        return self._compared(other, lambda x, y: x < y)

    def __le__(self, other: Any) -> SymBool:
        return self._compared(other, lambda x, y: x <= y)

    def __gt__(self, other: Any) -> SymBool:
        return self._compared(other, lambda x, y: x > y)

    def __ge__(self, other: Any) -> SymBool:
        return self._compared(other, lambda x, y: x >= y)

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, int | Sym | SymBool):
            return False
        return self._compared(other, lambda x, y: x == y)

    def __ne__(self, other: object) -> Any:
        if not isinstance(other, int | Sym | SymBool):
            return True
        return self._compared(other, lambda x, y: x != y)

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        return bool(self != 0)

    def or_else(self, condition: SymBool, other: Any, low: int, high: int) -> Sym:
        """Return this number where *condition* holds, else *other*; it lies in [low, high]."""
        b = Sym.of(other)
        width = max(self.expr.size(), b.expr.size())
        return Sym(z3.If(condition.expr, self.at(width), b.at(width)), low, high)

    def bit_length(self) -> _Length:
        """Return the length, good for `1 << length` and `length >= n` only."""
        if self.low < 0 and Engine.current.may(self < 0):
            raise NotImplementedError("the length of a negative number")
        return _Length(Sym(self.expr, 0, self.high))


class IntSym(Sym):
    """A number as a z3 integer: for functions that add, compare and take remainders only."""

    __slots__ = ()

    def __init__(self, expr: Any, low: int, high: int) -> None:
        self.expr, self.low, self.high = expr, low, high

    @staticmethod
    def of(x: Any) -> IntSym:
        """Return *x* as a symbolic integer."""
        if isinstance(x, IntSym):
            return x
        if isinstance(x, SymBool):
            return IntSym(z3.If(x.expr, 1, 0), 0, 1)
        return IntSym(z3.IntVal(x), x, x)

    def __add__(self, other: Any) -> IntSym:
        b = IntSym.of(other)
        return IntSym(self.expr + b.expr, self.low + b.low, self.high + b.high)

    def __sub__(self, other: Any) -> IntSym:
        b = IntSym.of(other)
        return IntSym(self.expr - b.expr, self.low - b.high, self.high - b.low)

    def __rsub__(self, other: Any) -> IntSym:
        return IntSym.of(other) - self

    def __and__(self, other: Any) -> IntSym:
        ones = other if isinstance(other, int) else -1
        if ones <= 0 or ones & (ones + 1):
            raise NotImplementedError("integers have no bits")
        if self.low >= 0 and self.high <= ones:
            return self
        size = ones + 1
        if -size <= self.low and self.high <= ones:
            return IntSym(z3.If(self.expr < 0, self.expr + size, self.expr), 0, ones)
        return IntSym(self.expr % size, 0, ones)

    def __neg__(self) -> IntSym:
        return 0 - self

    def __or__(self, other: Any) -> Sym:
        raise NotImplementedError("integers have no bits")

    def __invert__(self) -> Sym:
        raise NotImplementedError("integers have no bits")

    def __mul__(self, other: Any) -> IntSym:
        b = IntSym.of(other)
        ends = [x * y for x in (self.low, self.high) for y in (b.low, b.high)]
        return IntSym(self.expr * b.expr, min(ends), max(ends))

    __xor__ = __lshift__ = __rshift__ = __floordiv__ = __rxor__ = __ror__ = __or__
    __radd__, __rand__, __rmul__ = __add__, __and__, __mul__

    def _compared(self, other: Any, op: Callable[[Any, Any], Any]) -> SymBool:
        return SymBool(op(self.expr, IntSym.of(other).expr))

    def or_else(self, condition: SymBool, other: Any, low: int, high: int) -> IntSym:
        """Return this number where *condition* holds, else *other*; it lies in [low, high]."""
        return IntSym(z3.If(condition.expr, self.expr, IntSym.of(other).expr), low, high)


class _Length:
    """The bit length of a number."""

    __slots__ = ("number",)

    def __init__(self, number: Sym) -> None:
        self.number = number

    def __ge__(self, n: int) -> SymBool:
        return self.number >= 1 << n - 1

    def __gt__(self, n: int) -> SymBool:
        return self.number >= 1 << n

    def __rlshift__(self, one: int) -> Sym:
        """The number with all bits below its highest one filled, plus one."""
        if one != 1:
            raise NotImplementedError("only 1 is shifted by a length")
        filled, step = self.number, 1
        while step < filled.high.bit_length():
            filled = filled | filled >> step
            step *= 2
        return filled + 1


def _least(*args: Any) -> Any:
    return _choose(args, min, lambda x, y: x <= y)


def _greatest(*args: Any) -> Any:
    return _choose(args, max, lambda x, y: x >= y)


def _choose(args: Any, plain: Callable[..., Any], better: Callable[[Any, Any], Any]) -> Any:
    items = list(args[0] if len(args) == 1 else args)
    if not any(isinstance(x, Sym) for x in items):
        return plain(items)
    kind = next(type(x) for x in items if isinstance(x, Sym))
    best = kind.of(items[0])
    for item in items[1:]:
        x = kind.of(item)
        best = best.or_else(better(best, x), x, plain(best.low, x.low), plain(best.high, x.high))
    return best


#: Builtins that would fork where a choice will do.
REPLACED: dict[str, Callable[..., Any]] = {"min": _least, "max": _greatest}


@dataclass
class Proof:
    """What came of one proof.

    Attributes:
        proven: every path's claim follows.
        paths: how many there are.
        unknown: paths where the solver gave up.
        counterexample: of the first false claim, in words.
        seconds: all of it.
    """

    proven: bool = True
    paths: int = 0
    unknown: int = 0
    counterexample: str = ""
    seconds: float = 0.0

    def join(self, other: Proof) -> None:
        """Add what came of another part of the same proof."""
        self.proven &= other.proven
        self.paths += other.paths
        self.unknown += other.unknown
        self.counterexample = self.counterexample or other.counterexample
        self.seconds += other.seconds


class Engine:
    """Runs a function along all its paths."""

    current: ClassVar[Engine]

    def __init__(self, timeout_s: int = 60) -> None:
        self.solver = z3.Solver()
        self.solver.set("timeout", timeout_s * 1000)
        self._timeout_s = timeout_s
        self.integers = False
        self._prefix: list[bool] = []
        self._taken: list[bool] = []
        self._open: list[list[bool]] = []
        self._names = 0

    def number(self, low: int, high: int, name: str = "n") -> Sym:
        """Return a new unknown in [low, high]."""
        width = _bits(low, high)
        self._names += 1
        if self.integers:
            whole = z3.Int(f"{name}.{self._names}")
            self.assume(z3.And(whole >= low, whole <= high))
            return IntSym(whole, low, high)
        var = z3.BitVec(f"{name}.{self._names}", width)
        self.assume(z3.And(var >= low, var <= high))
        return Sym(var, low, high)

    def assume(self, expr: Any) -> None:
        """Take *expr* for granted on this path."""
        self.solver.add(expr.expr if isinstance(expr, SymBool) else expr)

    def may(self, condition: SymBool) -> bool:
        """Return whether *condition* can hold on this path, or the solver can't tell."""
        return bool(self.solver.check(condition.expr) != z3.unsat)

    def fork(self, expr: Any) -> bool:
        """Return which way this path goes; leave the other for later if it can be gone."""
        expr = z3.simplify(expr)
        if z3.is_true(expr) or z3.is_false(expr):
            return bool(z3.is_true(expr))
        at = len(self._taken)
        if at < len(self._prefix):
            way = self._prefix[at]
        else:
            way = self.solver.check(expr) != z3.unsat
            if way and self.solver.check(z3.Not(expr)) != z3.unsat:
                self._open.append([*self._taken, False])
        self._taken.append(way)
        self.solver.add(expr if way else z3.Not(expr))
        return way

    def prove(self, body: Callable[[Engine], Iterable[Any]]) -> Proof:
        """Run *body* on each path; each of the conditions it returns must hold."""
        proof = Proof()
        started = time.perf_counter()
        self._open = [[]]
        while self._open:
            self._prefix, self._taken, self._names = self._open.pop(), [], 0
            Engine.current = self
            self.solver.push()
            claims = [c.expr if isinstance(c, SymBool) else c for c in body(self)]
            proof.paths += 1
            for claim in claims:
                for part in claim.children() if z3.is_and(claim) else [claim]:
                    self._conclude(proof, part)
            self.solver.pop()
            if proof.counterexample:
                break
        proof.seconds = time.perf_counter() - started
        return proof

    def _conclude(self, proof: Proof, claim: Any) -> None:
        if proof.counterexample:
            return
        # Not the incremental solver: it would do without the simplifications for whole problems.
        solver = z3.SolverFor("QF_LIA" if self.integers else "QF_BV")
        solver.set("timeout", self._timeout_s * 1000)
        solver.add(*self.solver.assertions(), z3.Not(claim))
        result = solver.check()
        if result == z3.sat:
            proof.proven = False
            proof.counterexample = str(solver.model())
        elif result == z3.unknown:
            proof.proven = False
            proof.unknown += 1
