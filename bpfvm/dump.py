"""`bpfvm dump`: what the engines run, and what the verifier found, insn by insn."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bpfvm import isa, vm
from bpfvm.console import Report, open_object
from bpfvm.disasm import insn_text, listing_names
from bpfvm.errors import BpfError
from bpfvm.exits import Exit
from bpfvm.isa import Kind
from bpfvm.xlated import InsnAux, Rejected, Xlated

__all__ = ["dump"]

_WIDE = 1000


def dump(file: str, prog: str | None, what: str, unverified: bool) -> int:
    """Print one view of each program."""
    if unverified and what == "types":
        raise BpfError("--types needs the verifier: it does not go with --unverified")
    obj = open_object(file, live=True)
    report = Report(file)
    for p in report.choose(obj, prog):
        try:
            xlated = p.xlated(verify=not unverified)
        except Rejected as error:
            report.complain(f"{p.name}: rejected: {error.verdict.last}")
            continue
        except BpfError as error:
            report.complain(f"{p.name}: {error}", Exit.BAD_INPUT)
            continue
        match what:
            case "xlated":
                _print_listing(xlated)
            case "types":
                _print_types(xlated)
            case "llvm":
                print(vm.compiler().llvm_ir(xlated, optimized=True))
            case _:
                print(vm.compiler().native_text(xlated))
    return report.exit


def _lines(xlated: Xlated) -> Iterator[tuple[int, str, InsnAux]]:
    """Yield slot, text and facts of each insn; second halves of ldimm64 are passed over."""
    names = listing_names(xlated.program, vm.HELPER_IDS)
    skip = False
    for slot, insn in enumerate(xlated.insns):
        if skip:
            skip = False
            continue
        row = isa.lookup(insn)
        skip = row is not None and row.kind is Kind.LDIMM64
        next_imm = xlated.insns[slot + 1].imm if skip else 0
        yield slot, insn_text(insn, next_imm, names), xlated.aux[slot]


def _title(xlated: Xlated) -> str:
    program = xlated.program
    return f"{program.name} ({program.prog_type}{', sleepable' if program.sleepable else ''}):"


def _print_listing(xlated: Xlated) -> None:
    starts = {sub.start: sub.name for sub in xlated.program.subprogs[1:]}
    print(_title(xlated))
    for slot, text, aux in _lines(xlated):
        if slot in starts:
            print(f"{starts[slot]}:")
        print(f"{slot:5}: {text}{'' if aux.seen else '  ; never reached'}")


def _print_types(xlated: Xlated) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column(justify="right")
    for heading in ("insn", "found", "registers before"):
        table.add_column(heading)
    for slot, text, aux in _lines(xlated):
        table.add_row(f"{slot}", Text(text), Text(_found(aux)), Text(aux.regs))
    # Lines are folded for a terminal only.
    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    with console.capture() as captured:
        console.print(table)
    print(_title(xlated))
    for line in captured.get().splitlines():
        print(line.rstrip())


def _found(aux: InsnAux) -> str:
    """Say what the verifier found for one insn: reach, access, call."""
    if not aux.seen:
        return "never reached"
    found = [] if aux.access is None else [aux.access.value]
    if aux.call is not None:
        found.append(aux.call.proto.name)
        if aux.call.proto.is_polymorphic:
            found.append(aux.call.variant.value)
        found.append("sleepable" if aux.call.sleepable else f"in {aux.call.context}")
    return ", ".join(found)
