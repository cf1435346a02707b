"""What the tests of the value domain share: scalars with known members, and what insns compute."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from bpfvm.bits import S64_MAX, U32_MAX, U64_MAX, s32, s64, u32
from bpfvm.isa import AluOp, JmpOp
from verifier import tnum
from verifier.bounds import UNKNOWN, Scalar, contains, sync

__all__ = ["LAWS", "Sampled", "compare", "compute", "sampled", "values"]

#: The same cases in every run: a failure is one that stays.
LAWS = settings(max_examples=300, deadline=None, derandomize=True)

#: A scalar and some of its members.
Sampled = tuple[Scalar, list[int]]

_EDGES = (0, 1 << 31, U32_MAX, 1 << 32, S64_MAX, 1 << 63, U64_MAX)


def values() -> st.SearchStrategy[int]:
    """Numbers of all sizes, more of those where a range wraps round."""
    near_edge = st.builds(
        lambda edge, step: edge + step & U64_MAX, st.sampled_from(_EDGES), st.integers(-20, 20)
    )
    sized = st.integers(0, 64).flatmap(lambda bits: st.integers(0, (1 << bits) - 1))
    return st.one_of(near_edge, sized)


@st.composite
def sampled(draw: st.DrawFn) -> Sampled:
    """A scalar that some insns could have left, and one to four of its members."""
    base = draw(values())
    near = st.integers(-300, 300).map(lambda step: base + step & U64_MAX)
    members = [base, *draw(st.lists(st.one_of(near, values()), max_size=3))]
    t = tnum.const(base)
    for member in members:
        t = tnum.union(t, tnum.const(member))
    views = [[view(x) for x in members] for view in (s64, int, s32, u32)]
    fields = [*t, *(end for view in views for end in (min(view), max(view)))]
    for ends in (slice(0, 2), *(slice(i, i + 1) for i in range(2, 10))):
        if draw(st.integers(0, 3)) == 0:
            fields[ends] = UNKNOWN[ends]
    scalar = sync(Scalar(*fields))
    assert all(contains(scalar, x) for x in members)
    return scalar, members


def compute(op: AluOp, width: int, a: int, b: int) -> int:
    """Return what `a op b` leaves in a register (RFC 9669 section 4.1)."""
    ones = U32_MAX if width == 32 else U64_MAX
    a, b = a & ones, b & ones
    signed = s32 if width == 32 else s64
    sa, sb = signed(a), signed(b)
    count = b & (width - 1)
    quotient = abs(sa) // abs(sb) * (1 if (sa < 0) == (sb < 0) else -1) if sb else 0
    results = {
        AluOp.ADD: a + b,
        AluOp.SUB: a - b,
        AluOp.MUL: a * b,
        AluOp.DIV: a // b if b else 0,
        AluOp.SDIV: quotient,
        AluOp.OR: a | b,
        AluOp.AND: a & b,
        AluOp.LSH: a << count,
        AluOp.RSH: a >> count,
        AluOp.NEG: -a,
        AluOp.MOD: a % b if b else a,
        AluOp.SMOD: sa - quotient * sb,
        AluOp.XOR: a ^ b,
        AluOp.MOV: b,
        AluOp.ARSH: sa >> count,
    }
    return results[op] & ones


def compare(op: JmpOp, width: int, a: int, b: int) -> bool:
    """Return whether `a op b` holds (RFC 9669 section 4.3)."""
    ones = U32_MAX if width == 32 else U64_MAX
    a, b = a & ones, b & ones
    signed = s32 if width == 32 else s64
    sa, sb = signed(a), signed(b)
    results = {
        JmpOp.JEQ: a == b,
        JmpOp.JNE: a != b,
        JmpOp.JGT: a > b,
        JmpOp.JGE: a >= b,
        JmpOp.JLT: a < b,
        JmpOp.JLE: a <= b,
        JmpOp.JSET: a & b != 0,
        JmpOp.JSGT: sa > sb,
        JmpOp.JSGE: sa >= sb,
        JmpOp.JSLT: sa < sb,
        JmpOp.JSLE: sa <= sb,
    }
    return results[op]
