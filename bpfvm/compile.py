"""C source -> BPF object, through whatever compiler for BPF is at hand.

A clang that knows BPF and address spaces (19 or newer) on PATH, or Zig's, which comes with the
Python package `ziglang` (`pip install 'bpfvm[compile]'`). Both give objects without paths of this
machine in them.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from bpfvm.errors import BpfError, LoadError

__all__ = ["MIN_CLANG", "compile_c", "find_compiler"]

#: The first clang that casts between address spaces in BPF.
MIN_CLANG = 19
_NEWEST_CLANG = 30
_TIMEOUT = 120
_FLAGS = ("-O2", "-g", "-mcpu=v3", "-fdebug-compilation-dir=.")
_ZIG_TARGET = "--target=bpfel-freestanding"
#: What is worth repeating of a compiler's output.
_COMPLAINT = re.compile(r"^.*?(?:fatal error|error): .*$", re.MULTILINE)


def compile_c(
    path: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    compiler: tuple[str, ...] | None = None,
) -> bytes:
    """Return the object that the C source at *path* compiles to, and write it to *out* if given.

    Headers are looked for beside the source. *compiler* is the command to use instead of the one
    that `find_compiler` finds.

    Raises:
        LoadError: the source can't be read, or does not compile; the text has the compiler's
            errors.
        BpfError: no compiler is there, or it takes too long.
    """
    source = Path(path)
    if not source.is_file():
        raise LoadError(f"{source}: no such C source")
    command = compiler or find_compiler()
    folder = source.resolve().parent
    with tempfile.TemporaryDirectory(prefix="bpfvm-") as scratch:
        target = Path(scratch) / "out.o"
        arguments = [
            *command,
            *_FLAGS,
            f"-ffile-prefix-map={folder}=.",
            "-I.",
            "-c",
            source.name,
            "-o",
            str(target),
        ]
        try:
            done = subprocess.run(
                arguments,
                cwd=folder,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_TIMEOUT,
            )
        except subprocess.TimeoutExpired:
            raise BpfError(f"{source}: {command[0]} took more than {_TIMEOUT} s") from None
        except OSError as err:
            raise BpfError(f"{source}: {command[0]}: {err.strerror or err}") from None
        if done.returncode or not target.is_file():
            raise LoadError(f"{source}: does not compile:\n{_complaints(done.stderr)}")
        data = target.read_bytes()
    if out is not None:
        try:
            Path(out).write_bytes(data)
        except OSError as err:
            raise BpfError(f"{os.fspath(out)}: {err.strerror or err}") from None
    return data


def _complaints(stderr: str) -> str:
    return "\n".join(_COMPLAINT.findall(stderr)) or stderr.strip() or "no message"


@cache
def find_compiler() -> tuple[str, ...]:
    """Return the command, with its target option, of a compiler for BPF.

    Raises:
        BpfError: there is none; the text says what to install.
    """
    for name in _clang_names():
        found = shutil.which(name)
        if found and _is_usable(found):
            return found, "--target=bpfel"
    if importlib.util.find_spec("ziglang") is not None:
        return sys.executable, "-m", "ziglang", "cc", _ZIG_TARGET
    raise BpfError(
        f"no C compiler for BPF: install clang {MIN_CLANG} or newer, or the Python package ziglang"
    )


def _clang_names() -> Iterator[str]:
    yield "clang"
    for version in range(_NEWEST_CLANG, MIN_CLANG - 1, -1):
        yield f"clang-{version}"


def _is_usable(clang: str) -> bool:
    """Whether *clang* is new enough and has the BPF backend."""
    version = re.search(r"version (\d+)", _output([clang, "--version"]))
    if version is None or int(version[1]) < MIN_CLANG:
        return False
    return re.search(r"^\s+bpfel\s", _output([clang, "--print-targets"]), re.MULTILINE) is not None


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
