"""C source through a compiler: what is asked of it, and what is said when it fails."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from elf_kit import COMPILERS, EXAMPLES, LICENSE, PRELUDE, build, clang

from bpfvm.compile import compile_c, find_compiler
from bpfvm.errors import BpfError, LoadError
from bpfvm.loader import load_elf, load_path

SOURCE = LICENSE + 'SEC("xdp") int fine(struct xdp_md *ctx) { return XDP_PASS; }\n'


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    find_compiler.cache_clear()


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    find_compiler.cache_clear()


@pytest.mark.parametrize("name", COMPILERS)
def test_an_object_holds_no_path(tmp_path: Path, name: str) -> None:
    data = build(tmp_path, SOURCE, COMPILERS[name]())
    assert str(tmp_path).encode() not in data
    assert not re.search(rb"/(?:home|root|tmp|usr|var|work)\b", data)
    assert list(load_elf(data, "x.o").programs) == ["fine"]


def test_the_object_is_written_where_asked(tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "bpf_arena.h", tmp_path)
    (tmp_path / "x.bpf.c").write_text(PRELUDE + SOURCE)
    out = tmp_path / "x.bpf.o"
    data = compile_c(tmp_path / "x.bpf.c", out, compiler=clang())
    assert out.read_bytes() == data
    with pytest.raises(BpfError, match="No such file or directory"):
        compile_c(tmp_path / "x.bpf.c", tmp_path / "absent" / "x.o", compiler=clang())


@pytest.mark.parametrize("name", COMPILERS)
def test_errors_are_the_compilers(tmp_path: Path, name: str) -> None:
    compiler = COMPILERS[name]()
    with pytest.raises(LoadError) as caught:
        build(tmp_path, "int f(void) { return nothing; }\nint g(void) { return 1 }\n", compiler)
    first, *rest = str(caught.value).splitlines()
    assert first.endswith("unit.bpf.c: does not compile:")
    assert rest == [
        "unit.bpf.c:2:22: error: use of undeclared identifier 'nothing'",
        "unit.bpf.c:3:23: error: expected ';' after return statement",
    ]


def test_source_is_compiled_when_it_is_loaded(tmp_path: Path) -> None:
    clang()
    shutil.copy(EXAMPLES / "bpf_arena.h", tmp_path)
    path = tmp_path / "unit.bpf.c"
    path.write_text(PRELUDE + SOURCE)
    obj = load_path(path)
    assert obj.origin == str(path)
    assert list(obj.programs) == ["fine"]


def test_missing_source_is_told(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"absent\.c: no such C source"):
        compile_c(tmp_path / "absent.c")


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler_it_says_what_to_install() -> None:
    with pytest.raises(BpfError, match=r"install clang 19 or newer, or the Python package ziglang"):
        compile_c(EXAMPLES / "repaired.bpf.c")


def test_a_compiler_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(BpfError, match="No such file or directory"):
        build(tmp_path, SOURCE, (str(tmp_path / "clang"),))


def fake_clang(folder: Path, version: str, targets: str) -> Path:
    path = folder / "clang"
    path.write_text(
        "#!/bin/sh\n"
        f'case "$1" in --version) echo "clang version {version}";; *) echo "    {targets}";; esac\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("version", "targets", "usable"),
    [
        ("19.1.7", "bpfel      - BPF (little endian)", True),
        ("18.1.3", "bpfel      - BPF (little endian)", False),
        ("21.0.0", "x86-64     - 64-bit X86", False),
    ],
)
def test_a_clang_must_be_new_enough_and_know_bpf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, targets: str, usable: bool
) -> None:
    path = fake_clang(tmp_path, version, targets)
    found = {"clang": str(path)}
    monkeypatch.setattr("shutil.which", found.get)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    find_compiler.cache_clear()
    if usable:
        assert find_compiler() == (str(path), "--target=bpfel")
    else:
        with pytest.raises(BpfError, match="no C compiler for BPF"):
            find_compiler()
