"""The campaign in small: recorded answers of the kernel again, and accepted programs run."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import campaign
from safety_kit import IS_PURE, check

import bpfvm
from bpfvm.grammar import FAMILIES, grammar_program
from bpfvm.isa import AluOp
from bpfvm.program import Program
from bpfvm.rules import KERNELS
from verifier import bounds
from verifier.domain import RANGES

pure = pytest.mark.skipif(not IS_PURE, reason="compiled: paths can't be recorded")
RECORDS = sorted(campaign.read_records().items())


def program_of(text: str) -> Program:
    (prog,) = bpfvm.assemble(text).programs.values()
    return prog.program


def test_a_seed_gives_one_program_of_its_family() -> None:
    for family in FAMILIES:
        assert grammar_program(3, family) == grammar_program(3, family)
        assert grammar_program(3, family).insns != grammar_program(4, family).insns
    assert grammar_program(3) == grammar_program(3)


@pytest.mark.parametrize("part", range(4))
def test_we_say_what_the_kernel_said(part: int) -> None:
    differences = []
    for (family, seed), (known, answer) in RECORDS[part::12]:
        program = grammar_program(seed, family)
        assert campaign.digest(program) == known, "another program: ask the kernel again"
        mine = campaign.ours(program)
        if not mine.left_out and (mine.errno, mine.last) != (answer.errno, answer.last):
            differences.append((family, seed, mine, answer))
    assert not differences


def test_what_the_kernel_accepted_and_what_not() -> None:
    accepted = Counter(family for (family, _), (_, answer) in RECORDS if answer.ok)
    asked = Counter(family for (family, _), _ in RECORDS)
    assert 0.4 <= sum(accepted.values()) / len(RECORDS) <= 0.6
    for family, count in asked.items():
        assert 0.3 <= accepted[family] / count <= 0.7


@pure
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("family", FAMILIES)
def test_accepted_programs_are_safe(family: str, kernel: str) -> None:
    compared = 0
    for seed in range(1000, 1012):
        program = grammar_program(seed, family)
        if not campaign.ours(program, kernel).ok:
            continue
        checked = check(program, kernel, inputs=3)
        assert not checked.violation, f"seed {seed}"
        compared += checked.by_path
    assert compared >= 2


MASKED = """
.map m type=array key=4 value=8 entries=1
r1 = map_value(m)
r2 = *(u64 *)(r1 + 0)
r2 &= 7
r0 = 0
exit
"""
BRANCH = """
.map m type=array key=4 value=8 entries=1
r1 = map_value(m)
r2 = *(u64 *)(r1 + 0)
r0 = 0
if r2 > 100 goto +1
r0 = 1
exit
"""


@pure
def test_a_wrong_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(MASKED)
    assert check(program, "6.18", inputs=20) == check(program, "6.18", inputs=20)
    assert not check(program, "6.18", inputs=20).violation
    wrong = replace(RANGES, transfer={**RANGES.transfer, AluOp.AND: lambda *_: bounds.const(3)})
    monkeypatch.setattr("verifier.env.domain_of", lambda _rules: wrong)
    found = check(program, "6.18", inputs=20).violation
    assert found.startswith("insn 4: r2 is 0x")
    assert found.endswith(", not 3")


@pure
def test_a_way_that_was_taken_for_impossible_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    program = program_of(BRANCH)
    assert not check(program, "6.18", inputs=20).violation
    always = replace(RANGES, comparison=lambda _op: lambda *_: True)
    monkeypatch.setattr("verifier.env.domain_of", lambda _rules: always)
    found = check(program, "6.18", inputs=20)
    assert found.violation.endswith("the verifier did not walk this path")


def test_programs_that_make_the_kernel_warn_are_left_out() -> None:
    number = ".map m type=array key=4 value=8 entries=1\nr1 = map_value(m)\n"
    warned = number + "r0 = *(u8 *)(r1 + 0)\nr0 &= 1\nif r0 s< r0 goto +0\nexit"
    harmless = number + "r0 = *(u8 *)(r1 + 0)\nr0 &= 1\nif r0 s< r1 goto +0\nr0 = 0\nexit"
    assert campaign.ours(program_of(warned)).left_out == "the kernel would warn"
    assert campaign.ours(program_of(harmless)).left_out == ""
    # It is remembered scalars that would hide it.
    assert campaign.ours(program_of(warned)).left_out == "the kernel would warn"


def test_records_are_read_as_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = campaign.read_records()
    monkeypatch.setattr(campaign, "RECORDED", tmp_path / "again.txt")
    assert campaign.read_records() == {}
    campaign.write_records(records)
    assert campaign.read_records() == records


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert campaign.main(["--count", "20", "--family", "stack"]) == 0
    assert capsys.readouterr().out.startswith("20 programs compared, ")
    if not IS_PURE:
        return
    assert campaign.main(["--safety", "--count", "4", "--family", "maps", "--rules", "7.3"]) == 0
    assert capsys.readouterr().out.endswith(": 0 violations\n")
