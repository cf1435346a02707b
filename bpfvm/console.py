"""What the commands share: opening a file, choosing programs, complaints."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bpfvm import vm
from bpfvm.errors import BpfError
from bpfvm.exits import Exit

__all__ = ["Report", "files_in", "open_object"]


#: What files that hold tests are called.
TEST_SUFFIXES = (".data", ".s", ".o")


def open_object(file: str, *, live: bool = False) -> vm.Object:
    """Return the object in *file*; *live*: with its maps created.

    Raises:
        BpfError: its text begins with the file's name.
    """
    try:
        obj = vm.open(file)
        if live:
            _ = obj.machine
        return obj
    except BpfError as error:
        raise BpfError(_placed(file, str(error))) from None


def files_in(paths: Sequence[str]) -> list[str]:
    """Return *paths* with each directory replaced by the files below it that may hold tests, in
    the order of their names.

    Raises:
        BpfError: a directory has none.
    """
    found: list[str] = []
    for path in paths:
        if not Path(path).is_dir():
            found.append(path)
            continue
        inside = sorted(str(p) for p in Path(path).rglob("*") if p.suffix in TEST_SUFFIXES)
        if not inside:
            raise BpfError(f"{path}: no files that hold tests ({', '.join(TEST_SUFFIXES)})")
        found += inside
    return found


def _placed(file: str, message: str) -> str:
    return message if message.startswith(f"{file}:") else f"{file}: {message}"


class Report:
    """Complaints about one file, and the exit code they add up to."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.exit = Exit.FINE

    def complain(self, message: str, exit: Exit = Exit.FAILED) -> None:
        """Write one complaint to stderr."""
        sys.stdout.flush()
        sys.stderr.write(f"bpfvm: {_placed(self.file, message)}\n")
        self.exit = max(self.exit, exit)

    def choose(self, obj: vm.Object, prog: str | None) -> list[vm.Prog]:
        """Return the programs to work on, in file order; complain about the broken ones.

        Raises:
            BpfError: there is no program, or none of that name.
        """
        if prog is not None and prog not in obj.programs and prog not in obj.broken:
            names = ", ".join([*obj.programs, *obj.broken]) or "none"
            raise BpfError(f"{self.file}: no program {prog!r}; its programs: {names}")
        if not obj.programs and not obj.broken:
            raise BpfError(f"{self.file}: no programs")
        for name, error in obj.broken.items():
            if prog in (None, name):
                self.complain(str(error))
        return [p for p in obj.programs.values() if prog in (None, p.name)]
