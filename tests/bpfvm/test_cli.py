"""The command line: what commands print, and how they end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

import bpfvm
from bpfvm import __main__ as process
from bpfvm import vm
from bpfvm.cli import cli
from bpfvm.errnos import errno_name
from bpfvm.errors import InternalError

COMMANDS = ("run", "verify", "diff", "disasm", "asm", "dump", "json", "plugin")

ADD = """
.map counts type=array key=4 value=8 entries=1
r1 = map_value(counts)
r0 = *(u64 *)(r1 + 0)
r0 += 5
*(u64 *)(r1 + 0) = r0
exit
"""
LEAK = "r0 = r1\nr0 = *(u64 *)(r0 + 4096)\nexit\n"
TWO = """
.map counts type=array key=4 value=8 entries=1
.prog first type=xdp
r1 = map_value(counts)
*(u64 *)(r1 + 0) = 41
r0 = 2
exit
.prog second type=syscall sleepable
r1 = map_value(counts)
r0 = *(u64 *)(r1 + 0)
r0 += 1
exit
"""

Bpfvm = Callable[..., "Done"]


class Done:
    """What one call of the command line did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def complaint(self) -> str:
        """The only line on stderr."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        return lines[0]


@pytest.fixture
def bpfvm_cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bpfvm:
    """Run the command line in this process, as the console script does."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def call(*args: str | Path) -> Done:
        code = process.main([str(arg) for arg in args])
        captured = capfd.readouterr()
        return Done(code, captured.out, captured.err)

    return call


@pytest.fixture
def source(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "prog.s"
        path.write_text(text)
        return path

    return write


# -- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_examples(command: str, bpfvm_cli: Bpfvm) -> None:
    done = bpfvm_cli(command, "--help")
    assert done.code == 0
    assert f"Usage: bpfvm {command}" in done.out
    assert f"\n    bpfvm {command}" in done.out or f"| bpfvm {command}" in done.out


def test_help_lists_all_commands_and_imports_none(bpfvm_cli: Bpfvm) -> None:
    done = bpfvm_cli("--help")
    assert [c for c in COMMANDS if f"\n  {c} " in done.out] == list(COMMANDS)
    code = (
        "import sys; from bpfvm.__main__ import main; code = main(['--help']);"
        "heavy = {'lark', 'rich', 'llvmlite', 'elftools', 'verifier', 'jit', 'arena', 'bpfvm.vm'};"
        "found = heavy & set(sys.modules); sys.exit(str(found) if found or code else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_help_is_quick() -> None:
    def once() -> float:
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bpfvm", "--help"], check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start

    def bare() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "pass"], check=True)
        return time.perf_counter() - start

    # Of a busy machine the bare interpreter's time tells how busy it is.
    assert min(once() for _ in range(5)) < 0.15 + 4 * min(bare() for _ in range(5))


def test_version(bpfvm_cli: Bpfvm) -> None:
    done = bpfvm_cli("--version")
    assert done.code == 0
    assert re.match(r"bpfvm(\s\d+\.\d+|, run from source)", done.out)


def test_completion_offers_commands_and_options() -> None:
    def complete(words: str, number: int) -> str:
        env = {**os.environ, "_BPFVM_COMPLETE": "bash_complete", "COMP_WORDS": words}
        env["COMP_CWORD"] = str(number)
        done = subprocess.run(
            [sys.executable, "-m", "bpfvm"], env=env, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "plain,run" in complete("bpfvm r", 1)
    assert "plain,interp" in complete("bpfvm run --engine ", 3)


def test_command_group_works_under_clicks_own_runner() -> None:
    result = CliRunner().invoke(cli, ["run", "--engine", "cloud", "x"])
    assert result.exit_code == 2
    assert "cloud" in result.output


# -- run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", vm.ENGINES)
def test_run_prints_one_line_for_each_program(
    engine: str, bpfvm_cli: Bpfvm, source: Callable[[str], Path]
) -> None:
    done = bpfvm_cli("run", source(TWO), "--engine", engine)
    assert (done.code, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert re.fullmatch(rf"first   {engine} +r0 = 0x2 \(2\)  [\d.]+ (ns|us|ms)", first)
    # File order, on the same map.
    assert second.startswith(f"second  {engine}")
    assert "r0 = 0x2a (42)" in second


def test_run_defaults_to_the_jit(bpfvm_cli: Bpfvm, source: Callable[[str], Path]) -> None:
    assert "  jit  " in bpfvm_cli("run", source(ADD)).out


def test_run_of_one_program(bpfvm_cli: Bpfvm, source: Callable[[str], Path]) -> None:
    done = bpfvm_cli("run", source(TWO), "--prog", "second", "--engine", "interp")
    assert done.code == 0
    assert "first" not in done.out
    assert "r0 = 0x1 (1)" in done.out


def test_run_takes_context_and_packet(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path], tmp_path: Path
) -> None:
    path = source(".prog p type=syscall sleepable\nr0 = *(u64 *)(r1 + 8)\nexit\n")
    given = bpfvm_cli("run", path, "--ctx", "00" * 8 + "0102030405060708", "--engine", "interp")
    assert "r0 = 0x807060504030201 " in given.out
    zeros = bpfvm_cli("run", path, "--engine", "interp")
    assert (zeros.code, "r0 = 0x0 " in zeros.out) == (0, True)

    packet = tmp_path / "packet"
    packet.write_bytes(bytes(range(33, 100)))
    length = """
    .prog p type=xdp
    r0 = *(u32 *)(r1 + 4)
    r1 = *(u32 *)(r1 + 0)
    r0 -= r1
    exit
    """
    assert "(67)" in bpfvm_cli("run", source(length), "--data", packet, "--engine", "interp").out
    assert "(64)" in bpfvm_cli("run", source(length), "--engine", "interp").out


def test_streams_follow_the_line_of_their_program(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path]
) -> None:
    text = """
    .map fmt type=array key=4 value=8 entries=1
    r1 = r10
    r1 += -8
    *(u64 *)(r1 + 0) = 0x6968
    r2 = 3
    call bpf_trace_printk
    exit
    """
    done = bpfvm_cli("run", source(text), "--engine", "interp")
    assert done.code == 0, done.err
    line, *streams = done.out.splitlines()
    assert line.startswith("main ")
    assert any(s.startswith("  trace: ") and s.endswith("hi") for s in streams)


def test_a_rejected_program_is_one_line_and_the_others_run(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path]
) -> None:
    path = source(f".prog bad\n{LEAK}\n.prog good\nr0 = 1\nexit\n")
    done = bpfvm_cli("run", path, "--engine", "interp")
    assert done.code == 1
    assert done.complaint().startswith(f"bpfvm: {path}: bad: rejected: ")
    assert "EACCES" in done.complaint()
    assert done.out.startswith("good ")


@pytest.mark.parametrize("engine", vm.ENGINES)
def test_sandbox_runs_what_does_not_verify(
    engine: str, bpfvm_cli: Bpfvm, source: Callable[[str], Path]
) -> None:
    done = bpfvm_cli("run", source(LEAK), "--unverified", "--engine", engine)
    assert (done.code, done.out) == (1, "")
    assert re.search(r": main: ended early: pc 1: invalid read of 8 bytes at 0x", done.complaint())


@pytest.mark.parametrize("engine", vm.ENGINES)
def test_budget_ends_a_loop(engine: str, bpfvm_cli: Bpfvm, source: Callable[[str], Path]) -> None:
    path = source("r0 = 0\nl: r0 += 1\ngoto l\nexit\n")
    done = bpfvm_cli("run", path, "--unverified", "--budget", "1000", "--engine", engine)
    assert done.code == 1
    assert "budget of insns exceeded" in done.complaint()


def test_budget_is_for_the_sandbox(bpfvm_cli: Bpfvm, source: Callable[[str], Path]) -> None:
    done = bpfvm_cli("run", source(ADD), "--budget", "5")
    assert done.code == 2
    assert "--unverified" in done.complaint()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--ctx", "0g"], "--ctx: not hex bytes"),
        (["--ctx", "123"], "--ctx: not hex bytes"),
        (["--data", "no-such-file"], "no-such-file: No such file"),
        (["--prog", "third"], "no program 'third'; its programs: main"),
        (["--engine", "kernel"], "'kernel' is not one of"),
        (["--frobnicate"], "--frobnicate"),
        (["--budget", "0", "--unverified"], "--budget"),
        (["--ctx", "ff" * 300], "context of 300 bytes"),
    ],
)
def test_bad_options_are_one_line(
    args: list[str], words: str, bpfvm_cli: Bpfvm, source: Callable[[str], Path]
) -> None:
    done = bpfvm_cli("run", source("r0 = 0\nexit\n"), "--engine", "interp", *args)
    assert (done.code, done.out) == (2, "")
    assert done.complaint().startswith("bpfvm")
    assert words in done.complaint()


def test_data_for_a_program_without_packet_is_refused(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path], tmp_path: Path
) -> None:
    packet = tmp_path / "packet"
    packet.write_bytes(bytes(64))
    path = source(".prog p type=syscall sleepable\nr0 = 0\nexit\n")
    done = bpfvm_cli("run", path, "--data", packet)
    assert done.code == 2
    assert "no program here takes a packet" in done.complaint()


def test_maps_that_cannot_be_created_are_bad_input_once(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path]
) -> None:
    text = ".map m type=200 key=4 value=4 entries=1\n.prog a\nr0=0\nexit\n.prog b\nr0=0\nexit\n"
    for command in ("run", "verify", "dump", "diff"):
        done = bpfvm_cli(command, source(text))
        assert done.code == 2
        assert "map type 200 (unknown) is not supported" in done.complaint()


# -- verify -------------------------------------------------------------------------------------


def test_verify_prints_log_and_verdict(bpfvm_cli: Bpfvm, source: Callable[[str], Path]) -> None:
    done = bpfvm_cli("verify", source(ADD))
    assert (done.code, done.err) == (0, "")
    assert re.search(r"^processed \d+ insns", done.out, re.MULTILINE)
    assert done.out.endswith("main: accepted\n")


def test_verify_of_a_rejected_program(bpfvm_cli: Bpfvm, source: Callable[[str], Path]) -> None:
    done = bpfvm_cli("verify", source(LEAK))
    assert (done.code, done.err) == (1, "")
    *log, verdict = done.out.splitlines()
    assert log[-1].startswith("processed ")
    assert verdict == f"main: rejected: {log[-2]} (EACCES, {verdict.split(', ')[-1]}"


def test_log_levels(bpfvm_cli: Bpfvm, source: Callable[[str], Path]) -> None:
    lengths = [len(bpfvm_cli("verify", source(ADD), "--log-level", level).out) for level in "012"]
    assert lengths == sorted(set(lengths))
    assert bpfvm_cli("verify", source(ADD), "--log-level", "0").out == "main: accepted\n"


def test_unpriv_is_for_a_user_without_capabilities(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path]
) -> None:
    path = source(".prog main type=socket_filter\nr0 = r1\nexit\n")
    assert bpfvm_cli("verify", path).code == 0
    done = bpfvm_cli("verify", path, "--unpriv")
    assert done.code == 1
    assert done.out.endswith(
        "main: rejected: R0 leaks addr as return value (EACCES, leak_return)\n"
    )
    assert bpfvm_cli("run", path).code == 0
    assert "R0 leaks addr" in bpfvm_cli("run", path, "--unpriv").err
    assert bpfvm_cli("run", path, "--unpriv", "--unverified").code == 2


def test_verify_knows_the_kernels(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path], examples_dir: Path
) -> None:
    # A socket filter that allocates arena pages: any context may, from 7.0 on.
    path = examples_dir / "arena_nonsleepable.bpf.o"
    assert bpfvm_cli("verify", path, "--kernel", "7.3").code == 0
    old = bpfvm_cli("verify", path, "--kernel", "6.18")
    assert old.code == 1
    assert "program must be sleepable to call sleepable kfunc bpf_arena_" in old.out


# -- asm, disasm, dump --------------------------------------------------------------------------


def test_asm_and_disasm_take_back_each_other(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path], tmp_path: Path
) -> None:
    path = source("r0 = *(u32 *)(r1 + 4)\nif w0 s> 7 goto l\nr0 = 0x1122334455667788 ll\nl: exit\n")
    raw, again = tmp_path / "prog.bin", tmp_path / "again.s"
    assert bpfvm_cli("asm", path, "-o", raw).code == 0
    assert len(raw.read_bytes()) == 5 * 8
    listing = bpfvm_cli("disasm", raw)
    assert listing.code == 0
    again.write_text(listing.out)
    assert bpfvm_cli("asm", again, "-o", tmp_path / "again.bin").code == 0
    assert (tmp_path / "again.bin").read_bytes() == raw.read_bytes()


def test_asm_to_stdout(source: Callable[[str], Path]) -> None:
    path = source("r0 = 7\nexit\n")
    done = subprocess.run(
        [sys.executable, "-m", "bpfvm", "asm", path, "-o", "-"], capture_output=True, check=True
    )
    assert done.stdout == bytes.fromhex("b7000000070000009500000000000000")


def test_asm_refuses_what_raw_insns_cannot_hold(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path], tmp_path: Path
) -> None:
    done = bpfvm_cli("asm", source(ADD), "-o", tmp_path / "out")
    assert done.code == 2
    assert "can't hold maps: counts" in done.complaint()
    done = bpfvm_cli("asm", source(TWO), "-o", tmp_path / "out")
    assert "choose one with --prog: first, second" in done.complaint()


def test_wrong_text_has_place_line_and_caret(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path]
) -> None:
    path = source("r0 = 0\nr1 = = 2\nexit\n")
    done = bpfvm_cli("run", path)
    assert done.code == 2
    first, line, caret = done.err.splitlines()
    assert first.startswith(f"bpfvm: {path}:2:6: ")
    assert (line, caret) == ("r1 = = 2", "     ^")


def test_disasm_keeps_names_of_an_object(
    bpfvm_cli: Bpfvm, examples_dir: Path, tmp_path: Path
) -> None:
    listing = bpfvm_cli("disasm", examples_dir / "arena_list.bpf.o")
    assert listing.code == 0
    assert ".map arena type=arena" in listing.out
    assert "call bpf_arena_alloc_pages" in listing.out
    path = tmp_path / "list.s"
    path.write_text(listing.out)
    assert bpfvm_cli("run", path).code == 0


def test_dump_shows_each_view(bpfvm_cli: Bpfvm, examples_dir: Path) -> None:
    path = examples_dir / "arena_nonsleepable.bpf.o"
    xlated = bpfvm_cli("dump", path).out
    assert re.search(r"^\s+0: \([0-9a-f]{2}\) ", xlated, re.MULTILINE)
    types = bpfvm_cli("dump", path, "--types").out
    call = next(line for line in types.splitlines() if "call bpf_arena_alloc_pages" in line)
    assert "non_sleepable" in call
    assert "arena" in types
    assert "define" in bpfvm_cli("dump", path, "--llvm").out
    assert "bpf_main:" in bpfvm_cli("dump", path, "--native").out
    assert bpfvm_cli("dump", path, "--types", "--unverified").code == 2


def test_dump_of_a_rejected_program(bpfvm_cli: Bpfvm, source: Callable[[str], Path]) -> None:
    done = bpfvm_cli("dump", source(LEAK))
    assert (done.code, done.out) == (1, "")
    assert "rejected" in done.complaint()
    assert bpfvm_cli("dump", source(LEAK), "--unverified").code == 0


# -- processes ----------------------------------------------------------------------------------


def test_a_bug_asks_for_a_report(
    bpfvm_cli: Bpfvm, source: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: str) -> bpfvm.Object:
        raise InternalError("the sky\nfell")

    monkeypatch.setattr(vm, "open", broken)
    monkeypatch.delenv("BPFVM_DEBUG", raising=False)
    done = bpfvm_cli("run", source(ADD))
    assert done.code == 70
    assert "please report it: InternalError: the sky fell" in done.complaint()
    monkeypatch.setenv("BPFVM_DEBUG", "1")
    assert "Traceback" in bpfvm_cli("run", source(ADD)).err


def test_a_closed_pipe_ends_it_silently(source: Callable[[str], Path]) -> None:
    path = source("r0 = 0\n" * 6_000 + "exit\n")
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m bpfvm disasm {path} | head -n 1"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(".prog main")
    assert done.stderr == ""


def test_errno_names() -> None:
    assert [errno_name(n) for n in (13, 95, 524, 9999)] == [
        "EACCES",
        "EOPNOTSUPP",
        "ENOTSUPP",
        "9999",
    ]


def test_the_readmes_example_does_what_it_says(root_dir: Path) -> None:
    text = (root_dir / "README.md").read_text()
    example = re.search(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert example is not None
    done = subprocess.run(
        [sys.executable, "-c", example[1]], cwd=root_dir, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n1\n2 2\n"
