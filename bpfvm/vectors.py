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
from bpfvm.errors import AsmError, BpfError, LoadError, shown
from bpfvm.privileges import PRIVILEGED, Privileges
from bpfvm.rules import KERNELS
from bpfvm.shortform import Place, expand

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
#: Sections of hex bytes; of numbers, with the least and the largest.
_BYTES = ("raw", "mem", "ctx", "data", "mem out", "ctx out", "data out")
_NUMBERS = {"retval": (-(1 << 31), (1 << 32) - 1), "result": (-(1 << 63), (1 << 64) - 1)}
#: The fields of an insn that `patch` changes: the least and the largest value.
_FIELDS = {
    "opcode": (0, 255),
    "dst": (0, 15),
    "src": (0, 15),
    "off": (-(1 << 15), (1 << 15) - 1),
    "imm": (-(1 << 31), (1 << 31) - 1),
}
#: Sections that say nothing when they are empty.
_FILLED = (_GIVEN | _EXPECTED) - frozenset(_BYTES) - {"error"}
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
        places: the lines where its sections begin, by their names in `sections`.
    """

    name: str
    origin: str
    line: int
    about: str = ""
    sections: Mapping[str, str] = field(default_factory=dict)
    first: int = 0
    places: Mapping[str, int] = field(default_factory=dict)

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
            raise self.error("not hex bytes", section) from None

    def number(self, section: str, kernel: str = "") -> int | None:
        """Return the number that *section* holds, decimal or 0x, with or without a sign.

        Raises:
            LoadError: it is none, or one that nothing has.
        """
        found = self.text(section, kernel)
        if found is None:
            return None
        try:
            number = int(found, 0)
        except ValueError:
            raise self.error(f"not a number: {shown(found)}", section, kernel) from None
        low, high = _NUMBERS[section]
        if not low <= number <= high:
            raise self.error(f"{shown(found)}: expected {low}..{high}", section, kernel)
        return number

    def error(self, message: str, section: str = "", kernel: str = "") -> LoadError:
        """Return the error *message* about the vector, or about a *section* of it."""
        if not section:
            return LoadError(f"{self.origin}:{self.line}: {message}")
        name = f"{section} {kernel}"
        line = self.places.get(name, self.places.get(section, self.line))
        return LoadError(f"{self.origin}:{line}: section {section}: {message}")

    def check(self) -> None:
        """Read every section that does not tell of the program, to see whether that can be done.

        Raises:
            LoadError: it can't.
        """
        for section in _BYTES:
            self.bytes(section)
        for kernel in self.kernels:
            self.wanted(kernel)
            for section in _NUMBERS:
                self.number(section, kernel)
        _ = self.privileges, self.patches
        for name, text in self.sections.items():
            section, _, kernel = name.rpartition(" ") if name[-1].isdigit() else (name, "", "")
            if section in _FILLED and not text.strip():
                raise self.error("empty", section, kernel)
            if section.startswith("data" if self.sandboxed else "mem"):
                how = "the sandbox" if self.sandboxed else "a verified run"
                raise self.error(f"not for {how}", section, kernel)

    @property
    def sandboxed(self) -> bool:
        """Whether no kernel is said to verify it: it runs in the sandbox."""
        return all(self.wanted(kernel) is None for kernel in self.kernels)

    @property
    def source(self) -> str | None:
        """The program as the assembler takes it, with the file's line numbers where it stands
        there as it is; None: raw slots (`bytes("raw")`).

        Raises:
            LoadError: the short form repeats a statement too often.
        """
        asm = self.sections.get("asm")
        if asm is not None:
            return "\n" * (self.first - 1) + asm
        return self._expanded[0] if "prog" in self.sections else None

    @property
    def _expanded(self) -> tuple[str, list[Place]]:
        try:
            return expand(self.sections["prog"])
        except ValueError as err:
            raise LoadError(f"{self.origin}:{self.first}: {err}") from None

    def placed(self, err: AsmError) -> AsmError:
        """Return *err*, of `source`, with its place in the file."""
        if "prog" not in self.sections:
            return err
        place = self._expanded[1][err.line - 1]
        return AsmError(
            err.message,
            file=err.file,
            line=self.first - 1 + place.line,
            col=place.col + (err.col - 1 if place.whole else 0),
            source=self.sections["prog"].splitlines()[place.line - 1],
        )

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
            LoadError: it names an unknown capability.
        """
        words = self.text("privileges")
        if words is None:
            return PRIVILEGED
        try:
            return Privileges.named(() if words == "none" else words.split())
        except BpfError as err:
            raise self.error(f"{err}, or none", "privileges") from None

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
            if not slot.isdecimal() or not fields:
                raise ValueError
            values = {name: int(value, 0) for name, value in (f.split("=") for f in fields)}
        except ValueError:
            raise self.error(f"not SLOT FIELD=N ...: {shown(line)}", "patch") from None
        for name, value in values.items():
            if name not in _FIELDS:
                raise self.error(f"{shown(name)}: expected {' or '.join(_FIELDS)}", "patch")
            low, high = _FIELDS[name]
            if not low <= value <= high:
                raise self.error(f"{name}={value}: expected {low}..{high}", "patch")
        return int(slot), values

    def _choice(self, section: str, known: tuple[str, ...]) -> tuple[str, ...]:
        chosen = tuple((self.text(section) or "").split())
        for word in chosen:
            if word not in known:
                raise self.error(f"{shown(word)}: expected {' or '.join(known)}", section)
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
        word, *rest = found.split() or [""]
        name = rest[0] if rest else ""
        number = errno_number(name) if name else 0
        if word not in ("accept", "reject") or len(rest) > (word == "reject") or number is None:
            raise self.error(
                f"{shown(found)}: expected accept or reject [ERRNO]", "verdict", kernel
            )
        return Wanted(True) if word == "accept" else Wanted(False, number, message)

    @property
    def asks(self) -> bool:
        """Whether anything is expected of it."""
        return any(name.rstrip("0123456789. ") in _EXPECTED for name in self.sections)


def has_sections(text: str) -> bool:
    """Return whether *text* is a vector, not a program alone."""
    return any(line.startswith(("--", "==", "=>")) for line in text.splitlines())


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
        if found is None or (found[2] == "accept") != (not found[3]):
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
        self.parts[-1].places[name] = self.number
        sections[name] = text
        self.parts[-1].current = name

    def error(self, message: str) -> LoadError:
        return LoadError(f"{self.origin}:{self.number}: {message}")

    def vectors(self) -> Iterator[Vector]:
        for part in self.parts[1:] or self.parts:
            vector = Vector(
                part.name,
                self.origin,
                part.line,
                part.about,
                part.sections,
                part.first,
                part.places,
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
    places: dict[str, int] = field(default_factory=dict)
    current: str = ""
