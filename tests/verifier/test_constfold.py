"""Branches that constants decide, before the walk: 7.3 makes gotos of them, 6.18 does not.

The cases are in folding.txt; 7.3.4 shows the same in its table of live registers.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bpfvm

TEXT = (Path(__file__).resolve().parent / "folding.txt").read_text()
CASES = re.findall(r"^== (.*)\n(.*)\n=> (.*)$", TEXT, re.MULTILINE)
HEAD = (
    ".map fixed type=array key=4 value=12 entries=1 flags=0x80 frozen "
    "image=05000000ff00000007000000\n"
    ".map other type=array key=4 value=12 entries=1 image=05000000ff00000007000000\n"
    ".prog p type=socket_filter license=GPL\n"
)
_ROW = re.compile(r"^ +(?:\d+ )? *\d+: [.\d]{10} \(\w+\) (.*?)(?: +; zext)?$", re.MULTILINE)


def source(text: str) -> str:
    return HEAD + text.replace("; ", "\n") + "\n"


def last_branch(log: str) -> str:
    """Return how the last jump of the program stands in the table of live registers."""
    jump = [text for text in _ROW.findall(log) if "goto" in text][-1]
    found = re.fullmatch(r"goto pc([+-]\d+)", jump)
    if found is None:
        return "stays"
    return "not taken" if found[1] == "+0" else "taken"


@pytest.mark.parametrize(("text", "way"), [pytest.param(*c[1:], id=c[0]) for c in CASES])
def test_what_is_folded(text: str, way: str) -> None:
    (prog,) = bpfvm.assemble(source(text)).programs.values()
    new, old = (prog.verify(kernel=kernel, log_level=2) for kernel in ("7.3", "6.18"))
    assert new.ok, new.log
    assert last_branch(new.log) == way
    assert last_branch(old.log) == "stays"
