"""Text vectors: a program, and what is expected of it (the format: `VECTORS.md` beside this file).

Only the text is understood here; `bpfvm.judge` assembles and judges. A file has one vector or,
behind lines `== NAME`, many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bpfvm.errnos import errno_number
from bpfvm.errors import LoadError
from bpfvm.privileges import PRIVILEGED, Privileges
from bpfvm.rules import KERNELS
from bpfvm.shortform import expand

__all__ = ["SECTIONS", "Vector", "Wanted", "has_sections", "read_vectors"]

#: What a program is given, and how it is judged.
_GIVEN = frozenset({"mem", "ctx", "data", "patch", "kernel", "engine", "privileges"})
#: What is expected; these may be of one kernel: `-- verdict 6.18`.
_EXPECTED = frozenset(
    {
        *("verdict", "message", "log"),  # what the verifier says
        *("result", "retval", "mem out", "ctx out", "data out", "stdout", "stderr"),  # of a run
        *("fault", "error"),  # how the sandbox or the assembler refuses it
    }
)
_PROGRAM = frozenset({"prog", "asm", "raw"})
#: For people.
_TOLD = frozenset({"repair"})
SECTIONS = _PROGRAM | _GIVEN | _EXPECTED | _TOLD

_TITLE = re.compile(r"== *(.*)")
_HEADER = re.compile(r"-- *([a-z][a-z ]*?)(?: +(\d[\d.]*))? *(?:: *(.*))?")
_ARROW = re.compile(r"=> *(?:(\d[\d.]*) +)?(\S+) *(.*)")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A verdict that is expected: *errno* 0 in a rejection means any; *message* is the closing
    complaint, which may end in `...`, or None where any will do."""

    ok: bool
    errno: int = 0
    message: str | None = None

    def fits(self, last: str) -> bool:
        """Return whether *last* is the complaint, or begins with it where it ends in `...`."""
        if self.message is None:
            return True
        if self.message.endswith("..."):
            return last.startswith(self.message.removesuffix("..."))
        return last == self.message


@dataclass(frozen=True, slots=True)
class Vector:
    """One vector.

    Attributes:
        name: what its title says, or the file's name without suffix.
        origin, line: the file, and the line where the vector begins.
        about: the first line of the comment that it begins with.
        sections: their text by name; what is of one kernel by "NAME KERNEL".
        first: the line where its program begins.
    """

    name: str
    origin: str
    line: int
    about: str = ""
    sections: Mapping[str, str] = field(default_factory=dict)
    first: int = 0

    def text(self, section: str, kernel: str = "") -> str | None:
        """Return the text of *section*, stripped; *kernel*'s own before what is of all."""
        found = self.sections.get(f"{section} {kernel}", self.sections.get(section))
        return None if found is None else found.strip()

    def lines(self, section: str, kernel: str = "") -> tuple[str, ...]:
        """Return the lines of *section* that are not empty."""
        return tuple(line for line in (self.text(section, kernel) or "").splitlines() if line)

    def bytes(self, section: str) -> bytes | None:
        """Return a section of hex bytes with `#` comments.

        Raises:
            LoadError: it is none.
        """
        found = self.sections.get(section)
        if found is None:
            return None
        try:
            return bytes.fromhex("".join(line.split("#")[0] for line in found.splitlines()))
        except ValueError:
            raise self.error(f"section {section}: not hex bytes") from None

    def number(self, section: str, kernel: str = "") -> int | None:
        """Return the number that *section* holds, decimal or 0x, with or without a sign.

        Raises:
            LoadError: it is none.
        """
        found = self.text(section, kernel)
        try:
            return None if found is None else int(found, 0)
        except ValueError:
            raise self.error(f"section {section}: not a number: {found!r}") from None

    def error(self, message: str) -> LoadError:
        """Return the error *message*, placed."""
        return LoadError(f"{self.origin}:{self.line}: {message}")

    @property
    def source(self) -> str | None:
        """The program as the assembler takes it, with the file's line numbers where it stands
        there as it is; None: raw slots (`bytes("raw")`)."""
        asm = self.sections.get("asm")
        if asm is not None:
            return "\n" * (self.first - 1) + asm
        short = self.sections.get("prog")
        return None if short is None else expand(short)

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernels that the vector is for."""
        return self._choice("kernel", KERNELS)

    def engines(self, known: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of *known* that the vector is for.

        Raises:
            LoadError: it names another.
        """
        return self._choice("engine", known)

    @property
    def privileges(self) -> Privileges:
        """Whom it is verified for.

        Raises:
            BpfError: it names an unknown capability.
        """
        words = self.text("privileges")
        if words is None:
            return PRIVILEGED
        return Privileges.named(() if words == "none" else words.split())

    @property
    def patches(self) -> tuple[tuple[int, dict[str, int]], ...]:
        """Insns to change into what assembly can't say: slot, and fields by name.

        Raises:
            LoadError: a line is not SLOT FIELD=N ...
        """
        return tuple(self._patch(line) for line in self.lines("patch"))

    def _patch(self, line: str) -> tuple[int, dict[str, int]]:
        slot, *fields = line.split()
        try:
            pairs = [field.split("=") for field in fields]
            return int(slot), {name: int(value, 0) for name, value in pairs}
        except ValueError:
            raise self.error(f"section patch: not SLOT FIELD=N ...: {line!r}") from None

    def _choice(self, section: str, known: tuple[str, ...]) -> tuple[str, ...]:
        chosen = tuple((self.text(section) or "").split())
        for word in chosen:
            if word not in known:
                raise self.error(f"section {section}: {word!r}: expected {' or '.join(known)}")
        return chosen or known

    def wanted(self, kernel: str) -> Wanted | None:
        """Return the verdict that *kernel* should give, None where none is stated.

        Raises:
            LoadError: the section is wrong.
        """
        message = self.text("message", kernel)
        found = self.text("verdict", kernel)
        if found is None:
            if message is not None:
                return Wanted(False, 0, message)
            return Wanted(True) if self.text("retval", kernel) is not None else None
        word, *rest = found.split()
        name = rest[0] if rest else ""
        number = errno_number(name) if name else 0
        if word not in ("accept", "reject") or len(rest) > (word == "reject") or number is None:
            raise self.error(f"section verdict: {found!r}: expected accept or reject [ERRNO]")
        return Wanted(True) if word == "accept" else Wanted(False, number, message)

    @property
    def asks(self) -> bool:
        """Whether anything is expected of it."""
        return any(name.rstrip("0123456789. ") in _EXPECTED for name in self.sections)


def has_sections(text: str) -> bool:
    """Return whether *text* is a vector, not a program alone."""
    return any(line.startswith(("-- ", "== ", "=> ")) for line in text.splitlines())


def read_vectors(text: str, origin: str) -> list[Vector]:
    """Return the vectors in *text*, the content of the file *origin*.

    Raises:
        LoadError: a section is unknown, given twice or misplaced; the text says where.
    """
    reader = _Reader(origin)
    for number, line in enumerate(text.splitlines(), 1):
        reader.line(number, line)
    return list(reader.vectors())


class _Reader:
    """Reads a file line by line."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        # Text in front of all sections is the program: as it stands, or in the short form.
        self.front = "prog" if Path(origin).suffix == ".data" else "asm"
        self.parts: list[_Part] = [_Part(Path(origin).stem.split(".")[0], 1)]
        self.number = 0

    def line(self, number: int, line: str) -> None:
        self.number = number
        part = self.parts[-1]
        if title := _TITLE.fullmatch(line):
            if len(self.parts) == 1 and part.sections:
                raise self.error("a file with titles (== NAME) has no program in front of them")
            if not title[1] or any(p.name == title[1] for p in self.parts[1:]):
                raise self.error(f"title {title[1]!r} is empty or given twice")
            self.parts.append(_Part(title[1], number))
            self.front = "prog"
        elif line.startswith("=>"):
            self.arrow(line)
        elif line.startswith("--"):
            self.header(line)
        elif part.current in part.sections:
            part.sections[part.current] += line + "\n"
        elif part.current and line.strip():
            raise self.error("text behind a section of one line")
        elif line.startswith("#"):
            part.about = part.about or line.lstrip("# ").rstrip()
        elif line.strip():
            self.open(self.front, line + "\n", number)

    def header(self, line: str) -> None:
        found = _HEADER.fullmatch(line)
        name = found[1] if found else line[2:].strip()
        if found is None or name not in SECTIONS:
            raise self.error(f"unknown section {name!r}: expected {', '.join(sorted(SECTIONS))}")
        self.check_kernel(found[2])
        if found[2] and name not in _EXPECTED:
            raise self.error(f"section {name} can't be of one kernel")
        self.open(f"{name} {found[2]}" if found[2] else name, found[3] or "", self.number + 1)
        if found[3] is not None:
            self.parts[-1].current = "-"  # nothing may follow

    def arrow(self, line: str) -> None:
        """Read `=> [KERNEL] accept` or `=> [KERNEL] ERRNO MESSAGE`."""
        found = _ARROW.fullmatch(line)
        if found is None:
            raise self.error("expected => accept or => ERRNO MESSAGE")
        kernel, word, message = found.groups()
        self.check_kernel(kernel)
        suffix = f" {kernel}" if kernel else ""
        self.open(f"verdict{suffix}", word if word == "accept" else f"reject {word}")
        if word != "accept":
            self.open(f"message{suffix}", message)
        self.parts[-1].current = "-"

    def check_kernel(self, kernel: str | None) -> None:
        if kernel is not None and kernel not in KERNELS:
            raise self.error(f"unknown kernel {kernel}: expected {' or '.join(KERNELS)}")

    def open(self, name: str, text: str, first: int = 0) -> None:
        sections = self.parts[-1].sections
        if name in sections:
            raise self.error(f"section {name} is given twice")
        if name in _PROGRAM and sections.keys() & _PROGRAM:
            raise self.error(f"section {name}: there is a program already")
        if name in _PROGRAM:
            self.parts[-1].first = first
        sections[name] = text
        self.parts[-1].current = name

    def error(self, message: str) -> LoadError:
        return LoadError(f"{self.origin}:{self.number}: {message}")

    def vectors(self) -> Iterator[Vector]:
        for part in self.parts[1:] or self.parts:
            vector = Vector(
                part.name, self.origin, part.line, part.about, part.sections, part.first
            )
            if not part.sections.keys() & _PROGRAM:
                raise vector.error("no program: expected statements, or a section asm or raw")
            yield vector


@dataclass
class _Part:
    """A vector while it is read: *first* is the line where its program begins, *current* the
    open section, "-" for none that takes text."""

    name: str
    line: int
    first: int = 0
    about: str = ""
    sections: dict[str, str] = field(default_factory=dict)
    current: str = ""
