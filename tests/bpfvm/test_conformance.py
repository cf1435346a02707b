"""bpf_conformance's public vectors, in both engines; the format is in its module `datafile`."""

from __future__ import annotations

from errno import EACCES, EINVAL
from pathlib import Path

import pytest
from datafile import read_upstream, upstream_program
from run_vectors import ENGINES, HELPER_IDS, machine_for, run_in_sandbox

from bpfvm import vm
from bpfvm.asm import assemble
from bpfvm.disasm import disassemble
from bpfvm.errors import AsmError, LoadError
from bpfvm.flow import check_structure
from bpfvm.insn import decode, encode

SUITE = Path(__file__).resolve().parents[2].parent / "shared" / "conformance"
ABSENT = pytest.mark.skip(reason="no conformance vectors: ../shared/conformance is not there")


def vectors(folder: str, pattern: str = "*.data") -> list[object]:
    """The files of one folder as parameters, or one that is skipped with the reason."""
    found = sorted((SUITE / folder).glob(pattern))
    if not found:
        return [pytest.param(SUITE, id=folder, marks=ABSENT)]
    return [pytest.param(path, id=path.stem) for path in found]


#: Vectors that an engine does not pass, each with the reason: (engine, name) -> reason. A vector
#: that is listed and passes fails the test.
EXPECTED_FAILURES: dict[tuple[str, str], str] = {}

#: Vectors in negative/ whose text must not assemble, and what the complaint says.
COMPLAINTS = {
    "invalid_imm32_hex_range": "out of the 32-bit range",
    "invalid_lock": "missing operand",
    "invalid_lock2": "missing operand",
    "invalid_offset": "expected a memory operand",
    "invalid_offset_range": "out of the 16-bit range",
    "invalid_operand_count": "missing operand",
}


@pytest.mark.parametrize("path", vectors("tests"))
@pytest.mark.parametrize("engine", ENGINES)
def test_vector(engine: str, path: Path, request: pytest.FixtureRequest) -> None:
    reason = EXPECTED_FAILURES.get((engine, path.stem))
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    vector = read_upstream(path)
    obj = upstream_program(path)
    outcome = run_in_sandbox(engine, obj.programs["main"], machine_for(obj), vector.mem)
    assert outcome.r0 == vector.result


@pytest.mark.parametrize("path", vectors("tests"))
def test_text_survives_the_round_trip(path: Path) -> None:
    program = upstream_program(path).programs["main"]
    check_structure(program.insns)
    again = assemble(disassemble(program, HELPER_IDS), helpers=HELPER_IDS).programs["main"]
    assert again == program


@pytest.mark.parametrize("path", [p for p in vectors("tests") if "lddw.data" in str(p)])
def test_raw_words_and_text_agree(path: Path) -> None:
    text = assemble(read_upstream(path).asm).programs["main"].insns
    assert encode(text) == encode(upstream_program(path).programs["main"].insns)


@pytest.mark.parametrize("path", vectors("negative", "[!u]*.data"))
def test_wrong_text_is_refused(path: Path) -> None:
    vector = read_upstream(path)
    if vector.unknown:
        assert vector.unknown == "-- Unknown directive"  # the file is void, as it says
        return
    if vector.error == "Invalid":
        # The text is fine: upstream expects that its runner tells a result from an error.
        assert len(assemble(vector.asm).programs["main"].insns) == 2
        return
    with pytest.raises(AsmError) as caught:
        assemble(vector.asm, path.name)
    # Of a vector that is not listed here only that it is refused is known.
    assert COMPLAINTS.get(path.stem, "") in str(caught.value)


@pytest.mark.parametrize("path", vectors("negative", "unused-*.data"))
def test_a_nonzero_unused_field_is_refused(path: Path) -> None:
    code = bytes(int(byte, 16) for byte in read_upstream(path).raw)
    with pytest.raises(LoadError, match=r"reserved field|invalid fields"):
        check_structure(decode(code))
    verdict = vm.from_bytes(code).programs["main"].verify()
    assert not verdict.ok
    assert verdict.errno in (EINVAL, EACCES)


def test_the_suite_is_whole() -> None:
    if not SUITE.is_dir():
        pytest.skip("no conformance vectors: ../shared/conformance is not there")
    assert len(list((SUITE / "tests").glob("*.data"))) >= 215
    assert len(list((SUITE / "negative").glob("*.data"))) >= 42
    listed = {name for _, name in EXPECTED_FAILURES} | COMPLAINTS.keys()
    assert all(list(SUITE.glob(f"*/{name}.data")) for name in listed)
