"""The instruction table as text: `python -m bpfvm.isadoc > bpfvm/ISA.md` writes the document,
`python -m bpfvm.isadoc rows > tests/golden/isa.txt` the expanded rows. Tests hold both."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from bpfvm.disasm import Names, insn_text
from bpfvm.insn import Insn
from bpfvm.isa import TABLE, Group, InsnDef, Kind, LdKind

__all__ = ["document", "rows"]

_INTRO = """\
# The instruction set

Generated from `bpfvm/isa.py` by `python -m bpfvm.isadoc > bpfvm/ISA.md`; do not edit.

One row for each semantic operation. *Code* is the opcode byte, *fixed* what other fields must
hold to select the row among those that share it; every field that the row neither uses nor fixes
must be zero. *Text* is the kernel's wording, with dst 1, src 2, off +8 and imm 5 where the row
has such operands; *name* is bpf_conformance's mnemonic (without `_imm`, `_reg`). *v* is the
clang `-mcpu` version that emits it. Groups are the conformance groups of RFC 9669, and `ext` is
Linux beyond it. Rows named `arena_*` are internal: the verifier's rewrite makes them, and no
program may hold them.
"""

_HEADINGS = {
    Group.BASE32: "Base, 32 bits",
    Group.BASE64: "Base, 64 bits",
    Group.DIVMUL32: "Multiplication and division, 32 bits",
    Group.DIVMUL64: "Multiplication and division, 64 bits",
    Group.ATOMIC32: "Atomic, 32 bits",
    Group.ATOMIC64: "Atomic, 64 bits",
    Group.CALLX: "Call by register",
    Group.PACKET: "Legacy packet access",
    Group.EXT: "Linux extensions, and internal arena accesses",
}

_SPELLINGS = {
    LdKind.MAP_FD: "map_fd(5)",
    LdKind.MAP_VALUE: "map_fd_value(5) + 8",
    LdKind.BTF_ID: "btf_id(5)",
    LdKind.FUNC: "func(LABEL)",
    LdKind.MAP_IDX: "map(NAME)",
    LdKind.MAP_IDX_VALUE: "map_value(NAME) + 8",
}
_NAMES = Names(
    helper=lambda _number: "HELPER",
    kfunc=lambda _imm, _off: "KFUNC",
    wide=lambda kind, _imm, _next_imm: _SPELLINGS.get(kind),
)


def _sample(row: InsnDef) -> Insn:
    values = {"dst": 1, "src": 2, "off": 8, "imm": 5}
    used = {name: values[name] for name in row.form.fields}
    return Insn(row.opcode)._replace(**used)._replace(**dict(row.fixed))


def _syntax(row: InsnDef) -> str:
    text = insn_text(_sample(row), 0, _NAMES).split(" ", 1)[1]
    return text + " ll" if row.kind is Kind.LDIMM64 and row.op is LdKind.IMM64 else text


def _fixed(row: InsnDef) -> str:
    return " ".join(f"{name}={value:#x}" for name, value in row.fixed)


def document() -> str:
    """Return the text of `bpfvm/ISA.md`."""
    parts = [_INTRO]
    for group in _HEADINGS:
        parts.append(f"\n## {_HEADINGS[group]} (`{group.value}`)\n\n")
        parts.append("| code | fixed | name | text | meaning | v |\n|---|---|---|---|---|---|\n")
        parts += _table_lines(group)
    return "".join(parts)


def _table_lines(group: Group) -> Iterator[str]:
    for row in TABLE:
        if row.group is group:
            cells = [
                f"`{row.opcode:02x}`",
                f"`{_fixed(row)}`" if row.fixed else "",
                f"`{row.mnemonic}`",
                f"`{_syntax(row)}`".replace("|", "\\|"),
                f"`{row.doc}`".replace("|", "\\|"),
                str(row.version),
            ]
            yield f"| {' | '.join(cells)} |\n"


def rows() -> str:
    """Return the expanded table, one line for each row, every attribute."""
    lines = []
    for row in TABLE:
        op = row.op.name if row.op is not None else "-"
        marks = [f"w{row.width}", f"size={row.size}", f"sx={row.sx}"]
        marks += [name for name in ("is_reg", "fetch", "arena") if getattr(row, name)]
        lines.append(
            f"{row.opcode:02x} {row.mnemonic} {row.kind.value} {op} {row.form.name}"
            f" {' '.join(marks)} [{_fixed(row)}] {row.group.value} v{row.version}: {row.doc}\n"
        )
    return "".join(lines)


if __name__ == "__main__":
    sys.stdout.write(rows() if sys.argv[1:] == ["rows"] else document())
