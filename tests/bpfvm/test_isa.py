"""The table itself: rows, decoding, reserved fields, and the texts generated from it."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from bpfvm import flow, isa, isadoc
from bpfvm.errors import LoadError
from bpfvm.insn import Insn
from bpfvm.isa import TABLE, InsnDef, Kind

EXIT = Insn(0x95)
FIELDS = ("dst", "src", "off", "imm")
USER_ROWS = [row for row in TABLE if not row.arena]


def sample(row: InsnDef, **fields: int) -> Insn:
    """The plainest insn of *row*, with some *fields* changed."""
    target = 1 if row.op is isa.LdKind.FUNC else 0  # the insn behind the ldimm64
    return Insn(row.opcode, imm=target)._replace(**dict(row.fixed))._replace(**fields)


def program(insn: Insn, row: InsnDef) -> list[Insn]:
    """A program that begins with *insn*; a jump by 0 and a call of the next slot are fine."""
    return [insn, *([Insn(0)] if row.kind is Kind.LDIMM64 else []), EXIT]


def by_name(row: InsnDef) -> str:
    return row.mnemonic


def test_the_expanded_rows_are_the_golden_ones(root_dir: Path) -> None:
    golden = root_dir / "tests" / "golden" / "isa.txt"
    assert isadoc.rows() == golden.read_text(), "python -m bpfvm.isadoc rows > tests/golden/isa.txt"


def test_the_document_is_generated_from_the_table(root_dir: Path) -> None:
    document = root_dir / "bpfvm" / "ISA.md"
    assert isadoc.document() == document.read_text(), "python -m bpfvm.isadoc > bpfvm/ISA.md"


def test_the_document_has_every_row_once() -> None:
    text = isadoc.document()
    for row in TABLE:
        assert text.count(f"| `{row.mnemonic}` |") == 1


def test_mnemonics_are_unique() -> None:
    names = [row.mnemonic for row in TABLE]
    assert len(set(names)) == len(names)


def test_rows_that_share_an_opcode_exclude_each_other() -> None:
    for a, b in combinations(TABLE, 2):
        if a.opcode == b.opcode:
            fixed_a, fixed_b = dict(a.fixed), dict(b.fixed)
            common = fixed_a.keys() & fixed_b.keys()
            assert any(fixed_a[f] != fixed_b[f] for f in common), (a.mnemonic, b.mnemonic)


def test_the_opcodes_are_those_that_linux_knows() -> None:
    alu = {op << 4 for op in range(0xD) if op != 0x8}
    expected = {cls | op | source for cls in (4, 7) for op in alu for source in (0, 8)}
    expected |= {0x84, 0x87, 0xD4, 0xDC, 0xD7}
    conditions = {0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xA0, 0xB0, 0xC0, 0xD0}
    expected |= {cls | op | source for cls in (5, 6) for op in conditions for source in (0, 8)}
    expected |= {0x05, 0x06, 0x85, 0x8D, 0x95, 0xE5, 0x18}
    expected |= {0x20, 0x28, 0x30, 0x40, 0x48, 0x50}
    expected |= {0x61, 0x69, 0x71, 0x79, 0x81, 0x89, 0x91}
    expected |= {0x62, 0x6A, 0x72, 0x7A, 0x63, 0x6B, 0x73, 0x7B, 0xC3, 0xCB, 0xD3, 0xDB}
    assert {row.opcode for row in USER_ROWS} == expected
    assert {code for code in range(256) if isa.is_known_opcode(code)} == expected


@pytest.mark.parametrize(
    "enum", [isa.AluOp, isa.EndOp, isa.JmpOp, isa.AtomicOp, isa.LdKind, isa.CallKind]
)
def test_every_operation_has_a_row(enum: type[isa.Op]) -> None:
    assert {row.op for row in TABLE if isinstance(row.op, enum)} == set(enum)


def test_every_kind_form_and_group_has_a_row() -> None:
    assert {row.kind for row in TABLE} == set(Kind)
    assert {row.form for row in TABLE} == set(isa.Form)
    assert {row.group for row in TABLE} == set(isa.Group)


@pytest.mark.parametrize("row", TABLE, ids=by_name)
def test_lookup_finds_the_row(row: InsnDef) -> None:
    assert isa.lookup(sample(row)) is row
    assert not isa.has_reserved_bits(sample(row), row)


@pytest.mark.parametrize("row", USER_ROWS, ids=by_name)
def test_a_nonzero_reserved_field_is_refused(row: InsnDef) -> None:
    unused = set(FIELDS) - row.form.fields - {name for name, _ in row.fixed}
    flow.check_structure(program(sample(row), row))
    for name in unused:
        for value in (1, 9) if name in ("dst", "src") else (1, -1, 0x7FFF):
            insn = sample(row, **{name: value})
            with pytest.raises(LoadError, match=r"reserved field|invalid fields"):
                flow.check_structure(program(insn, row))


@pytest.mark.parametrize("row", [r for r in USER_ROWS if r.fixed], ids=by_name)
def test_a_fixed_field_of_no_row_is_refused(row: InsnDef) -> None:
    for name, value in row.fixed:
        wrong = 15 if name == "src" else value + 3
        insn = sample(row, **{name: wrong})
        assert isa.lookup(insn) is not row
        with pytest.raises(LoadError, match=rf"insn 0: .*{row.opcode:02x}|reserved field"):
            flow.check_structure(program(insn, row))


@pytest.mark.parametrize("row", [r for r in TABLE if r.arena], ids=by_name)
def test_internal_forms_mirror_a_row_and_are_refused(row: InsnDef) -> None:
    (plain,) = (r for r in USER_ROWS if f"arena_{r.mnemonic}" == row.mnemonic)
    assert isa.to_arena(plain) is row
    for name in ("kind", "op", "form", "width", "size", "fixed", "sx", "fetch", "is_reg", "doc"):
        assert getattr(row, name) == getattr(plain, name)
    with pytest.raises(LoadError, match=f"unknown opcode {row.opcode:02x}"):
        flow.check_structure(program(sample(row), row))


@pytest.mark.parametrize("row", USER_ROWS, ids=by_name)
def test_registers_above_r10_and_writes_of_r10_are_refused(row: InsnDef) -> None:
    for name in {"dst", "src"} & row.form.fields:
        with pytest.raises(LoadError, match="R11 is invalid"):
            flow.check_structure(program(sample(row, **{name: 11}), row))
    if isa.writes_dst(row):
        with pytest.raises(LoadError, match="frame pointer is read only"):
            flow.check_structure(program(sample(row, dst=10), row))


def test_insns_beyond_the_rfc_and_cpu_versions() -> None:
    rows = {row.mnemonic: row for row in TABLE}
    assert rows["may_goto"].group is isa.Group.EXT
    assert rows["sdiv32_imm"].version == rows["movsx864"].version == rows["ja32"].version == 4
    assert rows["jlt_imm"].version == 2
    assert rows["jeq32_reg"].version == rows["lock_add"].version == 3
    assert rows["mul_imm"].group is isa.Group.DIVMUL64
    assert rows["lock_xchg32"].group is isa.Group.ATOMIC32
    assert rows["callx"].group is isa.Group.CALLX
    assert rows["ldabsw"].group is isa.Group.PACKET
