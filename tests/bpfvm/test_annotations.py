"""The kernel selftests' annotations: read, matched against logs, and judged on a whole object."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfvm.annotations import ANY_VALUE, Annotations, Expectation, read_annotations
from bpfvm.errors import LoadError
from bpfvm.judge import Options, Outcome, Row
from bpfvm.judge_object import tests_in as programs_in
from bpfvm.patterns import Pattern, first_missing, line_patterns
from bpfvm.privileges import Capability, Privileges
from bpfvm.wordings import CHANGES, WORDINGS, What, changes_of, wordings_of

OBJECT = Path(__file__).resolve().parents[1] / "annotated" / "annotated.bpf.o"


def read(*tags: str) -> Annotations:
    found = read_annotations([f"comment:{tag}" for tag in tags])
    assert found is not None
    return found


# -- reading ---------------------------------------------------------------------------------------


def test_nothing_is_said() -> None:
    assert read_annotations(()) is None
    assert read_annotations(("exception_callback:f", "contains:node:x")) is None
    assert read("test_description=x").root is None
    auxiliary = read("test_auxiliary")
    assert auxiliary.auxiliary


def test_both_spellings() -> None:
    old = read("test_expect_failure", "test_expect_msg=0=a", "test_expect_msg=1=b=c")
    new = read("2:test_expect_msg=b=c", "1:test_expect_msg=a", "0:test_expect_failure")
    assert old == new
    assert old.root == Expectation(False, (Pattern("a"), Pattern("b=c")))
    assert old.unprivileged is None


def test_the_unprivileged_inherit_what_they_are_not_told() -> None:
    said = read(
        "test_expect_failure",
        "test_expect_msg=0=root",
        "test_retval=3",
        "test_expect_success_unpriv",
        "test_expect_stderr=1=oops",
    )
    assert said.unprivileged == Expectation(
        True, (Pattern("root"),), stderr=(Pattern("oops"),), retval=3
    )
    own = read("test_expect_success", "test_expect_msg_unpriv=0=own", "test_expect_msg=1=root")
    assert own.unprivileged == Expectation(True, (Pattern("own"),))
    alone = read("test_expect_failure_unpriv")
    assert alone.root is None
    assert alone.unprivileged == Expectation(False)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("-7", -7),
        ("0xffffffff", -1),
        ("INT_MIN", -(1 << 31)),
        ("_INT_MIN", -(1 << 31)),
        ("TEST_DATA_LEN", 64),
        ("POINTER_VALUE", ANY_VALUE),
    ],
)
def test_retvals(text: str, value: int) -> None:
    said = read(f"test_retval={text}")
    assert said.root is not None
    assert (said.root.success, said.root.retval) == (True, value)


def test_flags() -> None:
    said = read(
        "test_expect_success",
        "test_prog_flags=BPF_F_STRICT_ALIGNMENT",
        "test_prog_flags=!BPF_F_TEST_RND_HI32",
        "test_prog_flags=8",
    )
    assert (said.flags, said.cleared) == (9, 4)


def test_the_rest() -> None:
    said = read(
        "test_description=a b",
        "test_log_level=2",
        "test_arch=X86_64",
        "test_caps_unpriv=CAP_BPF|38",
        "load_mode=jited",
        "test_linear_size=99",
        "test_btf_path=x.o",
        "test_expect_failure_unpriv",
    )
    assert (said.description, said.log_level, said.is_for_us) == ("a b", 2, True)
    assert (said.load_mode, said.linear_size, said.btf_path) == ("jited", 99, "x.o")
    assert said.privileges == Privileges.of((Capability.BPF, Capability.PERFMON))
    assert not read("test_retval=0", "test_arch=ARM64", "test_arch=RISCV64").is_for_us
    assert not read("2:test_retval=0", "1:test_arch=s390x").is_for_us


def test_machine_code_is_that_of_the_architecture_named_last() -> None:
    said = read("test_arch=ARM64", "test_jited=0=a", "test_arch=X86_64", "test_jited=1=b")
    assert said.root is not None
    assert said.root.jited == (Pattern("b"),)


@pytest.mark.parametrize(
    ("tag", "complaint"),
    [
        ("test_wat=1", "unknown annotation 'test_wat'"),
        ("test_retval=many", "annotation retval: not a number: 'many'"),
        ("test_prog_flags=BPF_F_WAT", "annotation flag: not a number"),
        ("test_caps_unpriv=CAP_KILL", "annotation caps_unpriv: unknown capability"),
        ("test_retval=99999999999", "annotation retval: '99999999999': expected -2147483648..429"),
        ("test_retval=" + "9" * 5000, "annotation retval: not a number: '9999"),
        ("test_prog_flags=0x100000000", "annotation flag: '0x100000000': expected"),
        ("test_expect_msg=0=a{{(}}", "annotation test_expect_msg: no regular expression"),
        ("test_expect_stderr=0={{*}}", "annotation test_expect_stderr: no regular expression"),
    ],
)
def test_what_is_not_understood_is_told(tag: str, complaint: str) -> None:
    with pytest.raises(LoadError, match=complaint):
        read("test_expect_success", tag)


# -- patterns --------------------------------------------------------------------------------------

LOG = "0: (b7) r0 = 1\n1: (95) exit\nR0 is 0x10, (not) 5\n"


@pytest.mark.parametrize(
    ("patterns", "missing"),
    [
        (("r0 = 1", "exit"), None),
        (("exit", "r0 = 1"), "missing: 'r0 = 1'"),
        (("r0", "r0"), "missing: 'r0'"),
        (("R{{[0-9]+}} is 0x{{[[:xdigit:]]+}}, (not) {{4|5}}",), None),
        (("(not",), None),
        (("R{{[a-z]}}",), "missing: 'R{{[a-z]}}'"),
        (("r0{{.*}}exit",), "missing: 'r0{{.*}}exit'"),
        (("r0{{[^z]*}}1:",), "missing: 'r0{{[^z]*}}1:'"),
        (("{{^}}1: {{.*}}exit{{$}}",), None),
        (("r0{{[^(]*}}xit",), "missing: 'r0{{[^(]*}}xit'"),
    ],
)
def test_patterns_are_found_in_their_order(patterns: tuple[str, ...], missing: str | None) -> None:
    assert first_missing(LOG, [Pattern(p) for p in patterns]) == missing


@pytest.mark.parametrize(
    ("first", "absent", "last", "missing"),
    [
        ("r0", "exit", "R0", "unwanted: 'exit'"),
        ("exit", "r0", "R0", None),
        ("r0", "not", "R0", None),
        ("r0", "not", None, "unwanted: 'not'"),
        (None, "exit", "R0", "unwanted: 'exit'"),
        (None, "exit", "r0", None),
    ],
)
def test_absent_patterns_are_not_between_their_neighbours(
    first: str | None, absent: str, last: str | None, missing: str | None
) -> None:
    patterns = [
        *([Pattern(first)] if first else []),
        Pattern(absent, absent=True),
        *([Pattern(last)] if last else []),
    ]
    assert first_missing(LOG, patterns) == missing


def test_lines_follow_one_another_but_for_dots() -> None:
    assert first_missing(LOG, line_patterns(["r0", "exit", "R0"])) is None
    assert first_missing(LOG, line_patterns(["r0", "R0"])) == "not in the next line: 'R0'"
    assert first_missing(LOG, line_patterns(["r0", "...", "R0"])) is None
    assert first_missing(LOG, line_patterns(["b7", "r0"])) == "not in the next line: 'r0'"


# -- wordings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "kernel", "new"),
    [
        ("R0_w=6 fp-8_rw=P1", "6.18", "R0=6 fp-8=P1"),
        ("arg#0 expected pointer to ctx", "7.3", "R1 expected pointer to ctx"),
        (
            "arg#2 arg#3 memory, len pair leads to",
            "7.3",
            "R3 and R4 memory, len pair leads to",
        ),
        ("an initialized iter_num as arg #0", "7.3", "an initialized iter_num as R1"),
        ("NULL pointer passed to trusted arg0", "7.3", "NULL pointer passed to trusted R1"),
        (
            "misaligned stack access off 0+-8+2 size 8",
            "7.3",
            "misaligned stack access off -8+2 size 8",
        ),
        (
            "misaligned packet access off 2+0+15+-4 size 4",
            "7.3",
            "misaligned packet access off 2+15+-4 size 4",
        ),
        (
            "R1 offset is outside of the packet",
            "7.3",
            "R1 {{min|max}} value is outside of the allowed memory range",
        ),
        (
            "R2 must be referenced when passed to release function",
            "7.3",
            r"release helper {{\S+}} expects referenced PTR_TO_BTF_ID passed to R2",
        ),
    ],
)
def test_reworded(old: str, kernel: str, new: str) -> None:
    assert new in wordings_of(old, kernel)
    assert wordings_of(old, kernel)[0] == old


def test_what_is_new_in_73_is_not_in_618() -> None:
    assert wordings_of("arg#0 expected", "6.18") == ("arg#0 expected",)


def test_what_is_written_for_a_kernel_has_its_words() -> None:
    assert wordings_of("arg#0 expected", "7.3", "6.18") == ("arg#0 expected", "R1 expected")
    assert wordings_of("arg#0 expected", "7.3", "7.3") == ("arg#0 expected",)
    key = ("verifier_mtu", "tc_uninit_mtu")
    assert changes_of(*key, "6.18")
    assert not changes_of(*key, "6.18", "6.18")


def test_every_wording_is_a_pattern() -> None:
    for row in WORDINGS:
        for text in wordings_of(row.old, "7.3"):
            assert isinstance(text, str)
    for text in ("R1 offset is outside of the packet", "kernel func f is sleepable within x"):
        Pattern(text, others=wordings_of(text, "7.3")[1:]).compiled()


def test_changes_are_listed_once_and_told() -> None:
    keys = [(c.stem, c.program, c.what) for c in CHANGES]
    assert len(keys) == len(set(keys))
    assert all(c.why for c in CHANGES)
    known = CHANGES[0]
    assert changes_of(known.stem, known.program, "7.3")[known.what] is known
    assert changes_of(known.stem, "another", "7.3").get(What.LOG) is None


# -- a whole object --------------------------------------------------------------------------------


def judged(kernel: str | None = None, *, run: bool = True) -> dict[str, Row]:
    options = Options(kernel, run=run)
    return {name: judge(options) for name, judge in programs_in(str(OBJECT))}


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    return judged()


def test_what_is_right(rows: dict[str, Row]) -> None:
    passed = {name: row for name, row in rows.items() if row.outcome is Outcome.PASS}
    assert set(passed) == {
        *("accepted", "rejected", "rejected @unpriv", "in_order", "returns_a_pointer"),
        *("returns_a_pointer @unpriv", "unprivileged_only @unpriv", "strict", "with_a_listing"),
    }
    assert (rows["accepted"].verdict, rows["accepted"].retval) == ("accept", 7)
    assert rows["accepted"].expected == {
        "verdict": "accept",
        "messages": ["Live regs", "; R0={{[67]}}"],
        "retval": 7,
    }
    assert rows["returns_a_pointer"].expected["retval"] == "any"
    assert rows["returns_a_pointer @unpriv"].errno == 13
    assert rows["rejected"].section == "?socket"
    assert rows["strict"].why.startswith("reworded since: misaligned")
    assert rows["with_a_listing"].why == "xlated not compared: ours differ by design"


def test_what_is_wrong(rows: dict[str, Row]) -> None:
    failed = {name: row.why for name, row in rows.items() if row.outcome is Outcome.FAIL}
    assert failed == {
        "wrong_retval": "interp: retval 7, expected 8",
        "wrong_verdict": "expected reject, got accept",
        "wrong_order": "log: missing: 'R0'",
        "unknown_tag": "unknown annotation 'test_something'",
    }


def test_what_is_passed_over(rows: dict[str, Row]) -> None:
    skipped = {name: row.why for name, row in rows.items() if row.outcome is Outcome.SKIP}
    assert skipped == {
        "unannotated": "nothing is expected of it",
        "auxiliary": "auxiliary: it is loaded with other programs",
        "of_another_machine": "for ARM64",
        "without_jit": "for a kernel without JIT",
        "with_other_btf": "not supported yet: BTF of x.o",
        "of_no_type": "section 'nowhere/at_all': no program type that we support has this name",
        "of_no_map_type": (
            "not supported yet: map strange: map type 250 (unknown) is not supported"
        ),
    }


def test_rules_of_an_older_kernel_need_no_new_words() -> None:
    row = judged("6.18")["strict"]
    assert (row.outcome, row.why) == (Outcome.PASS, "")


def test_nothing_is_run_where_nothing_shall() -> None:
    row = judged(run=False)["wrong_retval"]
    assert (row.outcome, row.retval, row.why) == (Outcome.PASS, None, "not run")


def test_programs_are_in_the_order_of_their_sections(rows: dict[str, Row]) -> None:
    names = list(rows)
    assert names.index("accepted") < names.index("in_order") < names.index("wrong_retval")
    assert names.index("returns_a_pointer") + 1 == names.index("returns_a_pointer @unpriv")
