"""`bpfvm diff`: engines that agree are told so, and a difference is found and shown."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

import bpfvm
from bpfvm import diff, vm
from bpfvm.diff import Difference, Input, compare
from bpfvm.errors import BpfError

Text = pytest.CaptureFixture[str]

ADDRESSES = """
.map h type=hash key=4 value=8 entries=4
r1 = map(h)
r2 = r10
r2 += -4
*(u32 *)(r2 + 0) = 7
r3 = r10
r3 += -16
*(u64 *)(r3 + 0) = r1
r4 = 0
call bpf_map_update_elem
r0 = map(h)
exit
"""


def differences(text: str) -> list[Difference]:
    found = compare(bpfvm.assemble(text).file, Input())
    return [c.difference for c in found if c.difference is not None]


@pytest.fixture
def wrong_add(monkeypatch: pytest.MonkeyPatch) -> None:
    """A JIT that gets every result wrong by one, and writes to stderr."""
    run = vm.Prog.run

    def wrong(self: vm.Prog, **options: object) -> vm.Result:
        result = run(self, **options)  # type: ignore[arg-type]  # passed on as they came
        if options["engine"] != "jit":
            return result
        return vm.Result(result.r0 + 1, ctx=result.ctx, data=result.data)

    monkeypatch.setattr(vm.Prog, "run", wrong)


def test_examples_agree(capsys: Text, examples_dir: Path) -> None:
    for path in sorted(examples_dir.glob("*.bpf.o")):
        assert diff.diff(str(path), None, 0) == 0
        for line in capsys.readouterr().out.splitlines():
            assert re.fullmatch(r"\w+: same( \(in the sandbox: it does not verify\))?", line)


def test_examples_agree_on_random_inputs(capsys: Text, examples_dir: Path) -> None:
    assert diff.diff(str(examples_dir / "arena_kv.bpf.o"), 5, 3) == 0
    assert capsys.readouterr().out == "arena_kv: same\n"


def test_random_programs_agree(capsys: Text) -> None:
    assert diff.diff(None, 30, 11) == 0
    said = re.fullmatch(
        r"same: 30 random programs, seeds 11 to 40: (\d+) verified, \d+ ended early\n",
        capsys.readouterr().out,
    )
    assert said is not None
    assert int(said[1]) >= 10


def test_addresses_are_compared_by_what_they_point_to() -> None:
    assert differences(ADDRESSES) == []


def test_clock_and_random_numbers_are_the_same() -> None:
    text = "call bpf_ktime_get_ns\nr6 = r0\ncall bpf_get_prandom_u32\nr0 += r6\nexit"
    assert differences(text) == []


def test_runs_that_end_early_are_compared() -> None:
    (compared,) = compare(bpfvm.assemble("r0 = *(u64 *)(r10 + 8)\nexit").file, Input())
    assert (compared.verified, compared.ended_early, compared.difference) == (False, True, None)


@pytest.mark.usefixtures("wrong_add")
def test_a_difference_is_found_and_shown(capsys: Text, tmp_path: Path) -> None:
    assert differences("r0 = 5\nexit") == [
        Difference("r0", (5).to_bytes(8, "little"), (6).to_bytes(8, "little"))
    ]
    path = tmp_path / "prog.s"
    path.write_text("r0 = 5\nexit\n")
    assert diff.diff(str(path), None, 0) == 1
    assert capsys.readouterr().out == (
        "main: differs: r0: interp 05 00 00 00 00 00 00 00, jit 06 00 00 00 00 00 00 00\n"
    )
    assert diff.diff(str(path), 2, 40) == 1
    assert capsys.readouterr().out.endswith("(again: --random 1 --seed 40)\n")
    assert diff.diff(None, 5, 7) == 1
    listing = capsys.readouterr().out
    assert listing.endswith("(again: --random 1 --seed 7)\n")
    assert ".prog random" in listing


def test_a_difference_in_a_map_names_the_element(monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
    .map m type=array key=4 value=16 entries=2
    call bpf_get_prandom_u32
    r1 = map_value(m)
    *(u64 *)(r1 + 8) = r0
    r0 = 0
    exit
    """
    numbers = iter([1, 2])

    class Unlike(random.Random):
        def __init__(self, _seed: int) -> None:
            super().__init__(next(numbers))

    monkeypatch.setattr(random, "Random", Unlike)
    (found,) = differences(text)
    assert found.what == "map m, key 00000000"
    assert re.fullmatch(
        r"map m, key 00000000 at byte 8: interp [0-9a-f ]{23}, jit [0-9a-f ]{23}", str(found)
    )


def test_streams_are_shown_as_text() -> None:
    shown = str(Difference("stderr", b"ERROR: one\n", b"ERROR: two\n"))
    assert shown == "stderr: interp 'ERROR: one', jit 'ERROR: two'"
    assert str(Difference("fault 0", b"\x01", b"")) == "fault 0: interp 01, jit nothing"


def test_nothing_to_compare() -> None:
    with pytest.raises(BpfError, match="--random N"):
        diff.diff(None, None, 0)


def test_one_program_of_a_file(examples_dir: Path, capsys: Text) -> None:
    assert diff.diff(str(examples_dir / "arena_list.bpf.o"), None, 0, prog="arena_list_del") == 0
    assert capsys.readouterr().out == "arena_list_del: same\n"


@pytest.mark.parametrize(
    "way",
    ["r0 = *(u8 *)(r1 - 30000)", "r1 += 0x1000000\nr0 = *(u8 *)(r1 + 0)", "r0 = *(u8 *)(r0 + 0)"],
    ids=["below", "far above", "wild"],
)
def test_refused_addresses_beside_the_packet(way: str) -> None:
    text = f".prog p type=xdp\nr0 = 0x41234567\nr1 = *(u32 *)(r1 + 0)\n{way}\nexit"
    assert differences(text) == []
