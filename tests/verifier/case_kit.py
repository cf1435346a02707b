"""The verifier's cases: small programs and what each kernel says of them (`cases/*.txt`).

A case begins with `== name`. Statements are assembly (`bpfvm.asm`), several to a line with `;`
between, `N x` before one for N of them. Short forms:

    find MAP      look key 0 of a hash or array up: r0 may be null
    lookup MAP    the same, and null leads to an exit
    packet N      r2 = start and r3 = end of an xdp packet, r4 = r2 + N proven to lie inside
    arena REG     make REG a pointer into the arena

and maps are declared by being named: `MAPS`. Then, each on its line:

    patch SLOT FIELD=N ...      change an insn to what assembly can't say
    => [KERNEL] accept
    => [KERNEL] ERRNO last line of the log (... at its end: or longer)
    log TEXT                    a rejection's log has it (in every kernel)

Without KERNEL an expectation is for every kernel; a kernel without one is not asked.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import verifier
from bpfvm.asm import assemble
from bpfvm.maps.base import MapType
from bpfvm.program import MapFacts, Program
from bpfvm.rules import KERNELS, NEWEST, KernelRules
from bpfvm.vm import HELPER_IDS, MAP_TYPES, REGISTRY
from bpfvm.xlated import Verdict

__all__ = ["Case", "Expected", "facts_of", "read_cases", "verdict_of"]

CASES = Path(__file__).resolve().parent / "cases"

MAPS = {
    "hash": "type=hash key=4 value=16 entries=4",
    "array": "type=array key=4 value=16 entries=4",
    "one": "type=array key=4 value=16 entries=1",
    "rdonly": "type=hash key=4 value=16 entries=4 flags=0x80",
    "wronly": "type=hash key=4 value=16 entries=4 flags=0x100",
    "arena": "type=arena entries=16 extra=0x100000000000",
}
_FIND = """*(u32 *)(r10 - 4) = 0
r2 = r10
r2 += -4
r1 = map({0})
call bpf_map_lookup_elem"""
_SHORT = {
    "find": _FIND,
    "lookup": _FIND + "\nif r0 != 0 goto +2\nr0 = 0\nexit",
    "packet": """r2 = *(u32 *)(r1 + 0)
r3 = *(u32 *)(r1 + 4)
r4 = r2
r4 += {0}
if r4 <= r3 goto +2
r0 = 0
exit""",
    "arena": "{0} = map(arena)\n{0} = addr_space_cast({0}, 0, 1)",
}
_ENOTSUPP = 524
_PAGE = 4096


@dataclass(frozen=True)
class Expected:
    """A verdict: errno 0 is acceptance; *last* may end in `...`."""

    errno: int
    last: str = ""

    def fits(self, last: str) -> bool:
        """Return whether *last* is the line, or begins with it where it ends in `...`."""
        if self.last.endswith("..."):
            return last.startswith(self.last.removesuffix("..."))
        return last == self.last


@dataclass(frozen=True)
class Case:
    """One program, and the verdict of each kernel."""

    family: str
    name: str
    text: str
    patches: tuple[tuple[int, dict[str, int]], ...] = ()
    expected: dict[str, Expected] = field(default_factory=dict)
    logs: tuple[str, ...] = ()

    def program(self) -> Program:
        """Assemble it."""
        head = "".join(
            f".map {name} {spec}\n"
            for name, spec in MAPS.items()
            if re.search(rf"map(_value)?\({name}\)", self.text)
        )
        (program,) = assemble(head + self.text, self.name, HELPER_IDS).programs.values()
        insns = list(program.insns)
        for slot, fields in self.patches:
            insns[slot] = insns[slot]._replace(**fields)
        return replace(program, insns=tuple(insns))


def facts_of(program: Program) -> tuple[MapFacts, ...]:
    """Return what a verifier knows of the program's maps once they are created."""
    return tuple(
        MapFacts(d, d.map_extra, d.map_extra + d.max_entries * _PAGE)
        if d.map_type == MapType.ARENA
        else MapFacts(d)
        for d in program.maps
    )


def verdict_of(
    program: Program,
    kernel: str = NEWEST,
    log_level: int = 0,
    mem_size: int | None = None,
) -> Verdict:
    """Return the verdict on *program* with its maps created."""
    return verifier.verify(
        program,
        facts_of(program),
        REGISTRY,
        map_types=MAP_TYPES,
        rules=KernelRules.of(kernel),
        log_level=log_level,
        mem_size=mem_size,
    )


def read_cases() -> Iterator[Case]:
    """Yield every case."""
    for path in sorted(CASES.glob("*.txt")):
        for part in re.split(r"^== ", path.read_text(), flags=re.MULTILINE)[1:]:
            yield _read_case(path.stem, part)


def _read_case(family: str, part: str) -> Case:
    name, *lines = part.strip().split("\n")
    code: list[str] = []
    patches, logs = [], []
    expected: dict[str, Expected] = {}
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "=>":
            kernels, verdict = _read_expected(rest)
            expected |= dict.fromkeys(kernels, verdict)
        elif word == "patch":
            slot, *fields = rest.split()
            pairs = (f.split("=") for f in fields)
            patches.append((int(slot), {k: int(v, 0) for k, v in pairs}))
        elif word == "log":
            logs.append(rest)
        else:
            code += [line] if line.startswith(".") else _statements(line)
    return Case(family, name, "\n".join(code) + "\n", tuple(patches), expected, tuple(logs))


def _statements(line: str) -> Iterator[str]:
    for statement in line.split("; "):
        words = statement.split()
        if words and words[0] in _SHORT and len(words) == 2:
            yield _SHORT[words[0]].format(words[1])
        elif repeated := re.match(r"(\d+)x (.*)", statement):
            yield from [repeated[2]] * int(repeated[1])
        else:
            yield statement


def _read_expected(text: str) -> tuple[tuple[str, ...], Expected]:
    word, _, rest = text.partition(" ")
    kernels: tuple[str, ...] = KERNELS
    if word in KERNELS:
        kernels, (word, _, rest) = (word,), rest.partition(" ")
    if word == "accept":
        return kernels, Expected(0)
    return kernels, Expected(_ENOTSUPP if word == "ENOTSUPP" else getattr(errno, word), rest)
