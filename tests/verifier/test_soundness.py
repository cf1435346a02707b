"""A program that is accepted does nothing that must not happen, whatever its input."""

from __future__ import annotations

import pytest
from case_kit import read_cases, verdict_of
from edge_kit import STYLES, edge_program
from model_kit import Unsafe, knows, run

from bpfvm.program import Program
from bpfvm.rules import KERNELS

INPUTS = range(20)


def goes_wrong(program: Program) -> bool:
    for seed in INPUTS:
        try:
            run(program, seed)
        except Unsafe:
            return True
    return False


@pytest.mark.property
@pytest.mark.parametrize("style", STYLES)
def test_programs_along_the_edges(style: str) -> None:
    accepted = rejected_rightly = 0
    for seed in range(120):
        program = edge_program(seed, style)
        verdict = verdict_of(program, KERNELS[seed % len(KERNELS)])
        if verdict.xlated is None:
            rejected_rightly += goes_wrong(program)
            continue
        accepted += 1
        for start in INPUTS:
            executed = run(program, start)
            assert all(verdict.xlated.aux[slot].seen for slot in executed), f"seed {seed}"
    # Neither side of the edge may be empty, or the test would say nothing.
    assert accepted >= 10
    assert rejected_rightly >= 10


#: The model has no sockets, no maps of maps, nothing that user space attaches.
_NOT_MODELLED = frozenset({"mapkinds", "prototypes", "sockets"})


def _accepted_cases() -> list[object]:
    return [
        pytest.param(case.program(), kernel, id=f"{case.family}: {case.name} [{kernel}]")
        for case in read_cases()
        for kernel, verdict in case.expected.items()
        if verdict.ok and case.family not in _NOT_MODELLED and knows(case.program())
    ]


@pytest.mark.parametrize(("program", "kernel"), _accepted_cases())
def test_accepted_cases(program: Program, kernel: str) -> None:
    verdict = verdict_of(program, kernel)
    assert verdict.xlated is not None
    for seed in INPUTS:
        executed = run(program, seed)
        assert all(verdict.xlated.aux[slot].seen for slot in executed)
