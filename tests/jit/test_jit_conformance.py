"""The given part of bpf_conformance in the JIT's sandbox, and against the interpreter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from datafile import read_upstream, upstream_program

from bpfvm import helpers
from bpfvm.proto import Registry

if TYPE_CHECKING:
    from conftest import Rig

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "conformance" / "tests"
VECTORS = sorted(FOLDER.glob("*.data"))


@pytest.mark.parametrize("path", VECTORS or [None], ids=lambda p: p.stem if p else "none")
def test_vector(make_rig: type[Rig], path: Path | None) -> None:
    if path is None:
        pytest.skip("no reference material: ../shared/conformance is not there")
    vector = read_upstream(path)
    rig = make_rig(registry=_registry(), size=max(1, len(vector.mem)))
    rig.memory.view[: len(vector.mem)] = vector.mem
    run = rig.pair(upstream_program(path).programs["main"].insns)
    got = run(rig.memory.base if vector.mem else 0, len(vector.mem))
    assert got.error == ""
    assert got.r0 == vector.result


def _registry() -> Registry:
    return Registry([helpers])
