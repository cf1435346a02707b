"""bpf_conformance's plugin protocol."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elf_kit import clang

import bpfvm
from bpfvm import plugin
from bpfvm.compile import compile_c
from bpfvm.insn import encode

Plugin = Callable[..., tuple[int, str, str]]


def spaced(data: bytes) -> str:
    """Hex as the runner writes it: two spaces after every byte."""
    return "".join(f"{byte:02x}  " for byte in data)


def code_of(text: str) -> str:
    (prog,) = bpfvm.assemble(text).programs.values()
    return spaced(encode(prog.program.insns)) + "\n"


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Plugin:
    """Run the plugin with arguments and stdin; return exit code, stdout and stderr."""

    def call(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        code = plugin.command(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


SUM = "r0 = *(u8 *)(r1 + 1)\nr0 += r2\nexit"
EMPTY = "r0 = r1\nr0 += r2\nexit"


@pytest.mark.parametrize("options", [(), ("--jit",), ("--interp",), ("--interp", "--jit")])
def test_memory_is_the_first_argument(options: tuple[str, ...], run: Plugin) -> None:
    assert run(spaced(b"\x05\x06\x07"), *options, stdin=code_of(SUM)) == (0, "9\n", "")


@pytest.mark.parametrize("arguments", [(), ("--jit",), ("",), ("", "--interp")])
def test_without_memory_the_first_argument_is_an_option(
    arguments: tuple[str, ...], run: Plugin
) -> None:
    assert run(*arguments, stdin=code_of(EMPTY)) == (0, "0\n", "")


def test_all_64_bits_are_printed(run: Plugin) -> None:
    text = code_of("r0 = -2 ll\nexit")
    assert run(stdin=text) == (0, "fffffffffffffffe\n", "")


def test_program_as_an_argument(run: Plugin) -> None:
    assert run("--program", code_of("r0 = 17\nexit")) == (0, "11\n", "")
    assert run("05", "--program", code_of("r0 = r2\nexit"), "--jit") == (0, "1\n", "")


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        ((), "xx", "the program is not hex bytes"),
        (("0",), "", "the memory is not hex bytes"),
        ((), "", "no insns"),
        ((), "00 00", "2 bytes are not a whole number"),
        (("--fast",), "", "unknown option '--fast'"),
        (("--program",), "", "unknown option '--program'"),
        (("--elf",), "00", "not an ELF file"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], stdin: str, words: str, run: Plugin) -> None:
    code, out, err = run(*arguments, stdin=stdin)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


@pytest.mark.parametrize("option", ["--interp", "--jit"])
def test_a_run_that_ends_early(option: str, run: Plugin) -> None:
    code, out, err = run(option, stdin=code_of("r0 = *(u64 *)(r10 + 0)\nexit"))
    assert (code, out) == (1, "")
    assert err.startswith("pc 0: invalid read of 8 bytes at 0x")


@pytest.mark.parametrize("section", ["", '__attribute__((section("xdp")))'])
def test_elf(section: str, run: Plugin, tmp_path: Path) -> None:
    source = tmp_path / "x.c"
    source.write_text(
        "static __attribute__((noinline)) long twice(long a) { return a + a; }\n"
        f"{section} long main(unsigned char *mem, long len) {{ return twice(mem[1]) + len; }}\n"
    )
    # Freestanding: main is a function like any other.
    data = compile_c(source, compiler=(*clang(), "-ffreestanding"))
    assert run("05 06", "--elf", stdin=spaced(data)) == (0, "e\n", "")


def test_as_a_process() -> None:
    arguments = (
        [sys.executable, "-m", "bpfvm", "plugin"],
        [sys.executable, "-c", "import sys; from bpfvm.plugin import main; sys.exit(main())"],
    )
    for command in arguments:
        done = subprocess.run(
            [*command, "0a  0b  ", "--jit"],
            input=code_of(SUM),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == "d\n"
