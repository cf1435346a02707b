"""Circular ranges: Linux 7.3's vectors, its domain's soundness, and the programs that tell it
from 6.18's."""

from __future__ import annotations

import random

import pytest
from domain_kit import compare, compute, samples, values
from walk_kit import check

from bpfvm.bits import S64_MIN, U32_MAX, U64_MAX, bswap, sext
from bpfvm.isa import AluOp, EndOp, JmpOp
from verifier import bounds, cnum
from verifier.bounds import UNKNOWN, Scalar, const, contains
from verifier.cnum import Cnum
from verifier.cnum_bounds import pack, resync
from verifier.domain import CNUM, RANGES

WIDTHS = (32, 64)


def u32(low: int, high: int) -> Cnum:
    return cnum.from_range(low, high, U32_MAX)


def u64(low: int, high: int) -> Cnum:
    return cnum.from_range(low, high, U64_MAX)


@pytest.mark.parametrize(
    ("a", "b", "both"),
    [
        (u32(-10, 10), u32(0, 100), u32(0, 10)),
        (u32(-10, 10), u32(5, 0xFFFFFFFB), u32(-10, 10)),
        (u32(1, 2), u32(4, 5), None),
    ],
)
def test_intersections(a: Cnum, b: Cnum, both: Cnum | None) -> None:
    assert cnum.intersect(a, b, U32_MAX) == both
    assert cnum.intersect(b, a, U32_MAX) == both


def test_sums_and_negatives() -> None:
    upper = u32(0x80000000, 0xFFFFFFFF)
    assert cnum.add(upper, upper, U32_MAX) == (0, 0xFFFFFFFE)
    assert cnum.neg(u32(-3, 2), U32_MAX) == u32(-2, 3)
    assert cnum.sub(u32(0, 3), u32(1, 2), U32_MAX) == u32(-2, 2)
    assert cnum.add(u32(0, 1 << 31), u32(0, 1 << 31), U32_MAX) == (0, U32_MAX)


@pytest.mark.parametrize(
    ("wide", "low", "cut"),
    [
        (u64(0x100000008, 0x300000001), u32(2, 5), u64(0x200000002, 0x200000005)),
        (u64(-1, 1 << 32), u32(5, 9), u64(5, 9)),
        (u64(10, 20), u32(30, 40), None),
        (u64(0, U64_MAX), u32(2, 3), u64(2, 0xFFFFFFFF00000003)),
        (u64(S64_MIN, 2), u32(2, 3), u64(S64_MIN + 2, 2)),
    ],
)
def test_whole_words_cut_by_their_low_halves(wide: Cnum, low: Cnum, cut: Cnum | None) -> None:
    assert cnum.cut_by_low(wide, low) == cut


def test_the_ends_of_a_range() -> None:
    s = pack(0, U64_MAX, u64(-5, 3), u32(0x7FFFFFFF, 0x80000001))
    assert s[2:10] == (-5, 3, 0, U64_MAX, *UNKNOWN[6:8], 0x7FFFFFFF, 0x80000001)
    assert bounds.scalar_text(s) == "scalar(smin=-5,smax=3,umin32=0x7fffffff,umax32=0x80000001)"
    # All but 7: no end tells of it, and it is known all the same.
    s = pack(0, U64_MAX, (8, U64_MAX - 1), (8, U32_MAX - 1))
    assert s[:10] == UNKNOWN[:10]
    assert not contains(s, 7)
    assert not contains(s, 7 | 1 << 32)
    assert contains(s, 8 | 1 << 32)
    assert (bounds.range64(s), bounds.range32(s)) == ((8, U64_MAX - 1), (8, U32_MAX - 1))
    assert bounds.range_within(UNKNOWN, s)
    assert not bounds.range_within(s, UNKNOWN)


def test_packing_loses_nothing() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        wide = u64(values(rng), values(rng))
        low = u32(values(rng) & U32_MAX, values(rng) & U32_MAX)
        s = pack(0, U64_MAX, wide, low)
        assert (bounds.range64(s), bounds.range32(s)) == (wide, low)
        assert not bounds.is_broken(s)


@pytest.mark.parametrize("op", AluOp)
def test_every_result_is_kept(op: AluOp) -> None:
    for (dst, xs), (src, ys) in zip(samples(400, 1), samples(400, 2), strict=True):
        for width in WIDTHS:
            for dividing in (src, const(ys[0])):
                result = CNUM.transfer[op](width, resync(dst), resync(dividing))
                assert not bounds.is_broken(result)
                for x in xs:
                    for y in ys if dividing is src else ys[:1]:
                        assert contains(result, compute(op, width, x, y))


@pytest.mark.parametrize("op", [AluOp.LSH, AluOp.RSH, AluOp.ARSH])
def test_every_result_of_a_known_shift_is_kept(op: AluOp) -> None:
    for count, (dst, xs) in enumerate(samples(1000)):
        for width in WIDTHS:
            k = count % width
            result = CNUM.transfer[op](width, resync(dst), const(k))
            assert all(contains(result, compute(op, width, x, k)) for x in xs)


def test_moves_and_byte_orders_keep_every_result() -> None:
    for s, members in samples(500):
        s = resync(s)
        for x in members:
            assert contains(CNUM.mov32(s), x & U32_MAX)
            for width in WIDTHS:
                ones = (1 << width) - 1
                assert contains(CNUM.neg(width, s), -x & ones)
                for bits in (8, 16, 32)[: width // 32 + 1]:
                    assert contains(CNUM.movsx(width, bits, s), sext(x, bits) & ones)
            for size in (1, 2, 4):
                assert contains(CNUM.coerce_to_size(s, size), x & (1 << 8 * size) - 1)
            for bits in (16, 32, 64):
                low = x & (1 << bits) - 1
                assert contains(CNUM.end(EndOp.LE, bits, s), low)
                assert contains(CNUM.end(EndOp.BE, bits, s), bswap(low, bits))


def test_pointer_offsets_keep_every_result() -> None:
    for (base, xs), (delta, ys) in zip(samples(500, 1), samples(500, 2), strict=True):
        plus, minus = CNUM.add_ptr(base, delta), CNUM.sub_ptr(base, delta)
        for x in xs:
            for y in ys:
                assert contains(CNUM.sync(plus), x + y)
                assert contains(CNUM.sync(minus), x - y)


@pytest.mark.parametrize("op", JmpOp)
def test_a_prediction_is_right_and_refinement_keeps_what_goes_its_way(op: JmpOp) -> None:
    compared = CNUM.comparison(op)
    predicted = 0
    for (left, xs), (right, ys) in zip(samples(500, 1), samples(500, 2), strict=True):
        for width in WIDTHS:
            for other in (resync(right), const(ys[0])):
                outcome = compared(width, resync(left), other)
                predicted += isinstance(outcome, bool)
                for x in xs:
                    for y in ys if other.mask else ys[:1]:
                        taken = compare(op, width, x, y)
                        if isinstance(outcome, bool):
                            assert outcome == taken
                            continue
                        a, b = outcome[not taken]
                        assert contains(a, x)
                        assert contains(b, y)
    assert predicted > 50


@pytest.mark.parametrize("domain", [RANGES, CNUM], ids=["6.18", "7.3"])
def test_constants_fold(domain: object) -> None:
    assert domain in (RANGES, CNUM)
    transfer = (RANGES if domain is RANGES else CNUM).transfer
    rng = random.Random(1)
    for op in (AluOp.ADD, AluOp.SUB, AluOp.MUL, AluOp.AND, AluOp.OR, AluOp.XOR):
        for _ in range(100):
            x, y = values(rng), values(rng)
            for width in WIDTHS:
                assert transfer[op](width, const(x), const(y)) == const(compute(op, width, x, y))


def in_range(low: int, high: int) -> Scalar:
    return resync(pack(0, U64_MAX, u64(low, high), (0, U32_MAX)))


@pytest.mark.parametrize(
    ("op", "width", "dst", "divisor", "text"),
    [
        (AluOp.DIV, 64, (8, 10), 3, "scalar(smin=umin=smin32=umin32=2,smax=umax=smax32=umax32=3,"
         "var_off=(0x2; 0x1))"),
        (AluOp.DIV, 32, (8, 10), 3, "scalar(smin=umin=smin32=umin32=2,smax=umax=smax32=umax32=3,"
         "var_off=(0x2; 0x1))"),
        (AluOp.DIV, 64, (8, 10), 0, "0"),
        (AluOp.MOD, 64, (1, 9), 10, "scalar(smin=umin=smin32=umin32=1,smax=umax=smax32=umax32=9,"
         "var_off=(0x0; 0xf))"),
        (AluOp.MOD, 64, (1, 10), 10, "scalar(smin=smin32=0,smax=umax=smax32=umax32=9,"
         "var_off=(0x0; 0xf))"),
        (AluOp.MOD, 32, (1, 9), 0, "scalar(smin=umin=smin32=umin32=1,smax=umax=smax32=umax32=9,"
         "var_off=(0x0; 0xf))"),
        (AluOp.SDIV, 64, (S64_MIN, S64_MIN), -1, "0x8000000000000000"),
        (AluOp.SDIV, 64, (S64_MIN, 5), -1, "scalar()"),
        (AluOp.SDIV, 64, (-7, 5), -2, "scalar(smin=smin32=-2,smax=smax32=3)"),
        (AluOp.SMOD, 64, (-2, 2), -3, "scalar(smin=smin32=-2,smax=smax32=2)"),
        (AluOp.SMOD, 64, (-8, 10), -3, "scalar(smin=smin32=-2,smax=smax32=2)"),
        (AluOp.SMOD, 64, (0, 10), S64_MIN, "scalar(smin=smin32=0,smax=umax=smax32=umax32=10,"
         "var_off=(0x0; 0xf))"),
        (AluOp.SMOD, 64, (3, 10), 4, "scalar(smin=smin32=0,smax=umax=smax32=umax32=3,"
         "var_off=(0x0; 0x3))"),
        (AluOp.SMOD, 64, (-8, 0), 4, "scalar(smin=smin32=-3,smax=smax32=0)"),
    ],
)  # fmt: skip
def test_quotients_and_remainders(
    op: AluOp, width: int, dst: tuple[int, int], divisor: int, text: str
) -> None:
    result = CNUM.transfer[op](width, in_range(*dst), const(divisor))
    assert bounds.scalar_text(result) == text
    assert CNUM.transfer[op](width, in_range(*dst), in_range(1, 2)) == UNKNOWN


# Programs


def seen(text: str, kernel: str, regno: int) -> str:
    """Return the last value of a register in the log of *text*, which is accepted."""
    verdict = check(text, kernel=kernel, log_level=2)
    assert not verdict.errno, verdict.log
    found = [part for line in verdict.log.splitlines() for part in line.split(f" R{regno}=")[1:]]
    return found[-1].split(" R")[0].split(" fp")[0].strip()


MAP = """
r2 = r10
r2 += -4
*(u32 *)(r10 - 4) = 0
r1 = map(one)
call bpf_map_lookup_elem
if r0 != 0 goto +2
r0 = 0
exit
r6 = r0
call bpf_get_prandom_u32
w1 = w0
"""


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("if w1 < 8 goto +4\nif w1 > 10 goto +3\nw1 /= 3", id="a quotient"),
        pytest.param("if r1 < 1 goto +4\nif r1 > 9 goto +3\nr1 %= 10", id="a remainder"),
        pytest.param("w2 = 0\nw1 /= w2", id="a quotient by zero"),
        pytest.param(
            "r1 <<= 32\nr1 s>>= 32\nif r1 s< -8 goto +5\nif r1 s> 10 goto +4\nw1 s%= -3\nw1 &= 3",
            id="a signed remainder",
        ),
    ],
)
def test_division_as_an_index(text: str) -> None:
    rest = "\nr6 += r1\nr0 = *(u8 *)(r6 + 0)\nr0 = 0\nexit"
    assert not check(MAP + text + rest).errno
    if "&=" not in text:
        assert check(MAP + text + rest, kernel="6.18").errno


def test_the_least_number_divided_by_minus_one() -> None:
    text = "r1 = 0x8000000000000000 ll\nr1 s/= -1\nr0 = 0\nexit"
    assert seen(text, "7.3", 1) == "0x8000000000000000"
    assert seen(text, "6.18", 1) == "scalar()"


def test_a_signed_remainder_keeps_both_ends() -> None:
    text = """
    call bpf_get_prandom_u32
    r1 = r0
    if r1 s< -8 goto +3
    if r1 s> 10 goto +2
    w1 s%= -3
    r2 = r1
    r0 = 0
    exit
    """
    log = check(text, log_level=2).log
    assert "smin32=-2,smax32=2" in log


def dead(text: str, kernel: str) -> bool:
    """Say whether the walk never gets to the insn before the last two."""
    verdict = check(text, kernel=kernel, log_level=2)
    assert not verdict.errno, verdict.log
    assert verdict.xlated is not None
    return not verdict.xlated.aux[len(verdict.xlated.aux) - 3].seen


LOW_AND_WIDE = """
call bpf_get_prandom_u32
r1 = 0x100000008 ll
if r0 < r1 goto +9
r1 = 0x300000001 ll
if r0 > r1 goto +6
if w0 < 2 goto +5
if w0 > 5 goto +4
r1 = 0x200000002 ll
"""
ALWAYS = """
call bpf_get_prandom_u32
r7 = r0
r7 &= 1
r7 += -43
call bpf_get_prandom_u32
r5 = r0
r5 &= -4
"""
#: Programs whose third-last insn is reached in 6.18 only.
DEAD = [
    pytest.param(
        LOW_AND_WIDE + "if r0 >= r1 goto +1\nr3 = 0\nr0 = 0\nexit", id="cut by the low half"
    ),
    pytest.param(ALWAYS + "if w5 != w7 goto +1\nr3 = 0\nr0 = 0\nexit", id="tried both ways"),
    pytest.param(
        "call bpf_get_prandom_u32\nif r0 < r0 goto +1\ngoto +1\nr3 = 0\nr0 = 0\nexit",
        id="below itself",
    ),
]


@pytest.mark.parametrize("text", DEAD)
def test_branches_that_are_decided(text: str) -> None:
    assert dead(text, "7.3")
    assert not dead(text, "6.18")


def test_both_views_narrow_to_a_number() -> None:
    text = """
    call bpf_get_prandom_u32
    if w0 < 2 goto +4
    if w0 > 3 goto +3
    if r0 s> 2 goto +2
    if r0 > 19 goto +1
    r3 = r0
    r0 = 0
    exit
    """
    assert "R3=2" in check(text, log_level=2).log
    assert "R3=2" not in check(text, kernel="6.18", log_level=2).log


def test_a_mask_forks() -> None:
    text = "call bpf_get_prandom_u32\nr6 = r0\nr6 s>>= 63\nr6 &= 1\nr0 = r6\nexit"
    for kernel in ("6.18", "7.3"):
        log = check(text, kernel=kernel, log_level=2).log
        assert "R6=1" in log
        assert "R6=0" in log


def test_a_range_that_wraps_in_one_sign_prints_nothing_for_it() -> None:
    text = "call bpf_get_prandom_u32\nr6 = r0\nr6 &= 15\nr6 -= 8\nr7 = r6\nr0 = 0\nexit"
    for kernel in ("6.18", "7.3"):
        assert (
            "R6=scalar(smin=smin32=-8,smax=smax32=7)" in check(text, kernel=kernel, log_level=2).log
        )
    # 6.18 loses the signed view of a sum that passes the greatest signed number, and keeps the
    # unsigned one; a difference that passes zero loses the unsigned one.
    text = "call bpf_get_prandom_u32\nr6 = r0\nr6 &= 15\nr6 -= 8\nr6 -= 8\nr6 += 8\nr0 = 0\nexit"
    assert seen(text, "7.3", 6) == "scalar(smin=smin32=-8,smax=smax32=7)"
