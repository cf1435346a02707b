"""The short form of programs in vectors -> assembly text.

Statements are the assembler's, several to a line with `; ` between, and `Nx STATEMENT` for N of
one. These short forms stand for what most programs begin with:

    find MAP      look key 0 of a hash or array up: r0 may be null
    lookup MAP    the same, and null leads to an exit
    packet N      r2 = start and r3 = end of an xdp packet, r4 = r2 + N proven to lie inside
    arena REG     make REG a pointer into the arena
    reserve N     r0 is a record of N bytes of the ring buffer, or NULL

and the maps `MAPS` are declared by being named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, repeat
from typing import NamedTuple

from bpfvm.insn import MAX_INSNS

__all__ = ["MAPS", "Place", "expand"]

#: Maps that need no `.map` line, as a `.map` line would have them.
MAPS = {
    "hash": "type=hash key=4 value=16 entries=4",
    "array": "type=array key=4 value=16 entries=4",
    "one": "type=array key=4 value=16 entries=1",
    "rdonly": "type=hash key=4 value=16 entries=4 flags=0x80",
    "wronly": "type=hash key=4 value=16 entries=4 flags=0x100",
    "arena": "type=arena entries=16 extra=0x100000000000",
    "ringbuf": "type=ringbuf entries=4096",
    "lock": "type=array key=4 value=16 entries=4 fields=bpf_spin_lock@4",
    "locks": "type=hash key=4 value=16 entries=4 fields=bpf_res_spin_lock@8",
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
    "reserve": "r1 = map(ringbuf)\nr2 = {0}\nr3 = 0\ncall bpf_ringbuf_reserve",
}
#: One too many insns must be sayable.
_MOST = MAX_INSNS + 100
_COMMENT = re.compile(r"(^|\s)(#|//)\s.*")
_REPEATED = re.compile(r"(\d{1,9})x (.*)")


class Place(NamedTuple):
    """Where a line of assembly text comes from: line and column in the short form, from 1;
    *whole*: it stands there as it is."""

    line: int
    col: int
    whole: bool


def expand(text: str) -> tuple[str, list[Place]]:
    """Return the assembly text that *text* stands for, and where each of its lines comes from.

    Raises:
        ValueError: it stands for more statements than a program may have.
    """
    found = list(islice(_statements(text), _MOST + 1))
    if len(found) > _MOST:
        raise ValueError(f"more than {_MOST} statements")
    code = "\n".join(statement for statement, _ in found)
    head = [f".map {name} {spec}\n" for name, spec in MAPS.items() if _is_implied(name, code)]
    places = [Place(1, 1, False)] * len(head)
    for statement, place in found:
        places += [place] * (statement.count("\n") + 1)
    return f"{''.join(head)}{code}\n", places


def _is_implied(name: str, code: str) -> bool:
    named = re.search(rf"map(_value)?\({name}\)", code)
    return named is not None and not re.search(rf"^\s*\.map {name}\b", code, re.MULTILINE)


def _statements(text: str) -> Iterator[tuple[str, Place]]:
    for number, commented in enumerate(text.splitlines(), 1):
        line, at = _COMMENT.sub("", commented), 1
        for statement in [line] if line.startswith(".") else line.split("; "):
            words = statement.split()
            if len(words) == 2 and words[0] in _SHORT:
                yield _SHORT[words[0]].format(words[1]), Place(number, at, False)
            elif repeated := _REPEATED.fullmatch(statement):
                place = Place(number, at, False)
                yield from repeat((repeated[2], place), int(repeated[1]))
            else:
                yield statement, Place(number, at, True)
            at += len(statement) + len("; ")
