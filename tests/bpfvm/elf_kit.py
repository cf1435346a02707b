"""Objects for tests: C compiled with each compiler at hand, damaged copies, BTF made by hand."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import sys
from pathlib import Path

import pytest

from bpfvm.compile import compile_c
from bpfvm.loader import load_elf
from bpfvm.program import ObjectFile

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PRELUDE = '#include "bpf_arena.h"\n'
LICENSE = 'char _license[] SEC("license") = "GPL";\n'

SHDR = struct.Struct("<IIQQQQIIQQ")
FIELDS = ("name", "type", "flags", "addr", "offset", "size", "link", "info", "align", "entsize")


def clang() -> tuple[str, ...]:
    """The command of a clang that compiles for BPF; skips where there is none."""
    for name in ("clang-19", "clang-20", "clang-21", "clang"):
        found = shutil.which(name)
        if found:
            return found, "--target=bpfel"
    pytest.skip("no clang on PATH")


def zig() -> tuple[str, ...]:
    """Zig's C compiler; skips where it is not installed."""
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("the Python package ziglang is not installed")
    return sys.executable, "-m", "ziglang", "cc", "--target=bpfel-freestanding"


COMPILERS = {"clang": clang, "zig": zig}


def build(tmp_path: Path, source: str, compiler: tuple[str, ...] | None = None) -> bytes:
    """Compile *source*, the header of the examples before it."""
    shutil.copy(EXAMPLES / "bpf_arena.h", tmp_path)
    path = tmp_path / "unit.bpf.c"
    path.write_text(PRELUDE + source)
    return compile_c(path, compiler=compiler or clang())


def load(tmp_path: Path, source: str, compiler: tuple[str, ...] | None = None) -> ObjectFile:
    """Compile and load *source*."""
    return load_elf(build(tmp_path, source, compiler), "unit.bpf.o")


def section_headers(data: bytes) -> list[tuple[int, dict[str, int]]]:
    """Return the file offset and the fields of each section header."""
    (start,) = struct.unpack_from("<Q", data, 40)
    (count,) = struct.unpack_from("<H", data, 60)
    offsets = [start + i * SHDR.size for i in range(count)]
    return [(at, dict(zip(FIELDS, SHDR.unpack_from(data, at), strict=True))) for at in offsets]


def section_names(data: bytes) -> dict[str, int]:
    """Return section indices by name."""
    headers = section_headers(data)
    (index,) = struct.unpack_from("<H", data, 62)
    base = headers[index][1]["offset"]
    names = {}
    for i, (_, fields) in enumerate(headers):
        start = base + fields["name"]
        names[data[start : data.index(b"\0", start)].decode()] = i
    return names


def edit_section(data: bytes, name: str, **changes: int) -> bytes:
    """Return *data* with fields of the header of section *name* changed."""
    at, fields = section_headers(data)[section_names(data)[name]]
    changed = {**fields, **changes}
    return data[:at] + SHDR.pack(*changed.values()) + data[at + SHDR.size :]


def section_bytes(data: bytes, name: str) -> tuple[int, bytes]:
    """Return the file offset and the bytes of section *name*."""
    _, fields = section_headers(data)[section_names(data)[name]]
    start = fields["offset"]
    return start, data[start : start + fields["size"]]


def patch(data: bytes, at: int, new: bytes) -> bytes:
    """Return *data* with *new* written at *at*."""
    return data[:at] + new + data[at + len(new) :]


class BtfBuilder:
    """Writes a `.BTF` section type by type; ids count from 1."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""
        self.count = 0

    def string(self, text: str) -> int:
        """Add a string; return its offset."""
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(
        self, kind: int, name: str = "", ref: int = 0, vlen: int = 0, extra: bytes = b""
    ) -> int:
        """Add a type; return its id."""
        self.types += struct.pack("<III", self.string(name), kind << 24 | vlen, ref) + extra
        self.count += 1
        return self.count

    def bytes(self) -> memoryview:
        """Return the section."""
        header = struct.pack(
            "<HBBIIIII",
            0xEB9F,
            1,
            0,
            24,
            0,
            len(self.types),
            len(self.types),
            len(self.strings),
        )
        return memoryview(header + self.types + self.strings)
