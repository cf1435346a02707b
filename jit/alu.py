"""Leaf operations: arithmetic, byte order and conditions as LLVM IR on values.

LLVM's undefined corners are closed here: shift counts are masked, divisors made nonzero (and not
-1 where signed) before they divide, and nothing is marked nsw or nuw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import assert_never

from bpfvm.isa import AluOp, EndOp, JmpOp
from jit.text import FunctionText

__all__ = ["alu", "byte_order", "condition"]


def _simple(name: str) -> Callable[[FunctionText, int, str, str], str]:
    return lambda fn, width, dst, src: fn.value(f"{name} i{width} {dst}, {src}")


def _shift(name: str) -> Callable[[FunctionText, int, str, str], str]:
    def emit(fn: FunctionText, width: int, dst: str, src: str) -> str:
        count = fn.value(f"and i{width} {src}, {width - 1}")
        return fn.value(f"{name} i{width} {dst}, {count}")

    return emit


def _unsigned(name: str) -> Callable[[FunctionText, int, str, str], str]:
    def emit(fn: FunctionText, width: int, dst: str, src: str) -> str:
        zero = fn.value(f"icmp eq i{width} {src}, 0")
        safe = fn.value(f"select i1 {zero}, i{width} 1, i{width} {src}")
        result = fn.value(f"{name} i{width} {dst}, {safe}")
        by_zero = "0" if name == "udiv" else dst
        return fn.value(f"select i1 {zero}, i{width} {by_zero}, i{width} {result}")

    return emit


def _signed(name: str) -> Callable[[FunctionText, int, str, str], str]:
    def emit(fn: FunctionText, width: int, dst: str, src: str) -> str:
        ty = f"i{width}"
        zero = fn.value(f"icmp eq {ty} {src}, 0")
        minus_one = fn.value(f"icmp eq {ty} {src}, -1")
        special = fn.value(f"or i1 {zero}, {minus_one}")
        safe = fn.value(f"select i1 {special}, {ty} 1, {ty} {src}")
        result = fn.value(f"{name} {ty} {dst}, {safe}")
        # The minimum divided by -1 is itself: that is what a wrapping negation gives.
        by_minus_one = fn.value(f"sub {ty} 0, {dst}") if name == "sdiv" else "0"
        by_zero = "0" if name == "sdiv" else dst
        result = fn.value(f"select i1 {minus_one}, {ty} {by_minus_one}, {ty} {result}")
        return fn.value(f"select i1 {zero}, {ty} {by_zero}, {ty} {result}")

    return emit


_ALU: dict[AluOp, Callable[[FunctionText, int, str, str], str]] = {
    AluOp.ADD: _simple("add"),
    AluOp.SUB: _simple("sub"),
    AluOp.MUL: _simple("mul"),
    AluOp.DIV: _unsigned("udiv"),
    AluOp.SDIV: _signed("sdiv"),
    AluOp.OR: _simple("or"),
    AluOp.AND: _simple("and"),
    AluOp.LSH: _shift("shl"),
    AluOp.RSH: _shift("lshr"),
    AluOp.MOD: _unsigned("urem"),
    AluOp.SMOD: _signed("srem"),
    AluOp.XOR: _simple("xor"),
    AluOp.ARSH: _shift("ashr"),
}
_JMP: dict[JmpOp, str] = {
    JmpOp.JEQ: "eq",
    JmpOp.JGT: "ugt",
    JmpOp.JGE: "uge",
    JmpOp.JNE: "ne",
    JmpOp.JSGT: "sgt",
    JmpOp.JSGE: "sge",
    JmpOp.JLT: "ult",
    JmpOp.JLE: "ule",
    JmpOp.JSLT: "slt",
    JmpOp.JSLE: "sle",
}
assert set(_ALU) | {AluOp.NEG, AluOp.MOV} == set(AluOp)
assert set(_JMP) | {JmpOp.JSET} == set(JmpOp)


def alu(fn: FunctionText, op: AluOp, width: int, dst: str, src: str) -> str:
    """Return dst op src; operands and result are i{width}."""
    return _ALU[op](fn, width, dst, src)


def byte_order(fn: FunctionText, op: EndOp, width: int, dst: str) -> str:
    """Return the low *width* bits of *dst* (i64) in the order asked for, zero-extended."""
    low = dst if width == 64 else fn.value(f"trunc i64 {dst} to i{width}")
    match op:
        case EndOp.LE:
            pass
        case EndOp.BE | EndOp.SWAP:
            low = fn.value(f"call i{width} @llvm.bswap.i{width}(i{width} {low})")
        case _:
            assert_never(op)
    return low if width == 64 else fn.value(f"zext i{width} {low} to i64")


def condition(fn: FunctionText, op: JmpOp, width: int, dst: str, src: str) -> str:
    """Return an i1: whether dst op src; operands are i{width}."""
    if op is JmpOp.JSET:
        both = fn.value(f"and i{width} {dst}, {src}")
        return fn.value(f"icmp ne i{width} {both}, 0")
    return fn.value(f"icmp {_JMP[op]} i{width} {dst}, {src}")
