"""Bad input of every kind: one line that says what is wrong, and never a traceback or a crash."""

from __future__ import annotations

import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from elf_kit import EXAMPLES, section_headers

from bpfvm import __main__ as process
from bpfvm import vm
from bpfvm.errors import BpfError, RunFault
from bpfvm.loader import load_elf
from bpfvm.runtime import RunContext
from bpfvm.xlated import Rejected
from verifier import explore

EXIT = "9500000000000000"
OBJECTS = sorted(EXAMPLES.glob("*.bpf.o"))
_EXECINSTR = 4


def elf() -> bytes:
    return (EXAMPLES / "arena_list.bpf.o").read_bytes()


Case = tuple[str, bytes, str]

#: File name, its bytes, what the complaint says.
UNREADABLE: list[Case] = [
    ("empty.o", b"", "empty file"),
    ("empty.s", b"", "empty file"),
    ("garbage", random.Random(1).randbytes(4096), "not an ELF object"),
    ("garbage.o", random.Random(2).randbytes(4096), "not an ELF file"),
    ("garbage.s", random.Random(3).randbytes(4096), "not text: bad UTF-8"),
    ("odd.bin", bytes(12), "not a whole number of 8-byte insns"),
    ("no.s", b"; nothing\n", "no insns"),
    ("half.o", elf()[:200], ""),
    ("most.o", elf()[:-100], ""),
    ("magic.o", b"\x7fELF", ""),
    ("ascii.o", b"hello, world\n" * 20, "not an ELF file"),
]
#: Raw insns that load but can't run; and what either verdict says.
REFUSED: list[Case] = [
    ("opcode.bin", bytes.fromhex("ff00000000000000" + EXIT), "unknown opcode ff"),
    ("reserved.bin", bytes.fromhex("b700010000000000" + EXIT), ""),
    ("jump.bin", bytes.fromhex("b7000000000000000500ff7f00000000" + EXIT), "jump out of range"),
    ("jump32.bin", bytes.fromhex("b7000000000000001600220000000000" + EXIT), "jump out of range"),
    ("back.bin", bytes.fromhex("050080ff00000000" + EXIT), "jump out of range"),
    ("wide.bin", bytes.fromhex("1800000001000000"), ""),
    ("fall.bin", bytes.fromhex("b700000000000000"), "last insn"),
    ("register.bin", bytes.fromhex("b70f000000000000" + EXIT), ""),
    ("call.bin", bytes.fromhex("8510000064000000" + EXIT), ""),
    ("kfunc.bin", bytes.fromhex("8520000063000000" + EXIT), ""),
    ("map.bin", bytes.fromhex("18510000090000000000000000000000" + EXIT), ""),
    ("zero.bin", bytes(64), ""),
]


def bpfvm_cli(*arguments: str) -> int:
    return process.main(list(arguments))


@pytest.fixture(autouse=True)
def _signals(monkeypatch: pytest.MonkeyPatch) -> None:
    # The command line gives signals their default effect, which is not for the test's process.
    monkeypatch.setattr(signal, "signal", lambda *_: None)


@pytest.mark.parametrize(("name", "data", "words"), UNREADABLE, ids=[c[0] for c in UNREADABLE])
@pytest.mark.parametrize("command", ["run", "verify", "disasm", "dump", "diff"])
def test_unreadable_file(
    command: str,
    name: str,
    data: bytes,
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    code = bpfvm_cli(command, str(path))
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith(f"bpfvm: {path}:")
    assert words in err
    assert err.count("\n") in (1, 3)  # wrong text is shown with a caret
    assert code == 2


@pytest.mark.parametrize(("name", "data", "words"), REFUSED, ids=[c[0] for c in REFUSED])
@pytest.mark.parametrize("mode", [(), ("--unverified",), ("--engine=interp", "--unverified")])
def test_refused_program(
    mode: tuple[str, ...],
    name: str,
    data: bytes,
    words: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    code = bpfvm_cli("run", str(path), *mode)
    out, err = capfd.readouterr()
    assert code in (1, 2)
    assert out == ""
    assert err.startswith(f"bpfvm: {path}: {path.stem}: ")
    assert words in err
    assert err.count("\n") == 1


def test_missing_file_and_folder(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert bpfvm_cli("run", str(tmp_path / "absent.o")) == 2
    assert bpfvm_cli("run", str(tmp_path)) == 2
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == f"bpfvm: {tmp_path / 'absent.o'}: No such file or directory"
    assert lines[1].startswith(f"bpfvm: {tmp_path}: is a directory")


@pytest.mark.parametrize(
    ("text", "words", "code"),
    [
        (".map m type=1000 key=4 value=4 entries=1\nr0 = 0\nexit\n", "map type 1000", 2),
        (".map m type=array key=8 value=4 entries=1\nr0 = 0\nexit\n", "map m: ", 2),
        ("call bpf_no_such_kfunc\nr0 = 0\nexit\n", "bpf_no_such_kfunc", 1),
        ("call 9999\nr0 = 0\nexit\n", "9999", 1),
        ("r11 = 0\nexit\n", "R11 is invalid", 1),
        ("r16 = 0\nexit\n", "prog.s:1:", 2),
    ],
)
def test_wrong_text(
    text: str, words: str, code: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "prog.s"
    path.write_text(text)
    assert bpfvm_cli("run", str(path)) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert words in err


# -- damaged objects ------------------------------------------------------------------------------


def truncated(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data))]


def flipped(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randrange(1, 5)):
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def overwritten(rng: random.Random, data: bytes) -> bytes:
    start, size = rng.randrange(len(data)), rng.randrange(1, 64)
    fill = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])
    return (data[:start] + fill + data[start + size :])[: len(data)]


def code_slots(data: bytes) -> list[int]:
    """File offsets of the insns."""
    return [
        at
        for _, header in section_headers(data)
        if header["flags"] & _EXECINSTR
        for at in range(header["offset"], header["offset"] + header["size"], 8)
    ]


def code_flipped(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randrange(1, 3)):
        damaged[rng.choice(code_slots(data)) + rng.randrange(8)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def code_swapped(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    a, b = rng.sample(code_slots(data), 2)
    damaged[a : a + 8], damaged[b : b + 8] = data[b : b + 8], data[a : a + 8]
    return bytes(damaged)


Damage = Callable[[random.Random, bytes], bytes]
DAMAGES: tuple[Damage, ...] = (truncated, flipped, overwritten, code_flipped, code_swapped)
ROUNDS = 10


def check_line(text: str) -> None:
    assert text
    assert "\n" not in text


def outcomes(data: bytes) -> Iterator[str]:
    """Open, verify and run as far as it goes; whatever is wrong is a `BpfError` of one line."""
    try:
        obj = vm.Object(load_elf(data, "damaged.o"))
        _ = obj.machine
    except BpfError as error:
        check_line(str(error))
        yield "unreadable"
        return
    for why in obj.broken.values():
        check_line(str(why))
        yield "broken"
    for prog in obj.programs.values():
        for engine in vm.ENGINES:
            for verify in (True, False):
                yield run(prog, engine, verify=verify)


def run(prog: vm.Prog, engine: str, *, verify: bool) -> str:
    def brief(context: RunContext) -> None:
        context.may_goto_limit = 100

    try:
        prog.run(engine=engine, verify=verify, budget=None if verify else 10_000, setup=brief)
    except Rejected as error:
        check_line(error.verdict.last)
        return "rejected"
    except RunFault as error:
        check_line(str(error))
        return "ended early"
    except BpfError as error:
        check_line(str(error))
        return "refused"
    return "ran"


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("path", OBJECTS, ids=lambda p: p.name.split(".")[0])
def test_damaged_objects(path: Path, damage: Damage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "MAX_PROCESSED", 20_000)
    data = path.read_bytes()
    seen: Counter[str] = Counter()
    for seed in range(ROUNDS):
        seen.update(outcomes(damage(random.Random(f"{path.name} {seed}"), data)))
    assert seen.total() >= ROUNDS


def test_enough_objects_are_damaged() -> None:
    assert len(OBJECTS) * len(DAMAGES) * ROUNDS >= 200
