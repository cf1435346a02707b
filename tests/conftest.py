"""Fixtures that all tests share: where things lie, and the running kernel as a referee."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import bpfvm
from bpfvm.kernel import KernelObject, refusal, running_rules
from bpfvm.program import ObjectFile, Program
from bpfvm.xlated import Verdict

if TYPE_CHECKING:
    from bpfvm.vm import Object, Prog

ROOT = Path(__file__).resolve().parent.parent
Answer = dict[str, Any]


@pytest.fixture(scope="session")
def root_dir() -> Path:
    """The project's own directory."""
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference material beside the project: specifications and conformance vectors."""
    shared = ROOT.parent / "shared"
    if not shared.is_dir():
        pytest.skip("no reference material: ../shared is not there")
    return shared


@pytest.fixture(scope="session")
def examples_dir() -> Path:
    return ROOT / "examples"


def _oracle_refusal(tool: Path) -> str | None:
    if not tool.is_file():
        return "no kernel oracle: ../shared/oracle is not there"
    if os.geteuid() != 0:
        return "the kernel oracle needs root"
    # Any taint, a mere warning too: a kernel that has complained is not loaded any further.
    if Path("/proc/sys/kernel/tainted").read_text().strip() != "0":
        return "the running kernel is tainted: it is not asked any more"
    probe = {"prog_type": "socket_filter", "insns": "b7000000000000009500000000000000"}
    return None if _ask(tool, probe).get("ok") else "the running kernel does not let us load BPF"


def _ask(tool: Path, request: Answer) -> Answer:
    done = subprocess.run(
        [tool, "--lines"], input=json.dumps(request), capture_output=True, text=True, timeout=120
    )
    answer: Answer = json.loads(done.stdout) if done.stdout else {"ok": False}
    return answer


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Answer], Answer]:
    """Ask the running kernel: a request of the JSON interface in, its answer out.

    For ordinary programs only. Each request is on disk before the kernel sees it.
    """
    tool = ROOT.parent / "shared" / "oracle" / "oracle"
    refusal = _oracle_refusal(tool)
    if refusal is not None:
        pytest.skip(refusal)
    last = tmp_path_factory.mktemp("oracle") / "last-request.json"

    def ask(request: Answer) -> Answer:
        with last.open("w") as file:
            json.dump(request, file)
            file.flush()
            os.fsync(file.fileno())
        return _ask(tool, request)

    return ask


@pytest.fixture
def ask_6_18(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Program, int], Verdict]:
    """Ask the running kernel, if it is one of 6.18, for its verdict at a log level."""
    why = refusal()
    if why is None and running_rules() != "6.18":
        why = "the running kernel is not 6.18"
    if why is not None:
        pytest.skip(why)
    monkeypatch.setenv("BPFVM_KERNEL_LAST", str(tmp_path / "last.json"))

    def load(program: Program, log_level: int) -> Verdict:
        with KernelObject(ObjectFile("test", {program.name: program}, program.maps)) as obj:
            return obj.load(program, log_level).verdict

    return load


@pytest.fixture
def assemble() -> Callable[[str], Object]:
    """Build an object from assembly text."""
    return bpfvm.assemble


@pytest.fixture
def assemble_one() -> Callable[[str], Prog]:
    """Build the only program of an assembly text."""

    def build(text: str) -> Prog:
        (prog,) = bpfvm.assemble(text).programs.values()
        return prog

    return build
