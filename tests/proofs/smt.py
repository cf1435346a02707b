"""What is proved of each function of the value domain by z3, over its own source.

A proof is modular: `settle` and `sync` are stubs that hand on what they got, for they are proved by
themselves; so is `cnum.cut_by_low` where the glue around it is proved. An operand is any tnum, any
ends and any circular ranges that all hold the member, so that nothing rests on how they were made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import z3
from loader import Sources, load
from merging import HELPERS, merge_branches
from symbolic import REPLACED, Engine, Proof, Sym, SymBool

from bpfvm.isa import AluOp, EndOp, JmpOp

__all__ = ["Task", "tasks"]

Body = Callable[[Engine], list[Any]]


class Task(NamedTuple):
    """One proof: of which function, in which domain, at which width, in how many parts."""

    function: str
    domain: str
    width: int
    parts: list[Body]

    def run(self, timeout_s: int) -> Proof:
        """Prove all parts, up to the first that fails."""
        proof = Proof()
        for part in self.parts:
            proof.join(Engine(timeout_s).prove(part))
            if proof.counterexample:
                break
        return proof


class Parts(NamedTuple):
    """What is handed to `settle` or `sync` of 7.3's domain."""

    value: Any
    mask: Any
    wide: Any
    low: Any


class Operand:
    """A scalar of 7.3's domain with some member: its fields, and the ranges it packs."""

    def __init__(self, scalar: Any, wide: Any, low: Any) -> None:
        self.scalar, self.wide, self.low = scalar, wide, low

    def __getattr__(self, name: str) -> Any:
        return getattr(self.scalar, name)

    def __getitem__(self, at: Any) -> Any:
        return self.scalar[at]


class Kit:
    """The sources at one width, and numbers for them."""

    def __init__(self, wide: int, half: int, byte: int, **stubs: Any) -> None:
        self.wide, self.half, self.byte = wide, half, byte
        self.m: Sources = load(
            wide, half, byte, replaced={**REPLACED, **HELPERS}, parse=merge_branches, stubs=stubs
        )
        self.ones, self.low_ones = (1 << wide) - 1, (1 << half) - 1

    def word(self, e: Engine) -> Sym:
        return e.number(0, self.ones, "x")

    def holds_tnum(self, t: Any, x: Any) -> Any:
        return (Sym.of(x) & ~Sym.of(t[1]) & self.ones) == t[0]

    def holds_range(self, a: Any, x: Any, ones: int) -> Any:
        return (x - a[0] & ones) <= a[1]

    def contains(self, s: Any, x: Any) -> Any:
        """Return the condition that *x* is a member of what a function returned."""
        if isinstance(s, Operand):
            s = Parts(s.value, s.mask, s.wide, s.low)
        if isinstance(s, Parts):
            if s.wide is None or s.low is None:
                return z3.BoolVal(False)
            return z3.And(
                self.holds_tnum((s.value, s.mask), x).expr,
                self.holds_range(s.wide, x, self.ones).expr,
                self.holds_range(s.low, x, self.low_ones).expr,
            )
        x = Sym.of(x)
        low = x & self.low_ones
        signed, low_signed = self.m.width.s64(x), self.m.width.s32(x)
        claims = [
            self.holds_tnum((s.value, s.mask), x),
            x >= s.umin, x <= s.umax, signed >= s.smin, signed <= s.smax,
            low >= s.u32_min, low <= s.u32_max,
            low_signed >= s.s32_min, low_signed <= s.s32_max,
        ]  # fmt: skip
        for gap, bits, ones in (
            (s.gap64, self.wide, self.ones),
            (s.gap32, self.half, self.low_ones),
        ):
            if isinstance(gap, Sym) or gap:
                inside = self.holds_range((gap >> bits, gap & ones), x, ones)
                claims.append(SymBool(z3.Or((gap == 0).expr, inside.expr)))
        return z3.And(*[c.expr for c in claims])

    def tnum(self, e: Engine, x: Any) -> Any:
        """Return a tnum that holds *x*."""
        value, mask = e.number(0, self.ones, "v"), e.number(0, self.ones, "m")
        e.assume(value & mask == 0)
        e.assume(self.holds_tnum((value, mask), x))
        return self.m.tnum.Tnum(value, mask)

    def range_(self, e: Engine, x: Any, ones: int) -> tuple[Sym, Sym]:
        """Return a circular range that holds *x*; a full one begins at 0."""
        size, ahead = e.number(0, ones, "s"), e.number(0, ones, "t")
        base = x - ahead & ones
        e.assume(z3.Or((size != ones).expr, (base == 0).expr))
        e.assume(ahead <= size)
        return base, size

    def scalar(self, e: Engine, x: Any) -> Any:
        """Return a scalar of 6.18's domain that holds *x*."""
        w = self.m.width
        t = self.tnum(e, x)
        ends = [
            e.number(low, high, name)
            for low, high, name in (
                (w.S64_MIN, w.S64_MAX, "s"), (0, w.U64_MAX, "u"),
                (w.S32_MIN, w.S32_MAX, "sl"), (0, w.U32_MAX, "ul"),
            )
            for _ in range(2)
        ]  # fmt: skip
        s = self.m.bounds.Scalar(*t, *ends)
        e.assume(self.contains(s, x))
        return s

    def operand(self, e: Engine, x: Any) -> Operand:
        """Return a scalar of 7.3's domain that holds *x*."""
        wide, low = self.range_(e, x, self.ones), self.range_(e, x, self.low_ones)
        return Operand(self.scalar(e, x), wide, low)

    def computed(self, op: AluOp, width: int, x: Any, y: Any) -> Sym:
        """Return what `x op= y` leaves in a register (RFC 9669 section 4.1)."""
        a, b = Sym.of(x).at(width), Sym.of(y).at(width)
        count = b & (width - 1)
        quotient = z3.If(b == 0, z3.BitVecVal(0, width), a / b)
        results = {
            AluOp.ADD: a + b, AluOp.SUB: a - b, AluOp.MUL: a * b, AluOp.OR: a | b, AluOp.AND: a & b,
            AluOp.XOR: a ^ b, AluOp.MOV: b, AluOp.NEG: -a,
            AluOp.LSH: a << count, AluOp.RSH: z3.LShR(a, count), AluOp.ARSH: a >> count,
            AluOp.DIV: z3.If(b == 0, z3.BitVecVal(0, width), z3.UDiv(a, b)),
            AluOp.MOD: z3.If(b == 0, a, z3.URem(a, b)),
            AluOp.SDIV: quotient, AluOp.SMOD: z3.If(b == 0, a, z3.SRem(a, b)),
        }  # fmt: skip
        return Sym(z3.ZeroExt(1, results[op]), 0, (1 << width) - 1)

    def holds(self, op: JmpOp, width: int, x: Any, y: Any) -> Any:
        """Return the condition that `x op y` (RFC 9669 section 4.3)."""
        a, b = Sym.of(x).at(width), Sym.of(y).at(width)
        return {
            JmpOp.JEQ: a == b, JmpOp.JNE: a != b, JmpOp.JSET: a & b != 0,
            JmpOp.JGT: z3.UGT(a, b), JmpOp.JGE: z3.UGE(a, b),
            JmpOp.JLT: z3.ULT(a, b), JmpOp.JLE: z3.ULE(a, b),
            JmpOp.JSGT: a > b, JmpOp.JSGE: a >= b, JmpOp.JSLT: a < b, JmpOp.JSLE: a <= b,
        }[op]  # fmt: skip


def _range_of(name: str) -> Callable[[Any], Any]:
    """Return a stand-in for `bounds.range64` or `range32`: operands carry their ranges."""

    def given(s: Any) -> Any:
        if isinstance(s, Operand):
            return s.wide if name == "range64" else s.low
        bits = ("umin", "umax") if name == "range64" else ("u32_min", "u32_max")
        low, high = (getattr(s, end) for end in bits)
        return low, high - low

    return given


_SAME = {"settle": lambda s: s, "sync": lambda s: s}
_RANGES = {name: _range_of(name) for name in ("range64", "range32")}
_HANDED_ON = {"settle": Parts, "sync": Parts}


def ranges_kit(wide: int = 64, half: int = 32, byte: int = 8) -> Kit:
    """Return 6.18's domain, but for `settle`."""
    return Kit(wide, half, byte, bounds=_SAME)


def cnum_kit(wide: int = 64, half: int = 32, byte: int = 8) -> Kit:
    """Return 7.3's domain, but for `settle`, `sync` and the unpacking of scalars."""
    return Kit(wide, half, byte, bounds={**_SAME, **_RANGES}, cnum_bounds=_HANDED_ON)


def plain_kit(wide: int = 64, half: int = 32, byte: int = 8) -> Kit:
    """Return both domains with nothing left out."""
    return Kit(wide, half, byte)


def _operand(kit: Kit, domain: str) -> Callable[[Engine, Any], Any]:
    return kit.scalar if domain == "6.18" else kit.operand


def _transfers(kit: Kit, domain: str) -> Any:
    return kit.m.alu.TRANSFER if domain == "6.18" else kit.m.cnum_alu.TRANSFER


# -- contracts ---------------------------------------------------------------------------------


class Contracts:
    """`cnum` as its proofs describe it: any range that holds what it must of some words.

    Each function promises of every word in *words* (and its low half) just what `cnum_function`
    proves of every number.
    """

    def __init__(self, kit: Kit, e: Engine, words: list[Any]) -> None:
        self.kit, self.e = kit, e
        self.words = {kit.ones: words, kit.low_ones: [x & kit.low_ones for x in words]}
        if kit.ones == kit.low_ones:
            raise ValueError("the low half is no half")

    def fresh(self, ones: int) -> tuple[Sym, Sym]:
        return self.e.number(0, ones, "b"), self.e.number(0, ones, "s")

    def holding(self, ones: int, when: Callable[[Any], Any], *, may_be_empty: bool = False) -> Any:
        """Return a range that holds each word *when* says so; or None if that is none."""
        if may_be_empty and SymBool(z3.Bool(f"empty.{self.e.number(0, 1).expr}")):
            self.e.assume(z3.And(*(z3.Not(when(x)) for x in self.words[ones])))
            return None
        result = self.fresh(ones)
        for x in self.words[ones]:
            self.e.assume(z3.Implies(when(x), self.kit.holds_range(result, x, ones).expr))
        return result

    def holds(self, a: Any, x: Any, ones: int) -> Any:
        return self.kit.holds_range(a, x, ones).expr

    def intersect(self, a: Any, b: Any, ones: int) -> Any:
        return self.holding(
            ones,
            lambda x: z3.And(self.holds(a, x, ones), self.holds(b, x, ones)),
            may_be_empty=True,
        )

    def of_tnum(self, value: Any, mask: Any, sign: int) -> Any:
        ones = 2 * sign - 1
        return self.holding(ones, lambda x: ((x & ~Sym.of(mask) & ones) == value).expr)

    def from_range(self, low: Any, high: Any, ones: int) -> Any:
        sign = (ones + 1) >> 1
        return self.holding(
            ones,
            lambda x: z3.Or(
                z3.And((x >= low).expr, (x <= high).expr),
                z3.And(((x ^ sign) - sign >= low).expr, ((x ^ sign) - sign <= high).expr),
            ),
        )

    def low_half(self, a: Any) -> Any:
        result = self.fresh(self.kit.low_ones)
        for x in self.words[self.kit.ones]:
            inside = self.holds(result, x & self.kit.low_ones, self.kit.low_ones)
            self.e.assume(z3.Implies(self.holds(a, x, self.kit.ones), inside))
        return result

    def cut_by_low(self, a: Any, low: Any) -> Any:
        ones, low_ones = self.kit.ones, self.kit.low_ones
        return self.holding(
            ones,
            lambda x: z3.And(self.holds(a, x, ones), self.holds(low, x & low_ones, low_ones)),
            may_be_empty=True,
        )

    def add(self, a: Any, b: Any, ones: int) -> Any:
        return self._sums(a, b, ones, lambda x, y: x + y)

    def sub(self, a: Any, b: Any, ones: int) -> Any:
        return self._sums(a, b, ones, lambda x, y: x - y)

    def _sums(self, a: Any, b: Any, ones: int, op: Callable[[Any, Any], Any]) -> Any:
        result = self.fresh(ones)
        x, y = self.words[ones][:2]
        for p, q in ((x, y), (Sym.of(0), x)):
            inside = z3.And(self.holds(a, p, ones), self.holds(b, q, ones))
            self.e.assume(z3.Implies(inside, self.holds(result, op(p, q), ones)))
        return result


_CONTRACTS = ("intersect", "of_tnum", "from_range", "low_half", "cut_by_low", "add", "sub")


def rely_on_contracts(kit: Kit, domain: str, e: Engine, *words: Any) -> None:
    """Put `Contracts` in `cnum`'s place for this run."""
    if domain == "7.3":
        contracts = Contracts(kit, e, list(words))
        for name in _CONTRACTS:
            setattr(kit.m.cnum, name, getattr(contracts, name))


# -- bodies ------------------------------------------------------------------------------------


def binary(kit: Kit, domain: str, op: AluOp, width: int, e: Engine) -> list[Any]:
    """`dst op= src`: the result holds what the insn computes."""
    x, y = kit.word(e), kit.word(e)
    make = _operand(kit, domain)
    a, b, got = make(e, x), make(e, y), kit.computed(op, width, x, y)
    rely_on_contracts(kit, domain, e, x, y, got)
    return [kit.contains(_transfers(kit, domain)[op](width, a, b), got)]


def divided(kit: Kit, op: AluOp, width: int, c: int, e: Engine) -> list[Any]:
    """`dst op= c`: as `binary`, for one divisor."""
    x = kit.word(e)
    a, got = kit.operand(e, x), kit.computed(op, width, x, c)
    rely_on_contracts(kit, "7.3", e, x, got)
    return [kit.contains(kit.m.cnum_alu.TRANSFER[op](width, a, kit.m.bounds.const(c)), got)]


def shifted(kit: Kit, domain: str, op: AluOp, width: int, k: int, e: Engine) -> list[Any]:
    """A shift by *k*."""
    x = kit.word(e)
    dst, src = _operand(kit, domain)(e, x), kit.m.bounds.const(k)
    got = kit.computed(op, width, x, k)
    rely_on_contracts(kit, domain, e, x, got)
    return [kit.contains(_transfers(kit, domain)[op](width, dst, src), got)]


def compared(kit: Kit, domain: str, op: JmpOp, width: int, e: Engine) -> list[Any]:
    """A conditional jump: it is predicted rightly, and each way keeps what goes it.

    In 7.3's domain a way that leaves no range (`sync` is then given None) is dead: so no pair of
    members goes it.
    """
    x, y = kit.word(e), kit.word(e)
    make = _operand(kit, domain)
    module = kit.m.branch if domain == "6.18" else kit.m.cnum_branch
    left, right = make(e, x), make(e, y)
    rely_on_contracts(kit, domain, e, x, y)
    if domain == "7.3":
        kit.m.branch.is_taken = lambda op, width, *_: _taken_by_contract(kit, e, x, y, op, width)
    outcome = module.comparison(op)(width, left, right)
    holds = kit.holds(op, width, x, y)
    if isinstance(outcome, bool | SymBool):
        said = outcome.expr if isinstance(outcome, SymBool) else z3.BoolVal(outcome)
        return [said == holds]
    (a, b), (c, d) = outcome
    return [
        z3.Implies(holds, z3.And(kit.contains(a, x), kit.contains(b, y))),
        z3.Implies(z3.Not(holds), z3.And(kit.contains(c, x), kit.contains(d, y))),
    ]


def predicted(kit: Kit, op: JmpOp, width: int, e: Engine) -> list[Any]:
    """`branch.is_taken`, which both domains ask first, of any ends that hold the members."""
    x, y = kit.word(e), kit.word(e)
    said = kit.m.branch.is_taken(op, width, kit.scalar(e, x), kit.scalar(e, y))
    return [] if said is None else [_truth(said) == kit.holds(op, width, x, y)]


def _taken_by_contract(kit: Kit, e: Engine, x: Any, y: Any, op: JmpOp, width: int) -> Any:
    """`branch.is_taken` as its own proof describes it."""
    if SymBool(z3.Bool("undecided")):
        return None
    always = bool(SymBool(z3.Bool("always")))
    holds = kit.holds(op, width, x, y)
    e.assume(holds if always else z3.Not(holds))
    return always


def unary(kit: Kit, domain: str, run: Callable[[Kit, Any], Any], spec: Callable[[Kit, Any], Any],
          e: Engine) -> list[Any]:  # fmt: skip
    """Any function of one scalar: the result holds *spec* of the member."""
    x = kit.word(e)
    a, got = _operand(kit, domain)(e, x), spec(kit, x)
    rely_on_contracts(kit, domain, e, x, got)
    return [kit.contains(run(kit, a), got)]


def tnum_binary(kit: Kit, name: str, spec: Callable[[Any, Any], Any], e: Engine) -> list[Any]:
    """A tnum operation: the result holds the operation of the members."""
    x, y = kit.word(e), kit.word(e)
    result = getattr(kit.m.tnum, name)(kit.tnum(e, x), kit.tnum(e, y))
    got = spec(x, y) & kit.ones
    return [kit.holds_tnum(result, got), result[0] & result[1] == 0]


def tnum_unary(kit: Kit, run: Callable[[Kit, Any], Any], spec: Callable[[Kit, Any], Any],
               e: Engine) -> list[Any]:  # fmt: skip
    x = kit.word(e)
    result = run(kit, kit.tnum(e, x))
    return [kit.holds_tnum(result, spec(kit, x)), Sym.of(result[0]) & result[1] == 0]


def _tnum_shift(kit: Kit, name: str, k: int, e: Engine) -> list[Any]:
    m = kit.m.tnum
    if name.startswith("arshift"):
        bits = kit.half if name.endswith("32") else kit.wide
        run, spec = lambda _, t: m.arshift(t, k, bits), AluOp.ARSH
    else:
        bits = kit.wide
        run = lambda _, t: getattr(m, name)(t, k)  # noqa: E731
        spec = AluOp.LSH if name == "lshift" else AluOp.RSH
    return tnum_unary(kit, run, lambda kit, x: kit.computed(spec, bits, x, k), e)


def tnum_range(kit: Kit, e: Engine) -> list[Any]:
    low, high, x = kit.word(e), kit.word(e), kit.word(e)
    e.assume(low <= x)
    e.assume(x <= high)
    result = kit.m.tnum.range_(low, high)
    return [kit.holds_tnum(result, x), Sym.of(result[0]) & result[1] == 0]


def tnum_joined(kit: Kit, e: Engine) -> list[Any]:
    x, y = kit.word(e), kit.word(e)
    result = kit.m.tnum.union(kit.tnum(e, x), kit.tnum(e, y))
    return [kit.holds_tnum(result, x), kit.holds_tnum(result, y), result[0] & result[1] == 0]


def tnum_met(kit: Kit, e: Engine) -> list[Any]:
    x = kit.word(e)
    result = kit.m.tnum.intersect(kit.tnum(e, x), kit.tnum(e, x))
    return [kit.holds_tnum(result, x), result[0] & result[1] == 0]


def tnum_is_in(kit: Kit, e: Engine) -> list[Any]:
    x = kit.word(e)
    inner, outer = kit.tnum(e, x), kit.tnum(e, kit.word(e))
    said = kit.m.tnum.is_in(outer, inner)
    return [z3.Implies(_truth(said), kit.holds_tnum(outer, x).expr)]


def tnum_overlap(kit: Kit, e: Engine) -> list[Any]:
    x = kit.word(e)
    return [_truth(kit.m.tnum.overlap(kit.tnum(e, x), kit.tnum(e, x)))]


def tnum_next(kit: Kit, e: Engine) -> list[Any]:
    """No member lies between a number and the next member; the next one is a member."""
    x, at = kit.word(e), kit.word(e)
    t = kit.tnum(e, x)
    following = kit.m.tnum.next_member(t, at)
    return [
        kit.holds_tnum(t, following),
        z3.Implies((x > at).expr, (Sym.of(following) <= x).expr),
    ]


def _truth(x: Any) -> Any:
    return x.expr if isinstance(x, SymBool) else z3.BoolVal(x)


def step(kit: Kit, name: str, e: Engine) -> list[Any]:
    """A step of 6.18's sync keeps the member."""
    x = kit.word(e)
    return [kit.contains(getattr(kit.m.bounds, name)(kit.scalar(e, x)), x)]


def only_member(kit: Kit, e: Engine) -> list[Any]:
    """The only member of a tnum in a range is said to be no other than the member there."""
    x, low, high = kit.word(e), kit.word(e), kit.word(e)
    t = kit.tnum(e, x)
    e.assume(low <= x)
    e.assume(x <= high)
    only = kit.m.bounds.only_member(*t, low, high)
    return [] if only is None else [x == only]


def _only_by_contract(
    kit: Kit, e: Engine, x: Any, value: Any, mask: Any, low: Any, high: Any
) -> Any:
    """`only_member` as `only_member`'s proof describes it."""
    if SymBool(z3.Bool("none")):
        return None
    only = kit.word(e)
    inside = z3.And(kit.holds_tnum((value, mask), x).expr, (low <= x).expr, (x <= high).expr)
    e.assume(z3.Implies(inside, (only == x).expr))
    return only


def synced(kit: Kit, e: Engine) -> list[Any]:
    """7.3's sync around its steps, each of which is any range or tnum that keeps the member."""
    x = kit.word(e)
    t = kit.tnum(e, x)
    kit.m.cnum_bounds.__dict__.update(
        _by_tnum=lambda *_: (kit.range_(e, x, kit.ones), kit.range_(e, x, kit.low_ones)),
        _by_each_other=lambda *_: (kit.range_(e, x, kit.ones), kit.range_(e, x, kit.low_ones)),
        _only_member=lambda *_: x if SymBool(z3.Bool(f"only{len(e._taken)}")) else None,
        _tnum_by_ranges=lambda *_: kit.tnum(e, x),
        pack=Parts,
    )
    result = kit.m.cnum_bounds.sync(*t, kit.range_(e, x, kit.ones), kit.range_(e, x, kit.low_ones))
    return [z3.BoolVal(False) if result is None else kit.contains(result, x)]


def cnum_step(kit: Kit, name: str, e: Engine) -> list[Any]:
    """A step of 7.3's sync keeps the member."""
    x = kit.word(e)
    t = kit.tnum(e, x)
    wide, low = kit.range_(e, x, kit.ones), kit.range_(e, x, kit.low_ones)
    m = kit.m.cnum_bounds
    rely_on_contracts(kit, "7.3", e, x)
    if name == "_by_tnum":
        ranges = m._by_tnum(*t, wide, low)
    elif name == "_by_each_other":
        ranges = m._by_each_other(wide, low)
    elif name == "_only_member":
        kit.m.bounds.only_member = partial(_only_by_contract, kit, e, x)
        only = m._only_member(*t, wide)
        return [] if only is None else [x == only]
    elif name == "_tnum_by_ranges":
        t, ranges = m._tnum_by_ranges(*t, wide, low), (wide, low)
    else:
        return [kit.contains(m.pack(*t, wide, low), x)]
    if ranges is None:
        return [z3.BoolVal(False)]
    return [kit.contains(Parts(*t, *ranges), x)]


def unpacked(kit: Kit, name: str, e: Engine) -> list[Any]:
    """`range64`, `range32` of any scalar (its gap unpacked) hold its members."""
    x = kit.word(e)
    s = kit.scalar(e, x)
    return [
        kit.holds_range(
            getattr(kit.m.bounds, name)(s), x, kit.ones if name == "range64" else kit.low_ones
        )
    ]


def cnum_function(kit: Kit, name: str, low: bool, e: Engine) -> list[Any]:
    """A function on circular ranges keeps members, or holds what becomes of them.

    They add and compare: integers do, which are easier than words. Only tnums have bits.
    """
    e.integers = name != "of_tnum"
    ones = kit.low_ones if low else kit.ones
    bits = kit.half if low else kit.wide
    m = kit.m.cnum
    x, y = e.number(0, ones, "x"), e.number(0, ones, "y")
    if name in ("add", "sub"):
        a, b = kit.range_(e, x, ones), kit.range_(e, y, ones)
        spec = x + y if name == "add" else x - y
        return [kit.holds_range(getattr(m, name)(a, b, ones), spec, ones)]
    a = kit.range_(e, x, ones)
    match name:
        case "neg":
            return [kit.holds_range(m.neg(a, ones), -x, ones)]
        case "intersect":
            both = m.intersect(a, kit.range_(e, x, ones), ones)
            return [z3.BoolVal(False) if both is None else kit.holds_range(both, x, ones)]
        case "is_in":
            outer = kit.range_(e, y, ones)
            return [
                z3.Implies(_truth(m.is_in(outer, a, ones)), kit.holds_range(outer, x, ones).expr)
            ]
        case "contains":
            return [_truth(m.contains(a, x, ones))]
        case "from_range":
            z = e.number(0, ones, "z")
            e.assume(y <= x)
            e.assume(x <= z)
            sign = 1 << bits - 1
            signed = m.from_range(y - sign, z - sign, ones)
            return [
                kit.holds_range(m.from_range(y, z, ones), x, ones),
                kit.holds_range(signed, x - sign, ones),
            ]
        case "of_tnum":
            value, mask = e.number(0, ones, "v"), e.number(0, ones, "m")
            e.assume(value & mask == 0)
            e.assume((x & ~mask & ones) == value)
            return [kit.holds_range(m.of_tnum(value, mask, 1 << bits - 1), x, ones)]
        case "low_half":
            return [kit.holds_range(m.low_half(a), x, kit.low_ones)]
        case "cut_by_low":
            cut = m.cut_by_low(a, kit.range_(e, x, kit.low_ones))
            return [z3.BoolVal(False) if cut is None else kit.holds_range(cut, x, ones)]
        case _:
            raise ValueError(name)


def mul_by_tnum(kit: Kit, value: int, mask: int, e: Engine) -> list[Any]:
    """Tnum multiplication by one tnum: the loop is then straight."""
    x, y = kit.word(e), kit.word(e)
    e.assume(kit.holds_tnum((value, mask), x))
    result = kit.m.tnum.mul(kit.m.tnum.Tnum(value, mask), kit.tnum(e, y))
    product = kit.computed(AluOp.MUL, kit.wide, x, y)
    return [kit.holds_tnum(result, product), Sym.of(result[0]) & result[1] == 0]


# -- which -------------------------------------------------------------------------------------

_DIVISIONS = (AluOp.DIV, AluOp.SDIV, AluOp.MOD, AluOp.SMOD)
_SHIFTS = (AluOp.LSH, AluOp.RSH, AluOp.ARSH)
_LINEAR = (AluOp.ADD, AluOp.SUB, AluOp.AND, AluOp.OR, AluOp.XOR, AluOp.MOV, AluOp.NEG)
_STEPS = ("_by_tnum", "_low_by_wide", "_by_other_sign", "_by_low_half", "_tnum_by_ranges")
_CNUM_STEPS = ("_by_tnum", "_only_member", "_by_each_other", "_tnum_by_ranges", "pack")


def _tnum_tasks(kit: Kit) -> Iterator[Task]:
    wide = kit.wide
    specs: dict[str, Callable[[Any, Any], Any]] = {
        "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "and_": lambda x, y: x & y,
        "or_": lambda x, y: x | y, "xor": lambda x, y: x ^ y,
    }  # fmt: skip
    for name, spec in specs.items():
        yield Task(f"tnum.{name}", "both", wide, [partial(tnum_binary, kit, name, spec)])
    m = kit.m.tnum
    for name in ("lshift", "rshift", "arshift", "arshift32"):
        counts = range(kit.half if name.endswith("32") else wide)
        parts: list[Body] = [partial(_tnum_shift, kit, name, k) for k in counts]
        yield Task(f"tnum.{name}", "both", wide, parts)
    unary_specs: dict[str, tuple[Callable[[Kit, Any], Any], Callable[[Kit, Any], Any]]] = {
        "neg": (lambda k, t: m.neg(t), lambda k, x: -x & k.ones),
        "subreg": (lambda k, t: m.subreg(t), lambda k, x: x & k.low_ones),
    }
    for bits in (2 * kit.byte, kit.half, wide):
        unary_specs[f"byte_swap {bits}"] = _call(m.byte_swap, after=(bits,)), _swapped(bits)
    for name, (run, spec1) in unary_specs.items():
        yield Task(f"tnum.{name}", "both", wide, [partial(tnum_unary, kit, run, spec1)])
    low = kit.low_ones
    yield Task("tnum.with_subreg", "both", wide, [
        partial(tnum_binary, kit, "with_subreg", lambda x, y: (x & ~low) | (y & low))
    ])  # fmt: skip
    for name, body in (
        ("range_", tnum_range), ("union", tnum_joined), ("intersect", tnum_met),
        ("is_in", tnum_is_in), ("overlap", tnum_overlap), ("next_member", tnum_next),
    ):  # fmt: skip
        yield Task(f"tnum.{name}", "both", wide, [partial(body, kit)])


def _sync_tasks(kit: Kit) -> Iterator[Task]:
    for name in _STEPS:
        yield Task(f"sync: {name}", "6.18", kit.wide, [partial(step, kit, name)])
    yield Task("sync: only_member", "both", kit.wide, [partial(only_member, kit)])
    kit = plain_kit(kit.wide, kit.half, kit.byte)  # one for contracts
    for name in _CNUM_STEPS:
        yield Task(f"sync: {name}", "7.3", kit.wide, [partial(cnum_step, kit, name)])
    for name in ("range64", "range32"):
        yield Task(name, "7.3", kit.wide, [partial(unpacked, kit, name)])
    kit = plain_kit(kit.wide, kit.half, kit.byte)  # one whose `cnum` is its own
    for name in ("add", "sub", "neg", "intersect", "is_in", "contains", "from_range", "of_tnum"):
        parts: list[Body] = [partial(cnum_function, kit, name, low) for low in (False, True)]
        yield Task(f"cnum.{name}", "7.3", kit.wide, parts)
    for name in ("low_half", "cut_by_low"):
        yield Task(f"cnum.{name}", "7.3", kit.wide, [partial(cnum_function, kit, name, False)])
    glue = plain_kit(kit.wide, kit.half, kit.byte)
    yield Task("sync: the whole", "7.3", kit.wide, [partial(synced, glue)])


def _low(bits: int) -> Callable[[Kit, Any], Any]:
    """Return the member's low *bits*."""
    return lambda _kit, x: x & (1 << bits) - 1


def _swapped(bits: int) -> Callable[[Kit, Any], Any]:
    return lambda kit, x: kit.m.width.bswap(x & (1 << bits) - 1, bits)


def _extended(bits: int, width: int) -> Callable[[Kit, Any], Any]:
    return lambda kit, x: kit.m.width.sext(x, bits) & (1 << width) - 1


def _call(function: Callable[..., Any], *before: Any, after: tuple[Any, ...] = ()) -> Any:
    """Return a function of the kit and a scalar that calls *function* on the scalar."""
    return lambda _kit, s: function(*before, s, *after)


def _moved(kit: Kit, domain: str, name: str, op: AluOp, e: Engine) -> list[Any]:
    """A pointer's offset moved by a scalar."""
    x, y = kit.word(e), kit.word(e)
    make = _operand(kit, domain)
    a, b, got = make(e, x), make(e, y), kit.computed(op, kit.wide, x, y)
    rely_on_contracts(kit, domain, e, x, y, got)
    alu = kit.m.alu if domain == "6.18" else kit.m.cnum_alu
    return [kit.contains(getattr(alu, name)(a, b), got)]


def _moves(kit: Kit, domain: str) -> Iterator[Task]:
    """Moves, extensions, byte orders, pointer offsets."""
    m = kit.m
    alu = m.alu if domain == "6.18" else m.cnum_alu
    low = m.bounds if domain == "6.18" else m.cnum_bounds
    wide, half, byte = kit.wide, kit.half, kit.byte
    runs: dict[str, tuple[Callable[[Kit, Any], Any], Callable[[Kit, Any], Any]]] = {
        "zext32": (_call(low.zext32), _low(half)),
    }
    for size in (1, 2, 4):
        if size * byte <= half:
            runs[f"coerce_to_size {size}"] = (
                _call(low.coerce_to_size, after=(size,)), _low(byte * size),
            )  # fmt: skip
    for width in (half, wide):
        for bits in (byte, 2 * byte, half):
            if bits < width:
                runs[f"movsx{width} {bits}"] = (
                    _call(alu.movsx, width, bits), _extended(bits, width),
                )  # fmt: skip
    for bits in (2 * byte, half, wide):
        for order in EndOp:
            spec = _low(bits) if order is EndOp.LE else _swapped(bits)
            runs[f"end {order.name} {bits}"] = _call(alu.end, order, bits), spec
    for name, (run, spec) in runs.items():
        yield Task(name, domain, wide, [partial(unary, kit, domain, run, spec)])
    for name, op in (("add_ptr", AluOp.ADD), ("sub_ptr", AluOp.SUB)):
        yield Task(name, domain, wide, [partial(_moved, kit, domain, name, op)])


def _alu_tasks(kit: Kit, domain: str) -> Iterator[Task]:
    for width in (kit.half, kit.wide):
        for op in _LINEAR:
            yield Task(f"{op.name.lower()}{width}", domain, kit.wide, [
                partial(binary, kit, domain, op, width)
            ])  # fmt: skip
        for op in _SHIFTS:
            yield Task(f"{op.name.lower()}{width}", domain, kit.wide, [
                partial(shifted, kit, domain, op, width, k) for k in range(width)
            ])  # fmt: skip
    yield from _moves(kit, domain)


def _branch_tasks(kit: Kit, domain: str) -> Iterator[Task]:
    for width in (kit.half, kit.wide):
        for op in JmpOp:
            if domain == "6.18":
                yield Task(f"is_taken {op.name.lower()}{width}", "both", kit.wide, [
                    partial(predicted, kit, op, width)
                ])  # fmt: skip
            yield Task(f"{op.name.lower()}{width}", domain, kit.wide, [
                partial(compared, kit, domain, op, width)
            ])  # fmt: skip


def _product_kit(make: Callable[..., Kit], wide: int, half: int, byte: int) -> Kit:
    """Return a kit whose `tnum.mul` gives an unknown tnum: the ranges are then on their own."""
    kit = make(wide, half, byte)
    kit.m.tnum.mul = lambda a, b: kit.m.tnum.UNKNOWN
    return kit


def _nonlinear_tasks(wide: int, half: int, byte: int) -> Iterator[Task]:
    for domain, make in (("6.18", ranges_kit), ("7.3", cnum_kit)):
        kit = _product_kit(make, wide, half, byte)
        for width in (half, wide):
            yield Task(f"mul{width} (ranges)", domain, wide, [
                partial(binary, kit, domain, AluOp.MUL, width)
            ])  # fmt: skip
    kit = cnum_kit(wide, half, byte)
    for width in (half, wide):
        for op in _DIVISIONS:
            yield Task(f"{op.name.lower()}{width}", "7.3", wide, [
                partial(divided, kit, op, width, c) for c in range(1 << width)
            ])  # fmt: skip


def tasks(size: str) -> Iterator[Task]:
    """Yield the proofs of *size*: "64", "products" (8 bits) or "mul" (tnum multiplication, 6)."""
    if size == "64":
        ranges, cnum, plain = ranges_kit(), cnum_kit(), plain_kit()
        yield from _tnum_tasks(plain)
        yield from _sync_tasks(plain)
        for domain, kit in (("6.18", ranges), ("7.3", cnum)):
            yield from _alu_tasks(kit, domain)
            yield from _branch_tasks(kit, domain)
    elif size == "products":
        yield from _nonlinear_tasks(8, 4, 1)
    else:
        kit = plain_kit(6, 3, 1)
        tnums = [(v, m) for m in range(64) for v in range(64) if not v & m]
        parts: list[Body] = [partial(mul_by_tnum, kit, v, m) for v, m in tnums]
        yield Task("tnum.mul", "both", 6, parts)
