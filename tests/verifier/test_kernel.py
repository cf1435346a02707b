"""The running kernel's answers against ours: verdict, errno, last line, states at log level 2.

Loading some hundred programs into a live kernel is done on request only (`BPFVM_ASK_KERNEL=1`),
and never into a kernel that has complained before. Programs on whose dead branches the kernel's
own range tracking contradicts itself (it warns then, and is tainted) are not sent.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from case_kit import Case, read_cases, verdict_of
from edge_kit import edge_program

from bpfvm.insn import encode
from bpfvm.isa import CallKind, Kind, LdKind, lookup
from bpfvm.json_api import answer
from bpfvm.maps.base import MapFlags
from bpfvm.privileges import PRIVILEGED
from bpfvm.program import Program
from bpfvm.xlated import Verdict
from verifier import bounds

KERNEL = "6.18"
_FOLLOWS_US = "not supported yet: "
#: A 64-bit constant may be a map's address in the kernel; for us it is the map's number.
_WIDE = re.compile(r"(\(18\) r\d+ = )\S+")
_STATE = re.compile(r"^(\d+: \([0-9a-f]{2}\) .*?|from \d+ to \d+[^:]*)(?:\s*; |: )(R\d.*)$")

Ask = Callable[[dict[str, Any]], dict[str, Any]]
on_request = pytest.mark.skipif(
    os.environ.get("BPFVM_ASK_KERNEL") != "1",
    reason="the kernel is asked on request only: BPFVM_ASK_KERNEL=1",
)


def request_of(case_or_program: Case | Program, log_level: int = 1) -> dict[str, Any]:
    """Return the JSON request that loads a program with its maps."""
    patched: set[int] = set()
    program = case_or_program
    if isinstance(program, Case):
        patched = {slot for slot, _ in program.vector.patches}
        program = program.program()
    return {
        "prog_type": program.prog_type,
        "flags": program.flags | (16 if program.sleepable else 0),
        "license": program.license,
        "log_level": log_level,
        "insns": encode(program.insns).hex(),
        "fixups": list(_fixups(program, patched)),
        "maps": {
            defn.name: {
                "type": defn.map_type,
                "key_size": defn.key_size,
                "value_size": defn.value_size,
                "max_entries": defn.max_entries,
                "flags": defn.flags,
                "map_extra": hex(defn.map_extra),
                "mmap": bool(defn.flags & MapFlags.MMAPABLE),
            }
            for defn in program.maps
        },
    }


def _fixups(program: Program, patched: set[int]) -> Iterator[dict[str, Any]]:
    for slot, insn in enumerate(program.insns):
        row = lookup(insn)
        if row is None or patched & {slot, slot + 1}:
            continue
        if row.kind is Kind.CALL and row.op is CallKind.KFUNC:
            yield {"insn": slot, "kind": "kfunc", "name": program.kfuncs[insn.imm]}
        elif row.kind is Kind.LDIMM64 and row.op is LdKind.MAP_IDX:
            yield {"insn": slot, "kind": "map_fd", "name": program.maps[insn.imm].name}
        elif row.kind is Kind.LDIMM64 and row.op is LdKind.MAP_IDX_VALUE:
            name, off = program.maps[insn.imm].name, program.insns[slot + 1].imm
            yield {"insn": slot, "kind": "map_value", "name": name, "off": off}


def last_line(log: str) -> str:
    """Return the line before `processed ...`."""
    lines = re.sub(r"(?<!\n)(processed \d+ insns)", r"\n\1", log).splitlines()
    ends = [i for i, line in enumerate(lines) if line.startswith("processed ")]
    before = [line.rstrip() for line in lines[: ends[-1] if ends else None] if line.strip()]
    return before[-1] if before else ""


def states(log: str) -> list[tuple[str, str]]:
    """Return (insn, state) for each line of a level 2 log that shows what changed."""
    found = (_STATE.match(line) for line in log.splitlines())
    return [(_WIDE.sub(r"\1...", m[1].strip()), m[2].strip()) for m in found if m]


def verify(program: Program, log_level: int = 1) -> Verdict:
    return verdict_of(program, KERNEL, log_level)


CASES = [
    case
    for case in read_cases()
    if KERNEL in case.expected and not (case.expected[KERNEL].message or "").startswith(_FOLLOWS_US)
]


@pytest.fixture(scope="session")
def kernel(oracle: Ask) -> Ask:
    if not platform.release().startswith(KERNEL + "."):
        pytest.skip(f"the running kernel is {platform.release()}, not {KERNEL}")
    return oracle


@pytest.fixture
def contradictions(monkeypatch: pytest.MonkeyPatch) -> list[bounds.Scalar]:
    """The scalars that contradict themselves while our verifier works."""
    found: list[bounds.Scalar] = []
    reset = bounds.reset_if_broken

    def noted(s: bounds.Scalar) -> bounds.Scalar:
        if bounds.is_broken(s):
            found.append(s)
        return reset(s)

    monkeypatch.setattr(bounds, "reset_if_broken", noted)
    return found


@on_request
def test_the_kernel_says_what_the_cases_expect(
    kernel: Ask, contradictions: list[bounds.Scalar]
) -> None:
    differences = []
    for case in (c for c in CASES if c.vector.privileges is PRIVILEGED):
        contradictions.clear()
        bounds.settle.cache_clear()
        verify(case.program())
        if contradictions:
            continue
        expected = case.expected[KERNEL]
        load = kernel(request_of(case))["load"]
        last = last_line(load["log"])
        if load["errno"] != expected.errno or (expected.errno and not expected.fits(last)):
            differences.append((case.family, case.name, load["errno"], last))
    assert not differences


@on_request
def test_the_kernel_says_what_we_say_along_the_edges(
    kernel: Ask, contradictions: list[bounds.Scalar]
) -> None:
    differences: list[tuple[object, ...]] = []
    for seed in range(300):
        contradictions.clear()
        bounds.settle.cache_clear()
        program = edge_program(seed)
        ours = verify(program, log_level=2)
        if contradictions or ours.last.startswith(_FOLLOWS_US):
            continue
        load = kernel(request_of(program, log_level=2))["load"]
        last = last_line(load["log"]) if load["errno"] else ""
        if (load["errno"], last) != (ours.errno, ours.last):
            differences.append((seed, load["errno"], last, ours.errno, ours.last))
        elif states(load["log"]) != states(ours.log):
            pairs = zip(states(load["log"]), states(ours.log), strict=False)
            differences.append((seed, next((p for p in pairs if p[0] != p[1]), "length")))
    assert not differences


#: A request says of a map all but its special fields.
SAYABLE = [case for case in CASES if not any(defn.record for defn in case.program().maps)]


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{c.family}: {c.name}") for c in SAYABLE[::6]]
)
def test_a_request_says_what_the_case_says(case: Case) -> None:
    expected = case.expected[KERNEL]
    words = case.vector.text("privileges")
    users: dict[str, Any] = {} if words is None else {"caps": words.replace("none", "").split()}
    load: Any = answer({**request_of(case), "kernel": KERNEL, **users})["load"]
    assert load["errno"] == expected.errno
    if expected.errno:
        assert expected.fits(last_line(load["log"]))


def test_reading_a_log() -> None:
    log = (
        "0: R1=ctx() R10=fp0\n0: (b7) r0 = 0                        ; R0=0\n"
        "1: (15) if r1 == 0x0 goto pc+0        ; R1=ctx()\n\n"
        "from 1 to 2: R0=0 R1=ctx() R10=fp0\n2: (95) exit\n"
        "R0 !read_ok\nprocessed 3 insns (limit 1000000) max_states_per_insn 0\n"
    )
    assert last_line(log) == "R0 !read_ok"
    assert last_line("no newlineprocessed 3 insns") == "no newline"
    assert states(log) == [
        ("0: (b7) r0 = 0", "R0=0"),
        ("1: (15) if r1 == 0x0 goto pc+0", "R1=ctx()"),
        ("from 1 to 2", "R0=0 R1=ctx() R10=fp0"),
    ]
