"""The examples: each script runs, each object is what its source compiles to and holds no path."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import bpfvm
from bpfvm.compile import compile_c, find_compiler
from bpfvm.errors import BpfError
from bpfvm.loader import load_elf, load_path

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


def test_every_object_loads_whole() -> None:
    for source in SOURCES:
        obj = load_path(source.with_suffix(".o"))
        assert obj.programs
        assert not obj.broken
