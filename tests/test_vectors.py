"""Our own vectors (bpfvm/VECTORS.md): every file of tests/vectors, judged as `bpfvm test` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bpfvm import vm
from bpfvm.asm import assemble
from bpfvm.disasm import disassemble
from bpfvm.errors import LoadError
from bpfvm.judge import Options, Outcome, judge_vector, program_of
from bpfvm.vectors import Vector, Wanted, has_sections, read_vectors

ROOT = Path(__file__).resolve().parent / "vectors"
FILES = sorted(ROOT.glob("*/*.data"))
VECTORS = [v for path in FILES for v in read_vectors(path.read_text(), str(path.relative_to(ROOT)))]


def _questions() -> Iterator[object]:
    for vector in VECTORS:
        for kernel in vector.kernels:
            yield pytest.param(vector, kernel, id=f"{vector.origin}: {vector.name} [{kernel}]")


def by_name(vector: object) -> str | None:
    return f"{vector.origin}: {vector.name}" if isinstance(vector, Vector) else None


@pytest.mark.parametrize(("vector", "kernel"), list(_questions()))
def test_vector(vector: Vector, kernel: str) -> None:
    row = judge_vector(vector, vector.origin, Options(kernel))
    assert row.outcome is Outcome.PASS, row.why


@pytest.mark.parametrize("vector", [v for v in VECTORS if "error" not in v.sections], ids=by_name)
def test_its_text_survives_the_round_trip(vector: Vector) -> None:
    obj = program_of(vector)
    again = assemble(disassemble(obj, vm.HELPER_IDS), helpers=vm.HELPER_IDS)
    assert again.programs == obj.programs


def test_every_vector_tells_what_it_is_for() -> None:
    assert len(VECTORS) > 80
    for vector in VECTORS:
        assert vector.asks, vector.name
        assert vector.about, vector.name


# -- the format ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- wat\n", "x.data:1: unknown section 'wat'"),
        ("-- asm\nexit\n-- asm\n", "x.data:3: section asm is given twice"),
        ("exit\n-- raw\n95\n", "x.data:2: section raw: there is a program already"),
        ("-- result\n1\n", "x.data:1: no program"),
        ("exit\n-- verdict: accept\nand more\n", "x.data:3: text behind a section of one line"),
        ("exit\n-- verdict 5.4: accept\n", "x.data:2: unknown kernel 5.4"),
        ("exit\n-- ctx 6.18: 00\n", "x.data:2: section ctx can't be of one kernel"),
        ("exit\n== a\nexit\n", "x.data:2: a file with titles"),
        ("== a\nexit\n== a\nexit\n", "x.data:3: title 'a' is empty or given twice"),
        ("== a\nexit\n== b\n=> accept\n", "x.data:3: no program"),
        ("exit\n=>\n", "x.data:2: expected => accept"),
        ("exit\n=> EACCES\n", "x.data:2: expected => accept"),
        ("exit\n=> accept it\n", "x.data:2: expected => accept"),
    ],
)
def test_a_wrong_file_is_no_vector(text: str, complaint: str) -> None:
    with pytest.raises(LoadError) as caught:
        read_vectors(text, "x.data")
    assert str(caught.value).startswith(complaint)


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ("-- verdict: maybe", "section verdict: 'maybe': expected accept or reject [ERRNO]"),
        ("-- verdict: reject EWHAT", "section verdict: 'reject EWHAT'"),
        ("-- verdict: accept EINVAL", "section verdict: 'accept EINVAL'"),
        ("-- engine: gpu\n-- retval: 0", "section engine: 'gpu': expected interp or jit"),
        ("-- kernel: 5.4\n-- retval: 0", "section kernel: '5.4': expected 6.18 or 7.3"),
        ("-- retval: many", "section retval: not a number: 'many'"),
        ("-- ctx: xy\n-- retval: 0", "section ctx: not hex bytes"),
        ("-- patch: one\n=> accept", "section patch: not SLOT FIELD=N"),
        ("-- patch: 9 imm=1\n=> accept", "x.data:2: section patch: no slot 9: there are 2"),
        ("=> accept\n-- patch\n-1 imm=1", "x.data:3: section patch: not SLOT FIELD=N"),
        (
            "-- patch: 0 imm=0x80000000\n=> accept",
            "imm=2147483648: expected -2147483648..2147483647",
        ),
        ("-- patch: 0 dst=16\n=> accept", "section patch: dst=16: expected 0..15"),
        ("-- patch: 0 code=1\n=> accept", "section patch: 'code': expected opcode or dst"),
        ("=> accept\n-- privileges: wizard", "x.data:3: section privileges: unknown capability"),
        ("=> accept\n-- privileges:", "x.data:3: section privileges: empty"),
        ("-- result: 1\n-- mem: zz", "x.data:3: section mem: not hex bytes"),
        ("-- retval: 1\n-- mem: 00", "x.data:3: section mem: not for a verified run"),
        ("-- result: 1\n-- data: 00", "x.data:3: section data: not for the sandbox"),
        ("-- retval: 1\n-- mem out: zz", "x.data:3: section mem out: not hex bytes"),
        ("-- retval: 4294967296", "section retval: '4294967296': expected -2147483648..4294967295"),
        ("-- result 6.18: 1e3\n-- result: 1", "x.data:2: section result: not a number: '1e3'"),
        ("-- retval: 0x" + "f" * 99, f"section retval: '0x{'f' * 55}...': expected"),
        ("-- verdict 6.18: no\n=> accept", "x.data:2: section verdict: 'no'"),
        ("-- log:\n=> accept", "x.data:2: section log: empty"),
    ],
)
def test_a_wrong_section_fails_its_vector(sections: str, complaint: str) -> None:
    (vector,) = read_vectors(f"r0 = 0; exit\n{sections}\n", "x.data")
    row = judge_vector(vector, "x.data", Options())
    assert row.outcome is Outcome.FAIL
    assert complaint in row.why


def test_many_vectors_in_one_file() -> None:
    text = """# Of exit values
== missing
exit
=> EACCES R0 !read_ok
== there, twice
# the second wins
r0 = 1; r0 = 2; exit
-- retval: 2
"""
    first, second = read_vectors(text, "dir/x.data")
    assert (first.name, second.name) == ("missing", "there, twice")
    assert first.wanted("7.3") == Wanted(False, 13, "R0 !read_ok")
    assert second.wanted("7.3") == Wanted(True)
    assert second.about == "the second wins"
    rows = [judge_vector(v, "x.data", Options()) for v in (first, second)]
    assert [r.outcome for r in rows] == [Outcome.PASS, Outcome.PASS]
    assert [(r.verdict, r.errno, r.last, r.retval) for r in rows] == [
        ("reject", 13, "R0 !read_ok", None),
        ("accept", 0, "", 2),
    ]


def test_what_is_of_one_kernel_comes_before_what_is_of_all() -> None:
    text = "exit\n=> EACCES for all\n=> 6.18 EINVAL for one\n-- log 7.3: x\n"
    (vector,) = read_vectors(text, "x.s")
    assert vector.wanted("7.3") == Wanted(False, 13, "for all")
    assert vector.wanted("6.18") == Wanted(False, 22, "for one")
    assert (vector.lines("log", "6.18"), vector.lines("log", "7.3")) == ((), ("x",))


def test_a_closing_line_may_be_cut() -> None:
    wanted = Wanted(False, 13, "misaligned ...")
    assert wanted.fits("misaligned stack access")
    assert not wanted.fits("aligned")


def test_text_is_told_from_a_vector() -> None:
    assert has_sections("exit\n-- verdict: accept\n")
    assert has_sections("exit\n--verdict: accept\n")
    assert not has_sections("r0 = 0\nexit ; -- verdict\n")


# -- judging ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "outcome", "why"),
    [
        ("r0 = 0; exit", Outcome.SKIP, "nothing is expected of it"),
        ("r0 = 0; exit\n-- kernel: 6.18\n=> accept", Outcome.SKIP, "for kernel 6.18"),
        ("r0 = 0; exit\n=> 6.18 accept", Outcome.SKIP, "nothing is expected of kernel 7.3"),
        ("call 153; exit\n=> accept", Outcome.SKIP, "not supported yet: "),
        ("exit\n=> accept", Outcome.FAIL, "expected accept, got reject EACCES: R0 !read_ok"),
        ("r0 = 0; exit\n=> EINVAL x", Outcome.FAIL, "expected reject EINVAL, got accept"),
        ("exit\n=> EINVAL R0 !read_ok", Outcome.FAIL, "expected reject EINVAL, got reject EACCES"),
        ("exit\n=> EACCES R1", Outcome.FAIL, "expected the message 'R1', got 'R0 !read_ok'"),
        ("exit\n-- message: R1", Outcome.FAIL, "expected the message 'R1'"),
        ("r0 = 0; exit\n-- message: R1", Outcome.FAIL, "expected reject, got accept"),
        ("exit\n=> EACCES R0...\n-- log: wat", Outcome.FAIL, "expected in the log: 'wat'"),
        ("r0 = 1; exit\n-- retval: 2", Outcome.FAIL, "interp: retval 1, expected 2"),
        ("r0 = 1; exit\n-- result: 2", Outcome.FAIL, "interp: r0 = 0x1, expected 0x2"),
        ("r0 = 1; exit\n-- result: 2\n-- engine: jit", Outcome.FAIL, "jit: r0 = 0x1"),
        ("r0 = r11; exit\n-- result: 2", Outcome.FAIL, "insn 0: "),
        ("r0 = 1; exit\n-- fault: pc 1", Outcome.FAIL, "interp: expected it to end early: pc 1"),
        ("r0 = *(u8 *)(r1 + 0); exit\n-- result: 0", Outcome.FAIL, "interp: ended early: pc 0"),
        ("r0 = 1; exit\n-- error: x", Outcome.FAIL, "expected the error 'x'"),
        ("r0 = 1; exit\n-- retval: 1\n-- stderr: x", Outcome.FAIL, "expected on stderr: 'x'"),
        (".prog a\nexit\n.prog b\nexit\n=> accept", Outcome.FAIL, "2 programs, expected one"),
        (
            "-- raw: 95 00\n=> accept",
            Outcome.FAIL,
            "x.data:1: section raw: 2 bytes are not a whole",
        ),
        ("r0 = 0; 1000100x r0 = 1; exit\n=> accept", Outcome.FAIL, "x.data:1: more than 1000100"),
        # The place in the file, not in the text that the short form stands for.
        (
            "lookup array\n\nr0 = 0; r0 = = 1; exit\n=> accept",
            Outcome.FAIL,
            "x.data:3:14: unexpected",
        ),
        ("r0 = 0; lookup no; exit\n=> accept", Outcome.FAIL, "x.data:1:9: unknown map no"),
        ("# x\nfind array; 2x r0 = = 1\n=> accept", Outcome.FAIL, "x.data:2:13: unexpected"),
        ("-- prog\n\nr0 = = 0; exit\n=> accept", Outcome.FAIL, "x.data:3:6: unexpected"),
        ("-- asm\n\nr0 = = 0\nexit\n-- verdict: accept", Outcome.FAIL, "x.data:3:6: unexpected"),
    ],
)
def test_how_a_vector_ends(text: str, outcome: Outcome, why: str) -> None:
    (vector,) = read_vectors(text + "\n", "x.data")
    row = judge_vector(vector, "x.data", Options("7.3"))
    assert row.outcome is outcome
    assert why in row.why


def test_whom_a_vector_is_verified_for() -> None:
    text = "r0 = r10; exit\n=> EACCES R0 leaks addr as return value\n-- privileges: "
    for privileges, outcome in (("none", "pass"), ("CAP_BPF", "pass"), ("CAP_PERFMON", "fail")):
        (vector,) = read_vectors(text + privileges, "x.data")
        assert judge_vector(vector, "x.data", Options()).outcome.value == outcome
    (vector,) = read_vectors(text + "CAP_KILL", "x.data")
    assert "unknown capability 'CAP_KILL'" in judge_vector(vector, "x.data", Options()).why


def test_nothing_runs_where_nothing_shall() -> None:
    (vector,) = read_vectors("r0 = 1; exit\n-- retval: 2\n", "x.data")
    row = judge_vector(vector, "x.data", Options(run=False))
    assert (row.outcome, row.why, row.retval) == (Outcome.PASS, "not run", None)
    row = judge_vector(vector, "x.data", Options(engines=("jit",)))
    assert row.why == "jit: retval 1, expected 2"
