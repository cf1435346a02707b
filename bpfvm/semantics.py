"""What each insn does, as Python text: the reference semantics, read by people and run as it is.

The tables give one expression for each operation. In them `x` is the destination's old value and
`y` the source operand, both unsigned in the operation's width (an immediate is sign-extended to
64 bits first); `sx` and `sy` are the same read as two's complement numbers; `SHIFT` masks shift
counts. A result is taken modulo 2**width and zero-extended into the 64-bit register (RFC 9669
section 4.1). `statements` puts the expressions to work on the registers `r[0]..r[10]` and the
run's state `s` (`bpfvm.interp.State`), and block_source joins a basic block into one function
that returns the slot to go on with.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from bpfvm.bits import U64_MAX, bswap, sext, to_unsigned
from bpfvm.errors import InternalError
from bpfvm.flow import Block, jump_target
from bpfvm.insn import Insn
from bpfvm.isa import AluOp, AtomicOp, CallKind, EndOp, InsnDef, JmpOp, Kind, stack_arg
from bpfvm.xlated import CallSite

__all__ = ["ALU", "ATOMIC", "END", "JMP", "NAMES", "Linked", "block_source", "expression"]

ALU: dict[AluOp, str] = {
    AluOp.ADD: "x + y",
    AluOp.SUB: "x - y",
    AluOp.MUL: "x * y",
    AluOp.DIV: "x // y if y else 0",
    AluOp.SDIV: "quotient(sx, sy)",
    AluOp.OR: "x | y",
    AluOp.AND: "x & y",
    AluOp.LSH: "x << (y & SHIFT)",
    AluOp.RSH: "x >> (y & SHIFT)",
    AluOp.NEG: "-x",
    AluOp.MOD: "x % y if y else x",
    AluOp.SMOD: "remainder(sx, sy)",
    AluOp.XOR: "x ^ y",
    AluOp.MOV: "y",
    AluOp.ARSH: "sx >> (y & SHIFT)",
}

#: Operations whose result can't leave the width of their operands: no wrapping is needed.
_CLOSED = frozenset(
    {AluOp.DIV, AluOp.OR, AluOp.AND, AluOp.RSH, AluOp.MOD, AluOp.XOR, AluOp.MOV},
)

#: The machine is little-endian. The width is the number of bits that are kept.
END: dict[EndOp, str] = {
    EndOp.LE: "x",
    EndOp.BE: "bswap(x, WIDTH)",
    EndOp.SWAP: "bswap(x, WIDTH)",
}

JMP: dict[JmpOp, str] = {
    JmpOp.JEQ: "x == y",
    JmpOp.JGT: "x > y",
    JmpOp.JGE: "x >= y",
    JmpOp.JSET: "x & y",
    JmpOp.JNE: "x != y",
    JmpOp.JSGT: "sx > sy",
    JmpOp.JSGE: "sx >= sy",
    JmpOp.JLT: "x < y",
    JmpOp.JLE: "x <= y",
    JmpOp.JSLT: "sx < sy",
    JmpOp.JSLE: "sx <= sy",
}

#: What an atomic leaves in memory: `old` is what was there, `r0` register 0, in the width.
ATOMIC: dict[AtomicOp, str] = {
    AtomicOp.ADD: "old + y",
    AtomicOp.OR: "old | y",
    AtomicOp.AND: "old & y",
    AtomicOp.XOR: "old ^ y",
    AtomicOp.XCHG: "y",
    AtomicOp.CMPXCHG: "y if old == r0 else old",
}


def _check_complete(table: Iterable[Enum], ops: type[Enum]) -> None:
    missing = set(ops) - set(table)
    if missing:
        raise InternalError(f"semantics: no expression for {sorted(map(str, missing))}")


_check_complete(ALU, AluOp)
_check_complete(END, EndOp)
_check_complete(JMP, JmpOp)
_check_complete(ATOMIC, AtomicOp)


def _quotient(x: int, y: int) -> int:
    """Signed division rounds towards zero; by zero it gives 0."""
    if y == 0:
        return 0
    return x // y if (x < 0) == (y < 0) else -(-x // y)


def _remainder(x: int, y: int) -> int:
    """The remainder has the dividend's sign; modulo zero leaves the dividend."""
    return x - y * _quotient(x, y)


_CELL = {size: struct.Struct("<" + code) for size, code in ((1, "B"), (2, "H"), (4, "I"), (8, "Q"))}

#: What the text refers to, besides `r`, `s` and `sites`.
NAMES: dict[str, object] = {
    "quotient": _quotient,
    "remainder": _remainder,
    "bswap": bswap,
    **{f"get{size}": cell.unpack_from for size, cell in _CELL.items()},
    **{f"put{size}": cell.pack_into for size, cell in _CELL.items()},
}

_NAME = re.compile(r"\b[A-Za-z_]\w*\b")


def expression(text: str, names: Mapping[str, str]) -> str:
    """Return *text* with the names in *names* replaced by their texts."""
    return _NAME.sub(lambda found: names.get(found[0], found[0]), text)


def _mask(width: int) -> str:
    return hex((1 << width) - 1)


def _reg(number: int, width: int = 64) -> str:
    return f"r[{number}]" if width == 64 else f"(r[{number}] & {_mask(width)})"


def _signed(text: str, width: int) -> str:
    sign = hex(1 << (width - 1))
    return f"(({text} ^ {sign}) - {sign})"


def _operands(insn: Insn, row: InsnDef) -> dict[str, str]:
    """Return the texts of x, y, sx, sy and the width's constants for *insn*."""
    width = row.width
    x = _reg(insn.dst, width)
    if row.is_reg:
        y = _reg(insn.src, width)
        sy = _signed(y, width)
    else:
        y = str(to_unsigned(insn.imm, width))
        sy = f"({sext(insn.imm, width)})"
    return {
        "x": x,
        "y": y,
        "sx": _signed(x, width),
        "sy": sy,
        "SHIFT": str(width - 1),
        "WIDTH": str(width),
    }


@dataclass(frozen=True, slots=True)
class Linked:
    """A program resolved for a machine: all that its text depends on.

    Attributes:
        rows: the meaning of each slot; None for an ldimm64's second slot.
        seen: whether the verifier reached the slot (always True in the sandbox).
        constants: by slot, what an ldimm64 puts into its register.
        sites: by slot, what a helper or kfunc call runs, or why it can't.
        kern_vm_start, cast_high: of the machine's arena; None without one.
    """

    insns: Sequence[Insn]
    rows: Sequence[InsnDef | None]
    seen: Sequence[bool]
    verified: bool
    constants: Mapping[int, int]
    sites: Mapping[int, CallSite | str]
    kern_vm_start: int | None = None
    cast_high: int | None = None


def block_source(linked: Linked, block: Block) -> str:
    """Return the source of a function `block(r, s)` that runs *block* and returns the next slot."""
    lines = ["def block(r, s):"]
    for pc in range(block.start, block.end):
        row = linked.rows[pc]
        if row is None:
            continue
        if not linked.seen[pc]:
            lines.append(f"    s.trap({pc}, 'the verifier found no way here')")
            break
        lines += (f"    {line}" for line in _statements(linked, pc, linked.insns[pc], row))
    if block.end < len(linked.insns):
        lines.append(f"    return {block.end}")
    else:
        lines.append(f"    s.trap({block.end}, 'ran off the end of the program')")
    return "\n".join(lines)


def _statements(linked: Linked, pc: int, insn: Insn, row: InsnDef) -> Iterable[str]:
    """Yield the lines that do what *insn* does."""
    dst = f"r[{insn.dst}]"
    match row.kind:
        case Kind.ALU | Kind.NEG | Kind.MOV:
            assert isinstance(row.op, AluOp)
            value = expression(ALU[row.op], _operands(insn, row))
            wraps = row.op not in _CLOSED
            yield f"{dst} = ({value}) & {_mask(row.width)}" if wraps else f"{dst} = {value}"
        case Kind.END:
            assert isinstance(row.op, EndOp)
            yield f"{dst} = " + expression(END[row.op], _operands(insn, row))
        case Kind.MOVSX:
            value = _signed(_reg(insn.src, row.sx), row.sx)
            yield f"{dst} = {value} & {_mask(row.width)}"
        case Kind.LDIMM64:
            yield f"{dst} = {linked.constants[pc]:#x}"
        case Kind.CAST_KERN | Kind.CAST_USER:
            yield _cast(linked, pc, insn, row)
        case Kind.LDX | Kind.ST | Kind.STX if (arg := stack_arg(insn)) is not None:
            value = _reg(insn.src) if row.is_reg else str(to_unsigned(insn.imm, 64))
            load, store = f"{dst} = s.args_in[{arg}]", f"s.pass_arg({arg}, {value})"
            yield load if row.kind is Kind.LDX else store
        case Kind.LDX | Kind.LOAD_ACQ:
            yield _place(pc, row, insn.src, insn.off, write=False)
            value = f"get{row.size}(*p)[0]"
            if row.sx:
                value = f"{_signed(value, row.sx)} & {_mask(64)}"
            absent = f"0 if s.clear_on_fault else {dst}" if row.kind is Kind.LOAD_ACQ else "0"
            yield f"{dst} = {value} if p else {absent}"
        case Kind.ST | Kind.STX | Kind.STORE_REL:
            yield _place(pc, row, insn.dst, insn.off, write=True)
            bits = row.size * 8
            value = _reg(insn.src, bits) if row.is_reg else str(to_unsigned(insn.imm, bits))
            yield f"if p: put{row.size}(*p, {value})"
        case Kind.ATOMIC:
            yield from _atomic(pc, insn, row)
        case Kind.JA:
            yield f"return {jump_target(pc, insn, row)}"
        case Kind.JCOND:
            assert isinstance(row.op, JmpOp)
            condition = expression(JMP[row.op], _operands(insn, row))
            yield f"return {jump_target(pc, insn, row)} if {condition} else {pc + 1}"
        case Kind.MAY_GOTO:
            yield f"return {jump_target(pc, insn, row)} if s.may_goto({pc}) else {pc + 1}"
        case Kind.CALL:
            yield _call(linked, pc, insn, row)
        case Kind.CALLX:
            yield f"s.invoke_number(r, {pc}, {dst})"
        case Kind.EXIT:
            yield "return s.leave(r)"
        case Kind.LD_ABS | Kind.LD_IND:
            offset = f"r[{insn.src}] + {insn.imm}" if row.kind is Kind.LD_IND else str(insn.imm)
            yield f"if not s.load_packet(r, {pc}, {offset}, {row.size}): return s.leave(r)"
        case _:
            assert_never(row.kind)


def _place(pc: int, row: InsnDef, base: int, off: int, *, write: bool) -> str:
    """Find the memory: `p` is (view, index), or None at an absent arena page."""
    find = "arena_place" if row.arena else "place"
    return f"p = s.{find}({pc}, {row.size}, r[{base}], {off}, {write})"


def _atomic(pc: int, insn: Insn, row: InsnDef) -> Iterable[str]:
    assert isinstance(row.op, AtomicOp)
    names = {"y": _reg(insn.src, row.width), "r0": _reg(0, row.width)}
    result = "r[0]" if row.op is AtomicOp.CMPXCHG else f"r[{insn.src}]"
    new = expression(ATOMIC[row.op], names)
    yield _place(pc, row, insn.dst, insn.off, write=True)
    yield "if p:"
    yield f"    old = get{row.size}(*p)[0]"
    yield f"    put{row.size}(*p, ({new}) & {_mask(row.width)})"
    if row.fetch:
        yield f"    {result} = old"
        yield f"elif s.clear_on_fault: {result} = 0"


def _cast(linked: Linked, pc: int, insn: Insn, row: InsnDef) -> str:
    if linked.kern_vm_start is None or linked.cast_high is None:
        return f"s.refuse({pc}, 'addr_space_cast without an arena')"
    low = _reg(insn.src, 32)
    if row.kind is Kind.CAST_USER:
        return f"r[{insn.dst}] = {linked.cast_high:#x} | {low} if {low} else 0"
    if linked.verified:
        return f"s.trap({pc}, 'the verifier did not rewrite this cast')"
    # Nothing tells arena accesses apart in the sandbox, so its pointers hold the base already.
    return f"r[{insn.dst}] = {linked.kern_vm_start & U64_MAX:#x} + {low}"


def _call(linked: Linked, pc: int, insn: Insn, row: InsnDef) -> str:
    if row.op is CallKind.LOCAL:
        return f"return s.enter(r, {pc}, {jump_target(pc, insn, row)})"
    site = linked.sites[pc]
    if isinstance(site, str):
        return f"s.refuse({pc}, {site!r})"
    if site.proto.tail_call:
        return f"if s.jumped(r, {pc}, sites[{pc}]): return s.leave(r)"
    return f"s.invoke(r, {pc}, sites[{pc}])"
