"""What is accepted, and what is rejected with which errno and words: every case of `cases/`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from case_kit import Case, read_cases, verdict_of

from bpfvm.judge import Options, Outcome, judge_vector
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
    row = judge_vector(case.vector, case.family, Options(kernel))
    assert row.outcome is Outcome.PASS, row.why
    # Other levels say the same.
    privileges = case.vector.privileges
    assert verdict_of(case.program(), kernel, privileges=privileges).last == row.last
