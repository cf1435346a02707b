"""Each operation against a second statement of RFC 9669, written on numbers instead of text."""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from interp_kit import EXIT, U64, Bench, lddw, op

from bpfvm import isa, semantics
from bpfvm.isa import AluOp, AtomicOp, EndOp, JmpOp, Kind

EDGES = [0, 1, 2, 7, 31, 32, 33, 63, 64, 65, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1]
EDGES += [2**63, U64 - 2**31, U64 - 8, U64 - 2, U64 - 1, 0x1122334455667788]
WORDS = st.one_of(st.sampled_from(EDGES), st.integers(0, U64 - 1))
IMMS = st.one_of(
    st.sampled_from([0, 1, -1, 31, 32, 63, 64, 2**31 - 1, -(2**31)]),
    st.integers(-(2**31), 2**31 - 1),
)


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


def signed(value: int, width: int) -> int:
    raw = (value % 2**width).to_bytes(width // 8, "little")
    return int.from_bytes(raw, "little", signed=True)


def truncated(x: int, y: int) -> int:
    return int(Fraction(x, y))  # int() cuts towards zero, and a Fraction is exact


def alu(op_: AluOp, x: int, y: int, width: int) -> int:
    """RFC 9669 section 4.1 on full numbers."""
    m = 2**width
    x, y = x % m, y % m
    sx, sy = signed(x, width), signed(y, width)
    by = y % width
    results: dict[AluOp, Callable[[], int]] = {
        AluOp.ADD: lambda: x + y,
        AluOp.SUB: lambda: x + (m - y),
        AluOp.MUL: lambda: sum(x << i for i in range(width) if y >> i & 1),
        AluOp.DIV: lambda: 0 if y == 0 else divmod(x, y)[0],
        AluOp.SDIV: lambda: 0 if y == 0 else truncated(sx, sy),
        AluOp.MOD: lambda: x if y == 0 else divmod(x, y)[1],
        AluOp.SMOD: lambda: x if y == 0 else sx - sy * truncated(sx, sy),
        AluOp.OR: lambda: x + y - (x & y),
        AluOp.AND: lambda: sum(2**i for i in range(width) if x >> i & 1 and y >> i & 1),
        AluOp.XOR: lambda: (x | y) - (x & y),
        AluOp.LSH: lambda: x * 2**by,
        AluOp.RSH: lambda: x // 2**by,
        AluOp.ARSH: lambda: sx // 2**by,
        AluOp.MOV: lambda: y,
        AluOp.NEG: lambda: m - x,
    }
    return int(results[op_]() % m)


def test_every_operation_has_an_expression() -> None:
    assert set(semantics.ALU) == set(AluOp)
    assert set(semantics.END) == set(EndOp)
    assert set(semantics.JMP) == set(JmpOp)
    assert set(semantics.ATOMIC) == set(AtomicOp)


def test_names_in_expressions_are_replaced_as_words() -> None:
    assert semantics.expression("sx + x * xx", {"x": "r[1]", "sx": "s"}) == "s + r[1] * xx"


ALU_ROWS = [r for r in isa.TABLE if r.kind in (Kind.ALU, Kind.MOV, Kind.NEG)]


@pytest.mark.parametrize("row", ALU_ROWS, ids=lambda r: r.mnemonic)
@settings(max_examples=60, deadline=None)
@given(x=WORDS, y=WORDS, imm=IMMS)
def test_alu(bench: Bench, row: isa.InsnDef, x: int, y: int, imm: int) -> None:
    assert isinstance(row.op, AluOp)
    second = y if row.is_reg else imm % U64
    insn = op(row.mnemonic, 0, 2 if row.is_reg else 0, imm=0 if row.is_reg else imm)
    if row.kind is Kind.NEG:
        insn = op(row.mnemonic, 0)
    got = bench.run(op("mov_reg", 0, 1), insn, r1=x, r2=y)
    assert got == alu(row.op, x, second, row.width)


@pytest.mark.parametrize("x", EDGES)
@pytest.mark.parametrize("name", ["sdiv", "smod", "sdiv32", "smod32", "div", "mod32"])
def test_division_edges(bench: Bench, name: str, x: int) -> None:
    row = next(r for r in ALU_ROWS if r.mnemonic == f"{name}_reg")
    assert isinstance(row.op, AluOp)
    for y in EDGES:
        got = bench.run(op("mov_reg", 0, 1), op(f"{name}_reg", 0, 2), r1=x, r2=y)
        assert got == alu(row.op, x, y, row.width), (x, y)


def test_division_by_an_immediate_zero(bench: Bench) -> None:
    assert bench.run(op("mov_reg", 0, 1), op("div_imm"), r1=5) == 0
    assert bench.run(op("mov_reg", 0, 1), op("mod_imm"), r1=U64 - 5) == U64 - 5
    assert bench.run(op("mov_reg", 0, 1), op("mod32_imm"), r1=U64 - 5) == 2**32 - 5


@given(x=WORDS)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize(
    "row", [r for r in isa.TABLE if r.kind is Kind.MOVSX], ids=lambda r: r.mnemonic
)
def test_movsx(bench: Bench, row: isa.InsnDef, x: int) -> None:
    got = bench.run(op(row.mnemonic, 0, 1), r1=x)
    assert got == signed(x, row.sx) % 2**row.width


@given(x=WORDS)
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize(
    "row", [r for r in isa.TABLE if r.kind is Kind.END], ids=lambda r: r.mnemonic
)
def test_byte_order(bench: Bench, row: isa.InsnDef, x: int) -> None:
    raw = x.to_bytes(8, "little")[: row.width // 8]
    expected = int.from_bytes(raw, "little" if row.op is EndOp.LE else "big")
    assert bench.run(op("mov_reg", 0, 1), op(row.mnemonic, 0), r1=x) == expected


SIGNED = {JmpOp.JSGT, JmpOp.JSGE, JmpOp.JSLT, JmpOp.JSLE}
COMPARE: dict[JmpOp, Callable[[int, int], bool]] = {
    JmpOp.JEQ: operator.eq,
    JmpOp.JNE: operator.ne,
    JmpOp.JGT: operator.gt,
    JmpOp.JGE: operator.ge,
    JmpOp.JLT: operator.lt,
    JmpOp.JLE: operator.le,
    JmpOp.JSGT: operator.gt,
    JmpOp.JSGE: operator.ge,
    JmpOp.JSLT: operator.lt,
    JmpOp.JSLE: operator.le,
    JmpOp.JSET: lambda x, y: (x & y) != 0,
}


@pytest.mark.parametrize(
    "row", [r for r in isa.TABLE if r.kind is Kind.JCOND], ids=lambda r: r.mnemonic
)
@settings(max_examples=60, deadline=None)
@given(x=WORDS, y=WORDS, imm=IMMS, same=st.booleans())
def test_conditions(bench: Bench, row: isa.InsnDef, x: int, y: int, imm: int, same: bool) -> None:
    assert isinstance(row.op, JmpOp)
    if same:
        x = y if row.is_reg else imm % U64
    second = y if row.is_reg else imm % U64
    a, b = x % 2**row.width, second % 2**row.width
    if row.op in SIGNED:
        a, b = signed(a, row.width), signed(b, row.width)
    insn = op(row.mnemonic, 1, 2 if row.is_reg else 0, off=1, imm=0 if row.is_reg else imm)
    got = bench.run(op("mov_imm", 0, imm=1), insn, op("mov_imm", 0, imm=0), r1=x, r2=y)
    assert got == COMPARE[row.op](a, b)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
@given(value=WORDS, imm=IMMS)
@settings(max_examples=30, deadline=None)
def test_loads_and_stores(bench: Bench, size: int, value: int, imm: int) -> None:
    name = {1: "b", 2: "h", 4: "w", 8: "dw"}[size]
    store = (op("mov_imm", 3, imm=-1), op("stxdw", 10, 3, off=-16))
    raw = value.to_bytes(8, "little")
    whole = bytes([0xFF] * 3) + raw[:size] + bytes([0xFF] * 8)
    # At fp-13, unaligned: nothing but these bytes may change.
    got = bench.run(store, op(f"stx{name}", 10, 1, off=-13), op("ldxdw", 0, 10, off=-16), r1=value)
    assert got == int.from_bytes(whole[:8], "little")
    got = bench.run(
        store, op(f"stx{name}", 10, 1, off=-13), op(f"ldx{name}", 0, 10, off=-13), r1=value
    )
    assert got == int.from_bytes(raw[:size], "little")
    got = bench.run(store, op(f"st{name}", 10, off=-13, imm=imm), op(f"ldx{name}", 0, 10, off=-13))
    assert got == imm % 2 ** (8 * size)
    if size < 8:
        load = op(f"ldxs{name}", 0, 10, off=-13)
        got = bench.run(store, op(f"stx{name}", 10, 1, off=-13), load, r1=value)
        assert got == int.from_bytes(raw[:size], "little", signed=True) % U64


def atomic(op_: AtomicOp, old: int, src: int, r0: int, width: int) -> int:
    """The value left in memory."""
    m = 2**width
    new = {
        AtomicOp.ADD: old + src,
        AtomicOp.OR: old | src,
        AtomicOp.AND: old & src,
        AtomicOp.XOR: old ^ src,
        AtomicOp.XCHG: src,
        AtomicOp.CMPXCHG: src if old % m == r0 % m else old,
    }
    return int(new[op_] % m)


ATOMIC_ROWS = [r for r in isa.TABLE if r.kind is Kind.ATOMIC and not r.arena]


@pytest.mark.parametrize("row", ATOMIC_ROWS, ids=lambda r: r.mnemonic)
@settings(max_examples=40, deadline=None)
@given(cell=WORDS, src=WORDS, match=st.booleans(), high=WORDS)
def test_atomics(
    bench: Bench, row: isa.InsnDef, cell: int, src: int, match: bool, high: int
) -> None:
    assert isinstance(row.op, AtomicOp)
    low = cell % 2**row.width
    r0 = (low + (not match) + ((high << row.width) if row.width == 32 else 0)) % U64
    body = (
        lddw(3, cell),
        op("stxdw", 10, 3, off=-8),
        op("mov_reg", 6, 1),
        lddw(0, r0),
        op(row.mnemonic, 10, 6, off=-8),
    )
    m = 2**row.width
    mem = bench.run(*body, op("ldxdw", 0, 10, off=-8), r1=src)
    new = atomic(row.op, low, src, r0, row.width)
    assert mem == cell - low + new
    r6 = bench.run(*body, op("mov_reg", 0, 6), r1=src)
    r0_after = bench.run(*body, r1=src)
    if row.op is AtomicOp.CMPXCHG:
        assert (r0_after, r6) == (cell % m, src)
    else:
        assert (r0_after, r6) == (r0, cell % m if row.fetch else src)


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_acquire_and_release(bench: Bench, bits: int) -> None:
    value = 0x8877665544332211
    got = bench.run(
        op("mov_imm", 3, imm=-1),
        op("stxdw", 10, 3, off=-8),
        op(f"store_release{bits}", 10, 1, off=-8),
        op(f"load_acquire{bits}", 0, 10, off=-8),
        r1=value,
    )
    assert got == value % 2**bits


def test_ldimm64_takes_both_halves(bench: Bench) -> None:
    for value in EDGES:
        assert bench.run(lddw(0, value)) == value


def test_jumps(bench: Bench) -> None:
    assert bench.run(op("ja", off=1), op("mov_imm", 0, imm=1)) == 0
    assert bench.run(op("ja32", imm=1), op("mov_imm", 0, imm=1)) == 0
    backwards = (
        op("ja", off=2),
        op("mov_imm", 0, imm=7),
        EXIT,
        op("ja32", imm=-3),
    )
    assert bench.run(backwards) == 7


def test_registers_at_entry(bench: Bench) -> None:
    for reg in (0, 3, 4, 5, 6, 7, 8, 9):
        assert bench.run(op("mov_reg", 0, reg), r1=3, r2=4) == 0
    assert bench.run(op("mov_reg", 0, 1), r1=3, r2=4) == 3
    assert bench.run(op("mov_reg", 0, 2), r1=3, r2=4) == 4
    assert bench.run(op("mov_reg", 0, 10)) == bench.stack_top


def test_memory_is_little_endian(bench: Bench) -> None:
    bench.run(lddw(1, 0x0807060504030201), op("stxdw", 10, 1, off=-8))
    assert bytes(bench.stack.view[-8:]) == struct.pack("<Q", 0x0807060504030201)
