"""The verifier's cases: the vectors of `cases/`, and ways to ask for a verdict without maps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import verifier
from bpfvm.judge import program_of
from bpfvm.maps.base import MapType
from bpfvm.privileges import PRIVILEGED, Privileges
from bpfvm.program import MapFacts, Program
from bpfvm.rules import KERNELS, NEWEST, KernelRules
from bpfvm.vectors import Vector, Wanted, read_vectors
from bpfvm.vm import MAP_TYPES, REGISTRY
from bpfvm.xlated import Verdict

__all__ = ["Case", "facts_of", "read_cases", "verdict_of"]

CASES = Path(__file__).resolve().parent / "cases"
_PAGE = 4096


@dataclass(frozen=True)
class Case:
    """One vector of the file *family*."""

    family: str
    vector: Vector

    @property
    def name(self) -> str:
        """Its title."""
        return self.vector.name

    @cached_property
    def expected(self) -> dict[str, Wanted]:
        """The verdict of each kernel that one is stated for."""
        found = {kernel: self.vector.wanted(kernel) for kernel in KERNELS}
        return {kernel: wanted for kernel, wanted in found.items() if wanted is not None}

    def program(self) -> Program:
        """Assemble it."""
        (program,) = program_of(self.vector).programs.values()
        return program


def facts_of(program: Program) -> tuple[MapFacts, ...]:
    """Return what a verifier knows of the program's maps once they are created."""
    return tuple(
        MapFacts(d, d.map_extra, d.map_extra + d.max_entries * _PAGE)
        if d.map_type == MapType.ARENA
        else MapFacts(d)
        for d in program.maps
    )


def verdict_of(
    program: Program,
    kernel: str = NEWEST,
    log_level: int = 0,
    mem_size: int | None = None,
    privileges: Privileges = PRIVILEGED,
) -> Verdict:
    """Return the verdict on *program* with its maps created."""
    return verifier.verify(
        program,
        facts_of(program),
        REGISTRY,
        map_types=MAP_TYPES,
        rules=KernelRules.of(kernel),
        log_level=log_level,
        mem_size=mem_size,
        privileges=privileges,
    )


def read_cases() -> Iterator[Case]:
    """Yield every case."""
    for path in sorted(CASES.glob("*.data")):
        for vector in read_vectors(path.read_text(), str(path)):
            yield Case(path.stem, vector)
