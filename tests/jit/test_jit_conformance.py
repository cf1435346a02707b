"""The given part of bpf_conformance in the JIT's sandbox, and against the interpreter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from bpfvm import helpers
from bpfvm.asm import assemble
from bpfvm.insn import Insn, decode
from bpfvm.proto import Registry

if TYPE_CHECKING:
    from conftest import Rig

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "conformance" / "tests"
VECTORS = sorted(FOLDER.glob("*.data"))


class Vector(NamedTuple):
    insns: tuple[Insn, ...]
    memory: bytes
    result: int | None


def parse(path: Path) -> Vector:
    """Read one vector (spec/conformance.md, "The .data file format")."""
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for raw in path.read_text().splitlines():
        line = raw.split("#")[0].rstrip("\r")
        if "--" in line:
            current = sections.setdefault(line.replace("-", "").strip(), [])
        elif line:
            current.append(line)
    result = sections["result"][-1].strip()
    words = [int(w, 0) for w in " ".join(sections.get("raw", [])).split()]
    if words:
        insns = decode(b"".join(w.to_bytes(8, "little") for w in words))
    else:
        (program,) = assemble("\n".join(sections["asm"])).programs.values()
        insns = program.insns
    memory = bytes(int(b, 16) & 0xFF for b in " ".join(sections.get("mem", [])).split())
    value = re.search(r"0x[0-9a-fA-F]+|\d+", result)
    return Vector(insns, memory, int(value[0], 0) if value else None)


@pytest.mark.parametrize("path", VECTORS or [None], ids=lambda p: p.stem if p else "none")
def test_vector(make_rig: type[Rig], path: Path | None) -> None:
    if path is None:
        pytest.skip("no reference material: ../shared/conformance is not there")
    vector = parse(path)
    rig = make_rig(registry=_registry(), size=max(1, len(vector.memory)))
    rig.memory.view[: len(vector.memory)] = vector.memory
    run = rig.pair(vector.insns)
    got = run(rig.memory.base if vector.memory else 0, len(vector.memory))
    assert got.error == ""
    assert got.r0 == vector.result


def _registry() -> Registry:
    return Registry([helpers])
