"""The catalogue: every rejected program is, its repaired twin isn't, and every message has one."""

from __future__ import annotations

import re
from pathlib import Path

import messages
import pytest

from bpfvm.judge import Options, Outcome, judge_vector
from bpfvm.rules import KERNELS
from bpfvm.vectors import Vector, read_vectors
from verifier.reasons import Reason

ROOT = Path(__file__).resolve().parent.parent
VECTORS = [
    vector
    for path in sorted(messages.CATALOG.glob("*.data"))
    for vector in read_vectors(path.read_text(), path.name)
]


@pytest.fixture(scope="module")
def entries() -> list[messages.Entry]:
    return list(messages.entries())


def _id(vector: object) -> str | None:
    return f"{vector.origin}: {vector.name}" if isinstance(vector, Vector) else None


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("vector", VECTORS, ids=_id)
def test_vector(vector: Vector, kernel: str) -> None:
    if vector.wanted(kernel) is None:
        pytest.skip(f"nothing is said of {kernel}")
    row = judge_vector(vector, vector.origin, Options(kernel))
    assert row.outcome is Outcome.PASS, row.why


def test_every_rejected_program_tells_why_and_how_to_repair_it(
    entries: list[messages.Entry],
) -> None:
    assert len(entries) >= 200
    for entry in entries:
        assert entry.slugs, entry.vector.name
        assert entry.vector.about, entry.vector.name
        assert entry.vector.text("repair"), entry.vector.name
        assert entry.repaired is not None
        repaired = [entry.repaired.wanted(kernel) for kernel in entry.slugs]
        assert any(repaired), entry.repaired.name
        assert all(wanted is None or wanted.ok for wanted in repaired), entry.repaired.name


def test_messages_are_those_of_their_reason(entries: list[messages.Entry]) -> None:
    templates = {reason.slug: reason.template.rsplit("\n", 1)[-1] for reason in Reason}
    for entry in entries:
        for kernel, slug in entry.slugs.items():
            said = entry.vector.text("message", kernel)
            assert said is not None
            if not said.startswith("old state:"):
                pattern = messages.placeholders(templates[slug])
                assert re.fullmatch(pattern, said.removesuffix("..."), re.DOTALL), said


def test_every_message_has_a_program_or_a_reason_for_having_none() -> None:
    causes = messages.by_slug()
    slugs = {reason.slug for reason in Reason}
    assert set(causes) | set(messages.WITHOUT_PROGRAM) == slugs
    assert not set(causes) & set(messages.WITHOUT_PROGRAM)
    found = (ROOT / "verifier" / "MESSAGES.md").read_text()
    assert found == messages.document(causes), "python tests/messages.py > verifier/MESSAGES.md"
