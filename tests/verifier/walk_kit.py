"""Programs from assembly to verdicts, for tests of the walk."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from case_kit import verdict_of

from bpfvm.asm import assemble
from bpfvm.program import Program
from bpfvm.rules import NEWEST
from bpfvm.vm import HELPER_IDS
from bpfvm.xlated import Verdict, Xlated

__all__ = ["build", "check", "xlated"]

MAPS = {
    "arena": ".map arena type=arena entries=16 extra=0x100000000000",
    "array": ".map array type=array key=4 value=16 entries=4",
    "hash": ".map hash type=hash key=4 value=16 entries=4",
    "one": ".map one type=array key=4 value=16 entries=1",
}


def build(text: str, prog_type: str = "socket_filter", **changes: Any) -> Program:  # noqa: ANN401
    """Return the program of *text*; maps of `MAPS` are declared by being named."""
    maps = "\n".join(line for name, line in MAPS.items() if f"({name})" in text)
    sleepable = " sleepable" if prog_type == "syscall" else ""
    source = f"{maps}\n.prog p type={prog_type}{sleepable} license=GPL\n{text}"
    program = assemble(source, "test", helpers=HELPER_IDS).programs["p"]
    return replace(program, **changes)


def check(
    text: str,
    prog_type: str = "socket_filter",
    *,
    kernel: str = NEWEST,
    log_level: int = 1,
    mem_size: int | None = None,
    **changes: Any,  # noqa: ANN401
) -> Verdict:
    """Return the verdict on the program of *text*."""
    program = build(text, prog_type, **changes)
    return verdict_of(program, kernel, log_level, mem_size)


def xlated(text: str, prog_type: str = "socket_filter", **changes: Any) -> Xlated:  # noqa: ANN401
    """Return what engines run of the program of *text*, which is accepted."""
    verdict = check(text, prog_type, **changes)
    assert verdict.xlated is not None, verdict.log
    return verdict.xlated
