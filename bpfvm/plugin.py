"""bpf_conformance's plugin protocol: one program on stdin, one result on stdout.

The runner calls `PLUGIN [MEMHEX] [options] [--elf]`. Memory comes first when a test has any, and
else the first argument is an option already. All hex may hold blanks. Programs run in the
sandbox, entered with r1 = memory (or 0) and r2 = its length.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bpfvm import vm
from bpfvm.errors import BpfError, RunFault, bug_report
from bpfvm.exits import Exit
from bpfvm.loader import load_function
from bpfvm.testrun import MEM

__all__ = ["command", "main"]


@dataclass(frozen=True, slots=True)
class _Order:
    """What the arguments ask for."""

    memory: bytes | None = None
    program: str | None = None
    engine: str = "interp"
    elf: bool = False


def main() -> int:
    """Serve as the process `bpfvm-plugin`."""
    return command(tuple(sys.argv[1:]))


def command(arguments: Sequence[str]) -> int:
    """Run the program on stdin and print r0; complaints go to stderr."""
    try:
        order = _read(arguments)
        text = sys.stdin.read() if order.program is None else order.program
        result = _run(_hex(text, "the program"), order)
    except RunFault as error:
        print(error, file=sys.stderr)
        return Exit.FAILED
    except BpfError as error:
        print(error, file=sys.stderr)
        return Exit.BAD_INPUT
    except Exception as error:  # a bug of ours: here as in __main__
        print(bug_report(error), file=sys.stderr)
        return Exit.BUG
    print(f"{result:x}")
    return Exit.FINE


def _run(code: bytes, order: _Order) -> int:
    if order.elf:
        obj = vm.Object(load_function(code, "stdin", "main", MEM))
    else:
        obj = vm.from_bytes(code, MEM)
    return obj.programs["main"].run(engine=order.engine, data=order.memory, verify=False).r0


def _read(arguments: Sequence[str]) -> _Order:
    left = list(arguments)
    # An empty first argument stands for no memory.
    memory = None
    if left and not left[0].startswith("-"):
        memory = _hex(left.pop(0), "the memory") or None
    engine, elf, program = "interp", False, None
    while left:
        match left.pop(0):
            case "--jit":
                engine = "jit"
            case "--interp":
                engine = "interp"
            case "--elf":
                elf = True
            case "--program" if left:
                program = left.pop(0)
            case "":
                pass
            case other:
                raise BpfError(f"unknown option {other!r}")
    return _Order(memory, program, engine, elf)


def _hex(text: str, what: str) -> bytes:
    try:
        return bytes.fromhex("".join(text.split()))
    except ValueError:
        raise BpfError(f"{what} is not hex bytes") from None
