"""What is accepted, and what is rejected with which errno and words: every case of `cases/`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from case_kit import Case, read_cases, verdict_of

from bpfvm.rules import KERNELS

CASES = list(read_cases())


def _questions() -> Iterator[object]:
    for case in CASES:
        for kernel in KERNELS:
            if kernel in case.expected:
                yield pytest.param(case, kernel, id=f"{case.family}: {case.name} [{kernel}]")


def test_cases_have_names_of_their_own() -> None:
    names = [(case.family, case.name) for case in CASES]
    assert len(names) == len(set(names)) > 200
    assert all(case.expected for case in CASES)


@pytest.mark.parametrize(("case", "kernel"), list(_questions()))
def test_verdict(case: Case, kernel: str) -> None:
    program = case.program()
    expected = case.expected[kernel]
    verdict = verdict_of(program, kernel, 1)
    assert (verdict.errno, verdict.last) == (
        expected.errno,
        verdict.last if expected.fits(verdict.last) else expected.last,
    )
    assert verdict.ok == (expected.errno == 0)
    assert (verdict.xlated is not None) == verdict.ok
    for line in case.logs:
        assert line in verdict.log
