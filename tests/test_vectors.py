"""Our own vectors (tests/README.md): every file of tests/vectors, in every engine."""

from __future__ import annotations

from pathlib import Path

import pytest
from datafile import Vector, read_vector
from run_vectors import ENGINES, HELPER_IDS, machine_for, run_in_sandbox

from bpfvm import vm
from bpfvm.asm import assemble
from bpfvm.disasm import disassemble
from bpfvm.errors import AsmError, LoadError, RunFault
from bpfvm.flow import check_structure, find_subprogs
from bpfvm.insn import decode
from bpfvm.program import ObjectFile, Program

ROOT = Path(__file__).resolve().parent / "vectors"
VECTORS = [read_vector(path, ROOT) for path in sorted(ROOT.glob("*/*.data"))]


def object_of(vector: Vector) -> ObjectFile:
    """The vector's program, assembled or decoded; structurally checked, if it may run."""
    raw = vector.bytes("raw")
    if raw is not None:
        code = decode(raw, vector.name)
        program = Program("main", code, "socket_filter", find_subprogs(code))
        obj = ObjectFile(vector.name, {"main": program})
    else:
        obj = assemble(vector.sections["asm"], vector.name, helpers=HELPER_IDS)
    for program in obj.programs.values() if "verdict" not in vector.sections else ():
        check_structure(program.insns)
    return obj


def having(*sections: str) -> list[Vector]:
    return [v for v in VECTORS if any(s in v.sections for s in sections)]


def by_name(vector: object) -> str | None:
    return vector.name if isinstance(vector, Vector) else None


@pytest.mark.parametrize("vector", having("error"), ids=by_name)
def test_a_program_without_meaning(vector: Vector) -> None:
    with pytest.raises((AsmError, LoadError)) as caught:
        object_of(vector)
    assert (vector.text("error") or "") in str(caught.value)


@pytest.mark.parametrize("vector", [v for v in VECTORS if "error" not in v.sections], ids=by_name)
def test_its_text_survives_the_round_trip(vector: Vector) -> None:
    obj = object_of(vector)
    again = assemble(disassemble(obj, HELPER_IDS), helpers=HELPER_IDS)
    assert again.programs == obj.programs


@pytest.mark.parametrize(
    "vector", [v for v in having("result", "fault") if "verdict" not in v.sections], ids=by_name
)
@pytest.mark.parametrize("engine", ENGINES)
def test_in_the_sandbox(engine: str, vector: Vector, request: pytest.FixtureRequest) -> None:
    excuse = vector.text(f"no {engine}")
    if excuse is not None:
        request.applymarker(pytest.mark.xfail(reason=excuse, strict=True))
    obj = object_of(vector)
    (program,) = obj.programs.values()
    machine, mem = machine_for(obj), vector.bytes("mem") or b""
    fault = vector.text("fault")
    if fault is not None:
        with pytest.raises(RunFault) as caught:
            run_in_sandbox(engine, program, machine, mem)
        assert str(caught.value).startswith(fault)
        return
    outcome = run_in_sandbox(engine, program, machine, mem)
    assert f"{outcome.r0:#x}" == f"{int(vector.text('result') or '', 0):#x}"
    assert outcome.mem == vector.bytes("mem out") or "mem out" not in vector.sections
    for line in (vector.text("stderr") or "").splitlines():
        assert line in outcome.stderr


def prog_of(vector: Vector) -> vm.Prog:
    (prog,) = vm.Object(object_of(vector)).programs.values()
    return prog


@pytest.mark.parametrize("vector", having("verdict"), ids=by_name)
def test_the_verifiers_verdict(vector: Vector) -> None:
    verdict = prog_of(vector).verify(log_level=2)
    wanted, _, complaint = (vector.text("verdict") or "").partition(" ")
    assert wanted in ("accept", "reject")
    assert verdict.ok == (wanted == "accept"), verdict.last
    assert verdict.last == complaint
    for line in (vector.text("log") or "").splitlines():
        assert line in verdict.log


@pytest.mark.parametrize(
    "vector", [v for v in having("verdict") if "result" in v.sections], ids=by_name
)
@pytest.mark.parametrize("engine", ENGINES)
def test_verified(engine: str, vector: Vector, request: pytest.FixtureRequest) -> None:
    excuse = vector.text(f"no {engine}")
    if excuse is not None:
        request.applymarker(pytest.mark.xfail(reason=excuse, strict=True))
    result = prog_of(vector).run(engine=engine, ctx=vector.bytes("ctx"), data=vector.bytes("data"))
    assert f"{result.r0:#x}" == f"{int(vector.text('result') or '', 0):#x}"
    assert result.ctx == vector.bytes("ctx out") or "ctx out" not in vector.sections
    assert result.data == vector.bytes("data out") or "data out" not in vector.sections
    for line in (vector.text("stderr") or "").splitlines():
        assert line in result.stderr.decode()


def test_every_vector_asks_something() -> None:
    for vector in VECTORS:
        assert vector.sections.keys() & {"result", "fault", "error", "verdict"}, vector.name


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- asm\nexit\n", "the first line must tell"),
        ("# x\n-- wat\n", "x:2: unknown section 'wat'"),
        ("# x\n-- asm\nexit\n-- asm\n", "x:4: section asm is given twice"),
        ("# x\nexit\n", "x:2: text before the first section"),
        ("# x\n-- result\n1\n", "no program"),
    ],
)
def test_a_wrong_vector_is_no_vector(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "x.data").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_vector(tmp_path / "x.data", tmp_path)
