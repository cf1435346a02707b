"""Every value there is, at widths small enough: the domain's own sources with words of a few bits.

A set of members is a bit mask: bit x stands for x. What an operation makes of two sets is worked
out once per pair of sets and compared with the members of what the domain says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import product
from typing import Any

from loader import load

from bpfvm.isa import AluOp, EndOp, JmpOp

__all__ = ["Unsound", "World"]

Set = int


class Unsound(AssertionError):
    """A member was lost."""


class World:
    """All scalars of both domains in words of *wide* bits with low halves of *half*."""

    def __init__(self, wide: int, half: int) -> None:
        self.wide, self.half = wide, half
        self.m = load(wide, half, 1, cached=True)
        self.size, self.low_size = 1 << wide, 1 << half
        self.ones, self.low_ones = self.size - 1, self.low_size - 1
        self._members: dict[Any, Set] = {}
        self.tnums = [
            (v, m) for m in range(self.size) for v in range(self.size) if not v & m
        ]  # fmt: skip

    def members(self, s: Any) -> Set:
        """Return the members of a scalar."""
        found = self._members.get(s)
        if found is None:
            contains = self.m.bounds.contains
            found = self._members[s] = sum(1 << x for x in range(self.size) if contains(s, x))
        return found

    def arcs(self, size: int) -> list[tuple[int, int]]:
        """Return every circular range of a word with *size* values."""
        return [(b, s) for s in range(size - 1) for b in range(size)] + [(0, size - 1)]

    def scalars(self, domain: str) -> list[Any]:
        """Return every scalar that *domain*'s sync leaves as it is (6.18) or makes (7.3)."""
        return sorted(self._cnums() if domain == "7.3" else self._ranges())

    def _cnums(self) -> set[Any]:
        sync = self.m.cnum_bounds.sync
        arcs = list(product(self.arcs(self.size), self.arcs(self.low_size)))
        return {s for t in self.tnums for a in arcs if (s := sync(*t, *a)) is not None}

    def _ranges(self) -> set[Any]:
        b = self.m.bounds
        wide, low = self.closed_ranges()
        return {
            s
            for t in self.tnums
            for ends in product(wide, low)
            if not b.is_broken(s := b.Scalar(*t, *ends[0], *ends[1])) and b.sync(s) == s
        }

    def all_ranges(self, size: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return every signed and every unsigned range of a word with *size* values."""
        half = size >> 1
        signed = [(a, b) for a in range(-half, half) for b in range(a, half)]
        return signed, [(a, b) for a in range(size) for b in range(a, size)]

    def closed_ranges(self) -> tuple[set[Any], set[Any]]:
        """Return the pairs of ranges of both widths that don't tighten each other."""
        b = self.m.bounds
        wide, low = set(), set()
        for s, u in product(*self.all_ranges(self.size)):
            x = b.UNKNOWN._replace(smin=s[0], smax=s[1], umin=u[0], umax=u[1])
            if b._by_other_sign(x) == x:
                wide.add((*s, *u))
        for s, u in product(*self.all_ranges(self.low_size)):
            x = b.UNKNOWN._replace(s32_min=s[0], s32_max=s[1], u32_min=u[0], u32_max=u[1])
            if b._low_by_wide(x) == x:
                low.add((*s, *u))
        return wide, low

    # -- what insns compute ---------------------------------------------------------------------

    def compute(self, op: AluOp, width: int, a: int, b: int) -> int:
        """Return what `a op= b` leaves in a register (RFC 9669 section 4.1)."""
        ones = (1 << width) - 1
        sext = self.m.width.sext
        a, b = a & ones, b & ones
        sa, sb = sext(a, width), sext(b, width)
        count = b % width
        quotient = abs(sa) // abs(sb) * (1 if (sa < 0) == (sb < 0) else -1) if sb else 0
        results = {
            AluOp.ADD: a + b, AluOp.SUB: a - b, AluOp.MUL: a * b, AluOp.DIV: a // b if b else 0,
            AluOp.SDIV: quotient, AluOp.OR: a | b, AluOp.AND: a & b, AluOp.LSH: a << count,
            AluOp.RSH: a >> count, AluOp.NEG: -a, AluOp.MOD: a % b if b else a,
            AluOp.SMOD: sa - quotient * sb, AluOp.XOR: a ^ b, AluOp.MOV: b, AluOp.ARSH: sa >> count,
        }  # fmt: skip
        return int(results[op] & ones)

    def holds(self, op: JmpOp, width: int, a: int, b: int) -> bool:
        """Return whether `a op b` (RFC 9669 section 4.3)."""
        ones = (1 << width) - 1
        sext = self.m.width.sext
        a, b = a & ones, b & ones
        sa, sb = sext(a, width), sext(b, width)
        results = {
            JmpOp.JEQ: a == b, JmpOp.JNE: a != b, JmpOp.JGT: a > b, JmpOp.JGE: a >= b,
            JmpOp.JLT: a < b, JmpOp.JLE: a <= b, JmpOp.JSET: a & b != 0, JmpOp.JSGT: sa > sb,
            JmpOp.JSGE: sa >= sb, JmpOp.JSLT: sa < sb, JmpOp.JSLE: sa <= sb,
        }  # fmt: skip
        return bool(results[op])

    # -- checks: each returns how many cases it tried ---------------------------------------------

    def check_binary(
        self,
        run: Callable[[Any, Any], Any],
        spec: Callable[[int, int], int],
        lefts: list[Any],
        rights: list[Any],
        stride: int = 1,
    ) -> int:
        """Try *run* on all pairs (each *stride*-th): no result of *spec* is lost."""
        row = [[1 << spec(x, y) for y in range(self.size)] for x in range(self.size)]

        @cache
        def of_one(x: int, ys: Set) -> Set:
            got = 0
            for y in _bits(ys):
                got |= row[x][y]
            return got

        @cache
        def image(xs: Set, ys: Set) -> Set:
            got = 0
            for x in _bits(xs):
                got |= of_one(x, ys)
            return got

        members = self.members
        right_sets = [(b, members(b)) for b in rights]
        tried = 0
        for i, a in enumerate(lefts):
            xs = members(a)
            for b, ys in right_sets[i % stride :: stride]:
                if image(xs, ys) & ~members(run(a, b)):
                    raise Unsound(f"{a} {b} -> {run(a, b)}")
                tried += 1
        return tried

    def check_unary(
        self, run: Callable[[Any], Any], spec: Callable[[int], int], scalars: list[Any]
    ) -> int:
        """Try *run* on all scalars."""
        for a in scalars:
            want = 0
            for x in _bits(self.members(a)):
                want |= 1 << spec(x)
            if want & ~self.members(run(a)):
                raise Unsound(f"{a} -> {run(a)}")
        return len(scalars)

    def check_compare(
        self, domain: str, op: JmpOp, width: int, lefts: list[Any], rights: list[Any],
        stride: int = 1,
    ) -> int:  # fmt: skip
        """Try a comparison on all pairs: predictions are right, and each way keeps its members."""
        branch = self.m.branch if domain == "6.18" else self.m.cnum_branch
        run = branch.comparison(op)
        below = [
            sum(1 << y for y in range(self.size) if self.holds(op, width, x, y))
            for x in range(self.size)
        ]

        @cache
        def ways(xs: Set, ys: Set) -> tuple[Set, Set, Set, Set]:
            """Return who goes the jump's way, left and right, and who does not."""
            left = right = other_left = other_right = 0
            for x in _bits(xs):
                if ys & below[x]:
                    left |= 1 << x
                    right |= ys & below[x]
                if ys & ~below[x]:
                    other_left |= 1 << x
                    other_right |= ys & ~below[x]
            return left, right, other_left, other_right

        members = self.members
        right_sets = [(b, members(b)) for b in rights]
        tried = 0
        for i, a in enumerate(lefts):
            xs = members(a)
            for b, ys in right_sets[i % stride :: stride]:
                outcome = run(width, a, b)
                taken = ways(xs, ys)
                tried += 1
                if isinstance(outcome, bool):
                    if taken[2 if outcome else 0]:
                        raise Unsound(f"{op.name}{width} {a} {b}: {outcome}")
                    continue
                got = [members(s) for pair in outcome for s in pair]
                if any(want & ~have for want, have in zip(taken, got, strict=True)):
                    raise Unsound(f"{op.name}{width} {a} {b} -> {outcome}")
        return tried

    def transfer(self, domain: str, op: AluOp, width: int) -> Callable[[Any, Any], Any]:
        """Return an operation as a function of two scalars."""
        table = self.m.alu.TRANSFER if domain == "6.18" else self.m.cnum_alu.TRANSFER
        function = table[op]
        return lambda a, b: function(width, a, b)

    def check_alu(
        self, domain: str, op: AluOp, width: int, lefts: list[Any], rights: list[Any],
        stride: int = 1,
    ) -> int:  # fmt: skip
        """Try an ALU operation on all pairs."""
        run = self.transfer(domain, op, width)
        return self.check_binary(
            run, lambda x, y: self.compute(op, width, x, y), lefts, rights, stride
        )

    def unaries(
        self, domain: str
    ) -> Iterator[tuple[str, Callable[[Any], Any], Callable[[int], int]]]:
        """Yield the functions of one scalar: name, function, what it does to a member."""
        alu = self.m.alu if domain == "6.18" else self.m.cnum_alu
        low = self.m.bounds if domain == "6.18" else self.m.cnum_bounds
        yield "zext32", low.zext32, partial(_cut, self.half)
        for size in (1, 2, 4):
            if size <= self.half:
                yield (
                    f"coerce_to_size {size} of {self.wide}",
                    _then(low.coerce_to_size, size),
                    partial(_cut, size),
                )
        for width, number in ((self.half, 32), (self.wide, 64)):
            yield f"neg{number}", partial(alu.neg, width), partial(_negative, width)
            for bits in (1, 2, 4):
                if bits < width:
                    spec = partial(self._extended, bits, width)
                    yield (
                        f"movsx{number} {bits} of {self.wide}",
                        partial(alu.movsx, width, bits),
                        spec,
                    )
        for bits, op in product((2, self.half, self.wide), EndOp):
            spec = partial(_cut, bits) if op is EndOp.LE else partial(self._swapped, bits)
            yield f"end {op.name} {bits} of {self.wide}", partial(alu.end, op, bits), spec

    def _extended(self, bits: int, width: int, x: int) -> int:
        return int(self.m.width.sext(x, bits)) & (1 << width) - 1

    def _swapped(self, bits: int, x: int) -> int:
        return int(self.m.width.bswap(_cut(bits, x), bits))

    def jobs(self, domain: str) -> Iterator[tuple[str, Callable[[list[Any]], tuple[int, int]]]]:
        """Yield every check of *domain*: its name, and what tries it on all scalars and returns how
        many pairs (or scalars) it tried, of how many."""
        stride = 1 if domain == "7.3" else 61  # 6.18 has five times as many scalars
        for width, bits in ((self.half, 32), (self.wide, 64)):
            for alu_op in AluOp:
                check = partial(self.check_alu, domain, alu_op, width)
                yield f"{alu_op.name.lower()}{bits}", partial(_on_pairs, check, stride)
            for jmp_op in JmpOp:
                check = partial(self.check_compare, domain, jmp_op, width)
                yield f"{jmp_op.name.lower()}{bits}", partial(_on_pairs, check, stride)
        for name, run, spec in self.unaries(domain):
            yield name, partial(_on_each, partial(self.check_unary, run, spec))
        whole = "sync: the whole" if domain == "7.3" else "sync: each step"
        yield whole, lambda _: (self.check_sync(domain),) * 2

    def check_sync(self, domain: str) -> int:
        """Try sync on everything there is; 6.18's at four bits step by step."""
        if domain == "7.3":
            return self._check_cnum_sync()
        return self._check_steps()

    def _check_cnum_sync(self) -> int:
        tried = 0
        low_sets = [
            sum(1 << x for x in range(self.size) if (x - b & self.low_ones) <= s)
            for b, s in self.arcs(self.low_size)
        ]
        wide_sets = [
            sum(1 << x for x in range(self.size) if (x - b & self.ones) <= s)
            for b, s in self.arcs(self.size)
        ]
        for v, m in self.tnums:
            known = sum(1 << x for x in range(self.size) if x & ~m & self.ones == v)
            for (wide, ws), (low, ls) in product(
                zip(self.arcs(self.size), wide_sets, strict=True),
                zip(self.arcs(self.low_size), low_sets, strict=True),
            ):
                s = self.m.cnum_bounds.sync(v, m, wide, low)
                tried += 1
                if known & ws & ls & ~(0 if s is None else self.members(s)):
                    raise Unsound(f"sync {v} {m} {wide} {low} -> {s}")
        return tried

    def _check_steps(self) -> int:
        """Each step on all that it reads: the rest of the scalar it hands on."""
        b = self.m.bounds
        all_wide = [(*s, *u) for s, u in product(*self.all_ranges(self.size))]
        all_low = [(*s, *u) for s, u in product(*self.all_ranges(self.low_size))]
        full_wide, full_low = b.UNKNOWN[2:6], b.UNKNOWN[6:10]
        unsigned = [(*b.UNKNOWN[2:4], *u) for u in self.all_ranges(self.size)[1]]
        low_unsigned = [(*b.UNKNOWN[6:8], *u) for u in self.all_ranges(self.low_size)[1]]
        anything = [(0, self.ones)]
        inputs = {
            "_by_tnum": [(self.tnums, all_wide, [full_low]), (self.tnums, [full_wide], all_low)],
            "_low_by_wide": [(anything, all_wide, all_low)],
            "_by_other_sign": [(anything, all_wide, [full_low])],
            "_by_low_half": [(anything, all_wide, all_low), (self.tnums, [full_wide], all_low)],
            "_tnum_by_ranges": [(self.tnums, unsigned, low_unsigned)],
        }
        tried = 0
        for name, groups in inputs.items():
            step = getattr(b, name)
            for group in groups:
                for t, wide, low in product(*group):
                    s = b.Scalar(*t, *wide, *low)
                    tried += 1
                    if self._plain_members(s) & ~self._plain_members(step(s)):
                        raise Unsound(f"{name} {s} -> {step(s)}")
        return tried

    def _plain_members(self, s: Any) -> Set:
        """Return the members of a scalar without gaps, from those of its parts."""
        return int(
            self._of_tnum(s[0], s[1]) & self._between(s[2], s[3], self.wide)
            & self._between(s[4], s[5], self.wide) & self._between(s[6], s[7], self.half)
            & self._between(s[8], s[9], self.half)
        )  # fmt: skip

    @cache  # noqa: B019  # worlds live as long as the checks
    def _of_tnum(self, value: int, mask: int) -> Set:
        return sum(1 << x for x in range(self.size) if x & ~mask & self.ones == value)

    @cache  # noqa: B019
    def _between(self, low: int, high: int, bits: int) -> Set:
        """Return the words whose low *bits* lie in [low, high], read as that range is."""
        sext, ones = self.m.width.sext, (1 << bits) - 1
        return sum(
            1 << x
            for x in range(self.size)
            if low <= x & ones <= high or (low < 0 and low <= sext(x, bits) <= high)
        )


def _cut(bits: int, x: int) -> int:
    return x & (1 << bits) - 1


def _negative(bits: int, x: int) -> int:
    return -x & (1 << bits) - 1


def _then(function: Callable[..., Any], last: int) -> Callable[[Any], Any]:
    return lambda s: function(s, last)


def _on_pairs(check: Callable[..., int], stride: int, scalars: list[Any]) -> tuple[int, int]:
    return check(scalars, scalars, stride), len(scalars) ** 2


def _on_each(check: Callable[[list[Any]], int], scalars: list[Any]) -> tuple[int, int]:
    return check(scalars), len(scalars)


@cache
def _bits(mask: Set) -> tuple[int, ...]:
    return tuple(x for x in range(mask.bit_length()) if mask >> x & 1)
