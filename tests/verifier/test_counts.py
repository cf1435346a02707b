"""Pruning is the kernel's: processed insns and states, as the running 6.18 counted them once.

Each program's second line has the counts; they depend on liveness, precision, what states are
saved, compared, dropped and covered, and in what order.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from case_kit import verdict_of

from bpfvm.asm import assemble
from bpfvm.vm import HELPER_IDS

PATHS = sorted((Path(__file__).resolve().parents[1] / "golden/verifier/counts").glob("*.s"))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_counts(path: Path) -> None:
    text = path.read_text()
    counts = tuple(map(int, re.findall(r"\d+", text.splitlines()[1])))
    (program,) = assemble(text, path.name, helpers=HELPER_IDS).programs.values()
    verdict = verdict_of(program, "6.18")
    assert verdict.ok, verdict.log
    stats = verdict.stats
    assert counts == (
        stats.processed,
        stats.max_states_per_insn,
        stats.total_states,
        stats.peak_states,
    )
