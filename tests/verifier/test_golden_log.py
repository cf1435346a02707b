"""Whole logs of small programs, to be read: tests/golden/verifier.

Level 2 of 6.18 for each, and level 1 for what is rejected; the running kernel says the same.
`PYTHONPATH=. python tests/verifier/test_golden_log.py` rewrites the files; read the difference
before committing it.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import pytest
from case_kit import verdict_of
from test_kernel import Ask

from bpfvm.asm import assemble
from bpfvm.program import Program
from bpfvm.vm import HELPER_IDS

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "verifier"
NAMES = sorted(path.stem for path in FOLDER.glob("*.s"))


def program_of(name: str) -> Program:
    text = (FOLDER / f"{name}.s").read_text()
    return assemble(text, name, helpers=HELPER_IDS).programs[name]


def log_of(name: str) -> str:
    program = program_of(name)
    verdict = verdict_of(program, "6.18", log_level=2)
    if verdict.ok:
        return verdict.log
    return verdict_of(program, "6.18", log_level=1).log + "\n" + verdict.log


@pytest.mark.parametrize("name", NAMES)
def test_the_log(name: str) -> None:
    assert log_of(name) == (FOLDER / f"{name}.log").read_text()


def comparable(log: str) -> str:
    """Return *log* without a map's address in the kernel, and the column that it shifts."""
    return re.sub(r"(\(18\) r\d = )0x[0-9a-f]+ *", r"\1", log).rstrip("\n")


@pytest.mark.skipif(
    os.environ.get("BPFVM_ASK_KERNEL") != "1",
    reason="the kernel is asked on request only: BPFVM_ASK_KERNEL=1",
)
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_the_kernel_logs_the_same(ask_6_18: Ask, name: str, level: int) -> None:
    program = program_of(name)
    theirs = ask_6_18(program, level).log
    assert comparable(verdict_of(program, "6.18", level).log) == comparable(theirs)


if __name__ == "__main__":
    for each in NAMES:
        (FOLDER / f"{each}.log").write_text(log_of(each))
