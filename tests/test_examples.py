"""The examples: each script runs, each object is what its source compiles to and holds no path."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bpfvm
from bpfvm import isa
from bpfvm.bits import u32
from bpfvm.compile import compile_c, find_compiler
from bpfvm.errors import BpfError
from bpfvm.insn import encode
from bpfvm.isa import CallKind, Kind, LdKind
from bpfvm.loader import load_elf, load_path
from bpfvm.maps.base import MapType
from bpfvm.program import Program

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SOURCES = sorted(EXAMPLES.glob("*.bpf.c"))
SCRIPTS = sorted(p for p in EXAMPLES.glob("*.py") if p.name != "build.py")


def stem(path: Path) -> str:
    return path.name.split(".")[0]


def test_each_example_is_whole() -> None:
    names = ["arena_heap", "arena_kv", "arena_list", "arena_nonsleepable", "rejected", "repaired"]
    assert [stem(p) for p in SOURCES] == names
    assert [stem(p) for p in SCRIPTS] == names
    assert sorted(stem(p) for p in EXAMPLES.glob("*.bpf.o")) == names


@pytest.mark.parametrize("script", SCRIPTS, ids=stem)
def test_the_script_runs_and_tells_its_story(script: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert 2 <= len(done.stdout.splitlines()) <= 12


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_the_object_holds_no_path(source: Path) -> None:
    data = source.with_suffix(".o").read_bytes()
    assert f"./{source.name}".encode() in data
    assert not re.search(rb"/[\w.+-]+/", data)


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_the_object_is_what_the_source_compiles_to(source: Path) -> None:
    """Only where the same compiler is at hand; others choose other insns."""
    committed = source.with_suffix(".o").read_bytes()
    try:
        compiler = find_compiler()
    except BpfError as err:
        pytest.skip(str(err))
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=True).stdout
    if version.splitlines()[0] not in committed:
        pytest.skip("the committed objects come from another compiler")
    assert load_elf(compile_c(source), "x") == load_elf(committed, "x")


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_hello_counts_and_greets(engine: str) -> None:
    prog = bpfvm.open(EXAMPLES / "hello.s").programs["hello"]
    for count in (1, 2, 3):
        result = prog.run(engine=engine)
        assert result.r0 == count
        assert result.trace == b"Hello %d\n" % count


def request_of(program: Program) -> dict[str, object]:
    """Return *program* as the JSON interface's request to load it."""
    fixups: list[dict[str, object]] = []
    slot = 0
    while slot < len(program.insns):
        insn, row = program.insns[slot], isa.lookup(program.insns[slot])
        assert row is not None
        if row.op in (LdKind.MAP_IDX, LdKind.MAP_IDX_VALUE):
            kind = "map_fd" if row.op is LdKind.MAP_IDX else "map_value"
            off = {} if kind == "map_fd" else {"off": u32(program.insns[slot + 1].imm)}
            fixups.append({"insn": slot, "kind": kind, "name": program.maps[insn.imm].name, **off})
        elif row.op is CallKind.KFUNC:
            fixups.append({"insn": slot, "kind": "kfunc", "name": program.kfuncs[insn.imm]})
        slot += 2 if row.kind is Kind.LDIMM64 else 1
    return {
        "prog_type": program.prog_type,
        "flags": ["sleepable"] if program.sleepable else [],
        "license": program.license,
        "log_level": 1,
        "insns": encode(program.insns).hex(),
        "fixups": fixups,
        "maps": {
            m.name: {
                "type": int(m.map_type),
                "key_size": m.key_size,
                "value_size": m.value_size,
                "max_entries": m.max_entries,
                "flags": m.flags,
                "map_extra": hex(m.map_extra),
                "mmap": m.map_type == MapType.ARENA,
            }
            for m in program.maps
        },
    }


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_the_running_kernel_says_the_same(
    source: Path, oracle: Callable[[dict[str, object]], dict[str, dict[str, object]]]
) -> None:
    if not platform.release().startswith("6.18"):
        pytest.skip("the rules for Linux 6.18 can only be compared there")
    for name, prog in bpfvm.open(source.with_suffix(".o")).programs.items():
        answer = oracle(request_of(prog.program))["load"]
        verdict = prog.verify(kernel="6.18")
        assert (name, answer["ok"], answer.get("last") or "") == (name, verdict.ok, verdict.last)


def test_every_object_loads_whole() -> None:
    for source in SOURCES:
        obj = load_path(source.with_suffix(".o"))
        assert obj.programs
        assert not obj.broken
