"""How the rows of `isa.TABLE` are spelled in assembly text: tables derived from the rows."""

from __future__ import annotations

from bpfvm import isa
from bpfvm.isa import TABLE, Form, InsnDef, Kind

__all__ = [
    "ACQUIRE",
    "ASSIGN",
    "CALL",
    "COMPARE",
    "EXTEND",
    "FETCH",
    "FETCH_NAMES",
    "JUMP",
    "LOAD",
    "LOCKED",
    "MNEMONICS",
    "NEGATE",
    "OPERANDS",
    "OPERAND_WORDS",
    "PACKET",
    "RELEASE",
    "STORE",
    "UNARY",
    "WIDE",
    "the_row",
]


_USER_ROWS = tuple(row for row in TABLE if not row.arena)


def _rows(*kinds: Kind) -> list[InsnDef]:
    return [row for row in _USER_ROWS if row.kind in kinds]


def the_row(kind: Kind, width: int | None = None) -> InsnDef:
    """Return the only row of *kind* (and *width*)."""
    (row,) = (r for r in _rows(kind) if width in (None, r.width))
    return row


def _ctype(row: InsnDef) -> str:
    return f"{'s' if row.sx else 'u'}{row.size * 8}"


def _symbol(op: isa.Op | None) -> str:
    assert isinstance(op, isa.AluOp | isa.JmpOp | isa.AtomicOp | isa.EndOp)
    return op.symbol


#: By operator, width, and whether the second operand is a register; by C type, such as "u32";
#: by name. Fetching atomics and mnemonics follow below.
ASSIGN = {(_symbol(r.op), r.width, r.is_reg): r for r in _rows(Kind.ALU, Kind.MOV)}
COMPARE = {(_symbol(r.op), r.width, r.is_reg): r for r in _rows(Kind.JCOND)}
NEGATE = {r.width: r for r in _rows(Kind.NEG)}
EXTEND = {(f"s{r.sx}", r.width): r for r in _rows(Kind.MOVSX)}
UNARY = {f"{_symbol(r.op)}{r.width}": r for r in _rows(Kind.END)}
LOAD = {_ctype(r): r for r in _rows(Kind.LDX)}
STORE = {(_ctype(r), r.is_reg): r for r in _rows(Kind.ST, Kind.STX)}
LOCKED = {(_symbol(r.op), _ctype(r)): r for r in _rows(Kind.ATOMIC) if not r.fetch}
ACQUIRE = {_ctype(r): r for r in _rows(Kind.LOAD_ACQ)}
RELEASE = {_ctype(r): r for r in _rows(Kind.STORE_REL)}
PACKET = {(r.kind, _ctype(r)): r for r in _rows(Kind.LD_ABS, Kind.LD_IND)}
WIDE = {r.op: r for r in _rows(Kind.LDIMM64)}
CALL = {r.op: r for r in _rows(Kind.CALL)}
JUMP = {"goto": the_row(Kind.JA, width=64), "gotol": the_row(Kind.JA, width=32)}


def _fetches() -> dict[tuple[str, str], InsnDef]:
    """Atomics that give the old value, by the kernel's and LLVM's names; an LLVM exchange tells
    its width in its name and takes a bare place ("" for the type)."""
    found = {}
    for row in _rows(Kind.ATOMIC):
        if not row.fetch:
            continue
        assert isinstance(row.op, isa.AtomicOp)
        name, ctype = row.op.mnemonic, _ctype(row)
        if row.op.symbol:
            for prefix in ("atomic", "atomic64"):
                if prefix == "atomic" or row.size == 8:
                    found[f"{prefix}_fetch_{name}", ctype] = row
            continue
        for spelling in (f"{name}_64",) if row.size == 8 else (f"{name}_32", f"{name}32_32"):
            found[spelling, ""] = row
        for prefix in ("atomic", "atomic64"):
            if prefix == "atomic" or row.size == 8:
                found[f"{prefix}_{name}", ctype] = row
    return found


FETCH = _fetches()
FETCH_NAMES = {name for name, _ in FETCH}

#: bpf_conformance's mnemonics: a table mnemonic, without what the operands tell.
MNEMONICS: dict[str, dict[bool, InsnDef]] = {}
for _row in _USER_ROWS:
    if _row.kind not in (Kind.CALL, Kind.CALLX):
        _name = _row.mnemonic.removesuffix("_imm").removesuffix("_reg")
        MNEMONICS.setdefault(_name, {})[_row.is_reg] = _row
        if _row.op is isa.EndOp.SWAP:
            MNEMONICS[f"b{_name}"] = MNEMONICS[_name]

#: What each operand of a form is, in the order of bpf_conformance's syntax.
OPERANDS: dict[Form, tuple[str, ...]] = {
    Form.NONE: (),
    Form.DST: ("dst",),
    Form.DST_SRC: ("dst", "src"),
    Form.DST_IMM: ("dst", "imm"),
    Form.DST_IMM64: ("dst", "imm64"),
    Form.LOAD: ("dst", "src+off"),
    Form.STORE_REG: ("dst+off", "src"),
    Form.STORE_IMM: ("dst+off", "imm"),
    Form.TARGET_OFF: ("target",),
    Form.TARGET_IMM: ("long target",),
    Form.DST_SRC_TARGET: ("dst", "src", "target"),
    Form.DST_IMM_TARGET: ("dst", "imm", "target"),
    Form.CALLEE: ("imm",),
    Form.CALLEE_OFF: ("imm",),
    Form.SKB_IMM: ("imm",),
    Form.SKB_SRC_IMM: ("src", "imm"),
}
#: What a missing or wrong operand should have been.
OPERAND_WORDS = {
    "dst": "a register such as %r1",
    "src": "a register such as %r1",
    "imm": "an immediate",
    "imm64": "a 64-bit immediate",
    "src+off": "a memory operand such as [%r1+8]",
    "dst+off": "a memory operand such as [%r1+8]",
    "target": "a label or +N",
    "long target": "a label or +N",
}
