"""What the tests of the value domain share: scalars with known members, and what insns compute."""

from __future__ import annotations

import random
from collections.abc import Iterator

from bpfvm.bits import S64_MAX, U32_MAX, U64_MAX, s32, s64, u32
from bpfvm.isa import AluOp, JmpOp
from verifier import tnum
from verifier.bounds import UNKNOWN, Scalar, const, contains, sync

__all__ = ["Sampled", "compare", "compute", "parse", "samples", "values"]

#: A scalar and some of its members.
Sampled = tuple[Scalar, list[int]]

_EDGES = (0, 1 << 31, U32_MAX, 1 << 32, S64_MAX, 1 << 63, U64_MAX)


def values(rng: random.Random) -> int:
    """Return a number of any size, more often one where a range wraps round."""
    if rng.random() < 0.5:
        return rng.choice(_EDGES) + rng.randint(-20, 20) & U64_MAX
    return rng.getrandbits(rng.randint(1, 64))


def samples(count: int, seed: int = 0) -> Iterator[Sampled]:
    """Yield scalars as insns could have left them, each with one to four of its members."""
    rng = random.Random(seed)
    for _ in range(count):
        base = values(rng)
        members = [base]
        while rng.random() < 0.6 and len(members) < 4:
            is_near = rng.random() < 0.6
            members.append(base + rng.randint(-300, 300) & U64_MAX if is_near else values(rng))
        yield _around(members, rng), members


def _around(members: list[int], rng: random.Random) -> Scalar:
    t = tnum.const(members[0])
    for member in members:
        t = tnum.union(t, tnum.const(member))
    views = [[view(x) for x in members] for view in (s64, int, s32, u32)]
    fields = [*t, *(end for view in views for end in (min(view), max(view)))]
    for ends in ((0, 1), *((i,) for i in range(2, 10))):
        if rng.random() < 0.25:
            for i in ends:
                fields[i] = UNKNOWN[i]
    scalar = sync(Scalar(*fields))
    assert all(contains(scalar, x) for x in members)
    return scalar


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


_FIELDS = ("smin", "smax", "umin", "umax", "smin32", "smax32", "umin32", "umax32")


def parse(text: str) -> Scalar:
    """Return the scalar that the kernel's log prints as *text*: it leaves out only defaults."""
    if not text.startswith("scalar("):
        return const(int(text, 0))
    fields = dict(zip(("value", "mask", *_FIELDS), UNKNOWN[:10], strict=True))
    for part in text.removeprefix("scalar(").removesuffix(")").replace("; ", ";").split(","):
        if part.startswith("var_off="):
            pair = part.removeprefix("var_off=(").removesuffix(")").split(";")
            fields["value"], fields["mask"] = (int(x, 0) for x in pair)
        elif part:
            *names, number = part.split("=")
            for name in names:
                end = int(number, 0)
                if name[0] == "s":
                    end = s32(end) if name.endswith("32") else s64(end)
                fields[name] = end
    return Scalar(*fields.values())
