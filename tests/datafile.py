"""bpf_conformance's vectors: its `.data` files, by the rules of its own runner."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from bpfvm.asm import assemble
from bpfvm.flow import find_subprogs
from bpfvm.insn import decode
from bpfvm.program import ObjectFile, Program
from bpfvm.vm import HELPER_IDS

#: bpf_conformance's directives, matched by substring in this order; None: ignored text.
_UPSTREAM = {
    "asm": "asm",
    "result": "result",
    "mem": "mem",
    "raw": "raw",
    "no register offset": None,
    " c": None,
    "error": "error",
}


@dataclass
class Upstream:
    """A bpf_conformance vector.

    Attributes:
        asm: program text.
        raw: lines of the raw section, uninterpreted: 64-bit words in tests/, bytes in negative/.
        mem: what r1 points to.
        result: expected r0.
        error: expected message of a failing plugin; "" where the section is empty.
        unknown: a directive that the format does not have, which makes the file void.
    """

    asm: str = ""
    raw: list[str] = field(default_factory=list)
    mem: bytes = b""
    result: int | None = None
    error: str | None = None
    unknown: str = ""


def upstream_program(path: Path) -> ObjectFile:
    """Return the program of a bpf_conformance vector, "main"."""
    vector = read_upstream(path)
    if vector.raw:
        words = [int(word, 16 if word.startswith("0x") else 10) for word in vector.raw]
        code = decode(b"".join(struct.pack("<Q", word) for word in words))
        program = Program("main", code, "socket_filter", find_subprogs(code))
        return ObjectFile(str(path), {"main": program})
    return assemble(vector.asm, path.name, helpers=HELPER_IDS)


def read_upstream(path: Path) -> Upstream:
    """Return the vector in *path*, by the rules of bpf_conformance's own runner."""
    vector = Upstream()
    section: str | None = None
    mem: list[str] = []
    for line in path.read_text(encoding="latin-1").split("\n"):
        line = line.removesuffix("\r").split("#")[0]
        if "--" in line:
            found = [name for name in _UPSTREAM if name in line]
            if not found:
                vector.unknown = line
                return vector
            section = _UPSTREAM[found[0]]
            if section == "error":
                vector.error = ""
        elif section == "asm":
            vector.asm += line + "\n"
        elif section == "raw":
            vector.raw += line.split()
        elif section == "mem":
            mem += line.split()
        elif section == "result" and line.strip():
            vector.result = int(line, 16 if "0x" in line else 10)
        elif section == "error" and line:
            vector.error = line
    vector.mem = bytes(int(byte, 16) & 0xFF for byte in mem)
    return vector
