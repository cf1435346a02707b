"""Arithmetic on scalars: no result is lost, and what is known is what Linux 6.18.44 printed."""

from __future__ import annotations

import random

import pytest
from domain_kit import compute, parse, samples, values

from bpfvm.bits import U32_MAX, U64_MAX, bswap, sext
from bpfvm.isa import AluOp, EndOp
from verifier import alu, bounds
from verifier.bounds import UNKNOWN, const, contains

SHIFTS = (AluOp.LSH, AluOp.RSH, AluOp.ARSH)
UNFOLLOWED = (AluOp.DIV, AluOp.SDIV, AluOp.MOD, AluOp.SMOD)
FOLDED = [op for op in AluOp if op not in UNFOLLOWED]
WIDTHS = (32, 64)


@pytest.mark.parametrize("op", AluOp)
def test_every_result_is_kept(op: AluOp) -> None:
    for (dst, xs), (src, ys) in zip(samples(400, 1), samples(400, 2), strict=True):
        for width in WIDTHS:
            result = alu.alu(op, width, dst, src)
            assert not bounds.is_broken(result)
            for x in xs:
                assert all(contains(result, compute(op, width, x, y)) for y in ys)


@pytest.mark.parametrize("op", SHIFTS)
def test_every_result_of_a_known_shift_is_kept(op: AluOp) -> None:
    for count, (dst, xs) in enumerate(samples(1000)):
        for width in WIDTHS:
            k = count % width
            result = alu.alu(op, width, dst, const(k))
            assert all(contains(result, compute(op, width, x, k)) for x in xs)


@pytest.mark.parametrize("op", FOLDED)
def test_constants_fold(op: AluOp) -> None:
    rng = random.Random(1)
    for _ in range(200):
        x, y = values(rng), values(rng)
        for width in WIDTHS:
            if op in SHIFTS:
                y %= width
            assert alu.alu(op, width, const(x), const(y)) == const(compute(op, width, x, y))


@pytest.mark.parametrize("op", UNFOLLOWED)
def test_division_is_not_followed(op: AluOp) -> None:
    assert alu.alu(op, 64, const(10), const(2)) == UNKNOWN
    assert alu.alu(op, 32, const(10), const(2)) == UNKNOWN


@pytest.mark.parametrize("op", SHIFTS)
def test_a_shift_by_an_unknown_or_too_large_count_is_not_followed(op: AluOp) -> None:
    byte = alu.alu(AluOp.AND, 64, UNKNOWN, const(7))
    assert alu.alu(op, 64, const(1), byte) == UNKNOWN
    assert alu.alu(op, 64, const(1), const(64)) == UNKNOWN
    assert alu.alu(op, 32, const(1), const(32)) == UNKNOWN


def test_moves_and_byte_orders_keep_every_result() -> None:
    for s, members in samples(500):
        for x in members:
            assert contains(alu.mov32(s), x & U32_MAX)
            for width in WIDTHS:
                ones = (1 << width) - 1
                assert contains(alu.neg(width, s), -x & ones)
                for bits in (8, 16, 32)[: width // 32 + 1]:
                    assert contains(alu.movsx(width, bits, s), sext(x, bits) & ones)
            for bits in (16, 32, 64):
                low = x & (1 << bits) - 1
                assert contains(alu.end(EndOp.LE, bits, s), low)
                assert contains(alu.end(EndOp.BE, bits, s), bswap(low, bits))
                assert contains(alu.end(EndOp.SWAP, bits, s), bswap(low, bits))


def test_pointer_offsets_keep_every_result() -> None:
    for (base, xs), (delta, ys) in zip(samples(1000, 1), samples(1000, 2), strict=True):
        plus, minus = bounds.sync(alu.add_ptr(base, delta)), bounds.sync(alu.sub_ptr(base, delta))
        for x in xs:
            for y in ys:
                assert contains(plus, x + y)
                assert contains(minus, x - y)


def test_a_pointer_offset_carries_no_32_bit_range_before_sync() -> None:
    moved = alu.add_ptr(const(8), parse("scalar(smin=0,smax=umax=255,var_off=(0x0; 0xff))"))
    assert moved[6:] == UNKNOWN[6:]
    assert (moved.smin, moved.smax, moved.umin, moved.umax) == (8, 263, 8, 263)


U32 = "scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))"
BYTE = "scalar(smin=smin32=0,smax=umax=smax32=umax32=255,var_off=(0x0; 0xff))"

#: (op, width, dst, src, result), each as Linux 6.18.44 prints it.
KERNEL = [
    (AluOp.AND, 64, "scalar()", "255", BYTE),
    (
        AluOp.AND,
        64,
        "scalar()",
        "-100",
        "scalar(smax=0x7fffffffffffff9c,umax=0xffffffffffffff9c,smax32=0x7fffff9c,"
        "umax32=0xffffff9c,var_off=(0x0; 0xffffffffffffff9c))",
    ),
    (AluOp.SUB, 64, BYTE, "8", "scalar(smin=smin32=-8,smax=smax32=247)"),
    (
        AluOp.MUL,
        32,
        U32,
        "-100",
        "scalar(smin=0,smax=umax=umax32=0xfffffffc,smax32=0x7ffffffc,var_off=(0x0; 0xfffffffc))",
    ),
    (
        AluOp.LSH,
        64,
        "scalar(smin=umin=umin32=1,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
        "8",
        "scalar(smin=umin=256,smax=umax=0xffffffff00,smax32=0x7fffff00,umax32=0xffffff00,"
        "var_off=(0x0; 0xffffffff00))",
    ),
    (
        AluOp.RSH,
        64,
        "scalar(smin=0,smax=umax=umax32=0xfffffffc,smax32=0x7ffffffc,var_off=(0x0; 0xfffffffc))",
        "11",
        "scalar(smin=smin32=0,smax=umax=smax32=umax32=0x1fffff,var_off=(0x0; 0x1fffff))",
    ),
    (
        AluOp.SUB,
        32,
        "scalar(smin=umin=smin32=umin32=257,smax=umax=smax32=umax32=999,var_off=(0x0; 0x3ff))",
        "7",
        "scalar(smin=umin=smin32=umin32=250,smax=umax=smax32=umax32=992,var_off=(0x0; 0x3ff))",
    ),
    (
        AluOp.OR,
        64,
        "scalar(smin=umin=smin32=umin32=250,smax=umax=smax32=umax32=992,var_off=(0x0; 0x3ff))",
        "scalar(smin=umin=smin32=umin32=256,smax=umax=smax32=umax32=768,var_off=(0x0; 0x300))",
        "scalar(smin=umin=smin32=umin32=256,smax=umax=smax32=umax32=1023,var_off=(0x0; 0x3ff))",
    ),
    (
        AluOp.SUB,
        32,
        "scalar(smin=umin=smin32=umin32=256,smax=umax=smax32=umax32=767,var_off=(0x0; 0x300))",
        "-2147483648",
        "scalar(smin=umin=smin32=umin32=0x80000100,smax=umax=smax32=umax32=0x800002ff,"
        "var_off=(0x80000000; 0x300))",
    ),
    (
        AluOp.LSH,
        64,
        "scalar(smin=smin32=-3,smax=smax32=0)",
        "32",
        "scalar(smin=0xfffffffd00000000,smax=smax32=umax32=0,umax=0xffffffff00000000,smin32=0,"
        "var_off=(0x0; 0xffffffff00000000))",
    ),
    (
        AluOp.LSH,
        64,
        "scalar(smin=0,smax=umax=0xffffffff,smin32=-128,smax32=127,var_off=(0x0; 0xffffffff))",
        "32",
        "scalar(smin=0xffffff8000000000,smax=0x7f00000000,umax=0xffffffff00000000,smin32=0,"
        "smax32=umax32=0,var_off=(0x0; 0xffffffff00000000))",
    ),
    (
        AluOp.NEG,
        32,
        "scalar(smin=umin=0x80000100,smax=umax=0x7fffffff00000002,smin32=0,smax32=umax32=2,"
        "var_off=(0x0; 0x7fffffff00000003))",
        "0",
        "scalar(smin=0,smax=umax=0xffffffff,smin32=-2,smax32=0,var_off=(0x0; 0xffffffff))",
    ),
]


@pytest.mark.parametrize(("op", "width", "dst", "src", "result"), KERNEL)
def test_what_the_kernel_knows(op: AluOp, width: int, dst: str, src: str, result: str) -> None:
    got = alu.alu(op, width, parse(dst), const(int(src)) if src[-1] != ")" else parse(src))
    assert bounds.scalar_text(got) == result


def test_byte_swaps_permute_the_known_bits() -> None:
    swapped = alu.end(EndOp.BE, 16, parse(BYTE))
    assert bounds.var_off_text(swapped) == "(0x0; 0xff00)"
    assert alu.end(EndOp.LE, 64, parse(U32)) == parse(U32)
    swapped = alu.end(EndOp.SWAP, 64, parse(U32))
    assert bounds.var_off_text(swapped) == "(0x0; 0xffffffff00000000)"
    assert alu.end(EndOp.SWAP, 64, const(0x0102)) == const(0x0201 << 48)
    assert alu.end(EndOp.LE, 16, const(U64_MAX)) == const(0xFFFF)
