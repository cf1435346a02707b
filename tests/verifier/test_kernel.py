"""The running kernel's answers against ours: verdict, errno, last line, states at log level 2.

Loading some hundred programs into a live kernel is done on request only (`BPFVM_ASK_KERNEL=1`),
and never into a kernel that has complained before. Programs on whose dead branches the kernel's
own range tracking contradicts itself (it warns then, and is tainted) are not sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
from case_kit import Case, read_cases, verdict_of
from edge_kit import edge_program

from bpfvm.json_api import answer
from bpfvm.kernel import closing_line, request_of
from bpfvm.privileges import PRIVILEGED
from bpfvm.program import Program
from bpfvm.xlated import Verdict
from verifier.bounds import contradictions

KERNEL = "6.18"
_FOLLOWS_US = "not supported yet: "
#: A 64-bit constant may be a map's address in the kernel; for us it is the map's number.
_WIDE = re.compile(r"(\(18\) r\d+ = )\S+")
_STATE = re.compile(r"^(\d+: \([0-9a-f]{2}\) .*?|from \d+ to \d+[^:]*)(?:\s*; |: )(R\d.*)$")

Ask = Callable[[Program, int], Verdict]
on_request = pytest.mark.skipif(
    os.environ.get("BPFVM_ASK_KERNEL") != "1",
    reason="the kernel is asked on request only: BPFVM_ASK_KERNEL=1",
)


def states(log: str) -> list[tuple[str, str]]:
    """Return (insn, state) for each line of a level 2 log that shows what changed."""
    found = (_STATE.match(line) for line in log.splitlines())
    return [(_WIDE.sub(r"\1...", m[1].strip()), m[2].strip()) for m in found if m]


def verify(program: Program, log_level: int = 1) -> Verdict:
    return verdict_of(program, KERNEL, log_level)


CASES = [
    case
    for case in read_cases()
    if KERNEL in case.expected
    and case.vector.privileges == PRIVILEGED
    and not (case.expected[KERNEL].message or "").startswith(_FOLLOWS_US)
]


@on_request
def test_the_kernel_says_what_the_cases_expect(ask_6_18: Ask) -> None:
    differences = []
    for case in CASES:
        program = case.program()
        with contradictions() as found:
            verify(program)
        if found:
            continue
        expected = case.expected[KERNEL]
        theirs = ask_6_18(program, 1)
        if theirs.errno != expected.errno or (theirs.errno and not expected.fits(theirs.last)):
            differences.append((case.family, case.name, theirs.errno, theirs.last))
    assert not differences


@on_request
def test_the_kernel_says_what_we_say_along_the_edges(ask_6_18: Ask) -> None:
    differences: list[tuple[object, ...]] = []
    for seed in range(300):
        program = edge_program(seed)
        with contradictions() as found:
            ours = verify(program, log_level=2)
        if found or ours.last.startswith(_FOLLOWS_US):
            continue
        theirs = ask_6_18(program, 2)
        if (theirs.ok, theirs.last) != (ours.ok, ours.last):
            differences.append((seed, theirs.errno, theirs.last, ours.errno, ours.last))
        elif states(theirs.log) != states(ours.log):
            pairs = zip(states(theirs.log), states(ours.log), strict=False)
            differences.append((seed, next((p for p in pairs if p[0] != p[1]), "length")))
    assert not differences


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(c, id=f"{c.family}: {c.name}")
        for c in CASES[::6]
        # What requests can't say: patched insns, special fields of map values.
        if not c.vector.patches and not any(d.record is not None for d in c.program().maps)
    ],
)
def test_a_request_says_what_the_case_says(case: Case) -> None:
    expected = case.expected[KERNEL]
    load: Any = answer({**request_of(case.program()), "kernel": KERNEL})["load"]
    assert load["errno"] == expected.errno
    if expected.errno:
        assert expected.fits(closing_line(load["log"]))


def test_reading_a_log() -> None:
    log = (
        "0: R1=ctx() R10=fp0\n0: (b7) r0 = 0                        ; R0=0\n"
        "1: (15) if r1 == 0x0 goto pc+0        ; R1=ctx()\n\n"
        "from 1 to 2: R0=0 R1=ctx() R10=fp0\n2: (95) exit\n"
        "R0 !read_ok\nprocessed 3 insns (limit 1000000) max_states_per_insn 0\n"
    )
    assert closing_line(log) == "R0 !read_ok"
    assert closing_line("no newlineprocessed 3 insns") == "no newline"
    report = "\nVerification failed: Policy: x\n\nReason:\n  x\n\nAt:\n  insn 1\n"
    hint = "\nSuggestion:\n  x\n  y\n\n"
    assert closing_line(f"first\n{report}{hint}last\nprocessed 3 insns") == "last"
    assert closing_line(f"first\n{report}{hint}processed 3 insns") == "first"
    assert closing_line(f"first\n{report}\nprocessed 3 insns") == "first"
    assert states(log) == [
        ("0: (b7) r0 = 0", "R0=0"),
        ("1: (15) if r1 == 0x0 goto pc+0", "R1=ctx()"),
        ("from 1 to 2", "R0=0 R1=ctx() R10=fp0"),
    ]
