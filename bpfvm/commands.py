"""What the commands do: `run`, `verify`, `disasm`, `asm`."""

from __future__ import annotations

import sys
from pathlib import Path

from bpfvm import vm
from bpfvm.console import Report, open_object
from bpfvm.context import PROG_TYPES
from bpfvm.disasm import disassemble
from bpfvm.errnos import errno_name
from bpfvm.errors import BpfError, RunFault
from bpfvm.exits import Exit
from bpfvm.insn import encode
from bpfvm.runtime import RunContext, Stream
from bpfvm.xlated import Rejected, Verdict

__all__ = ["asm", "disasm", "run", "verify"]


def run(
    file: str,
    engine: str,
    prog: str | None,
    ctx: str | None,
    data: str | None,
    unverified: bool,
    budget: int | None,
    unpriv: bool,
    advance: int | None,
) -> int:
    """`bpfvm run`: run programs and print what they return and write."""
    if budget is not None and not unverified:
        raise BpfError("--budget needs --unverified: a verified program has no budget")
    ctx_bytes = None if ctx is None else _hex(ctx, "--ctx")
    packet = None if data is None else _read(data)
    if unpriv and unverified:
        raise BpfError("--unpriv is for the verifier: it says nothing to --unverified")
    obj = open_object(file, live=True)
    report = Report(file)
    progs = report.choose(obj, prog)
    if packet is not None and not any(PROG_TYPES[p.program.prog_type].packet for p in progs):
        raise BpfError(f"{file}: --data: no program here takes a packet")
    width = max((len(p.name) for p in progs), default=0)
    for p in progs:
        takes_packet = PROG_TYPES[p.program.prog_type].packet
        runs: list[RunContext] = []
        try:
            result = p.run(
                engine=engine,
                ctx=ctx_bytes,
                data=packet if takes_packet else None,
                verify=not unverified,
                budget=budget,
                unpriv=unpriv,
                setup=runs.append,
            )
        except Rejected as error:
            report.complain(f"{p.name}: rejected: {_complaint(error.verdict)}")
        except RunFault as error:
            report.complain(f"{p.name}: ended early: {error}")
        except BpfError as error:
            report.complain(f"{p.name}: {error}", Exit.BAD_INPUT)
        else:
            time = _duration(result.duration_ns)
            print(f"{p.name:<{width}}  {engine:<6}  r0 = {result.r0:#x} ({result.r0})  {time}")
        for started in runs:
            _print_streams(started)
    if advance is not None:
        for fired in obj.advance(advance):
            print(f"{fired.prog:<{width}}  {fired.kind} at {fired.time} ns")
            _print_streams(fired)
    return report.exit


def _hex(text: str, option: str) -> bytes:
    try:
        return bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raise BpfError(f"{option}: not hex bytes: {text!r}") from None


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BpfError(f"{path}: {error.strerror}") from None


def _duration(ns: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns} ns"


def _print_streams(started: RunContext | vm.Fired) -> None:
    streams = ("stdout", started.stdout), ("stderr", started.stderr), ("trace", started.trace)
    for name, stream in streams:
        data = stream.data if isinstance(stream, Stream) else stream
        for line in bytes(data).decode(errors="replace").splitlines():
            print(f"  {name}: {line}")


def _complaint(verdict: Verdict) -> str:
    return f"{verdict.last} ({errno_name(verdict.errno)}, {verdict.reason})"


def verify(
    file: str,
    prog: str | None,
    log_level: int,
    kernel: str,
    unpriv: bool,
    vmlinux: str | None,
) -> int:
    """`bpfvm verify`: print each program's log and verdict."""
    if vmlinux is not None:
        vm.use_kernel_types(vmlinux)
    obj = open_object(file, live=True)
    report = Report(file)
    for p in report.choose(obj, prog):
        try:
            verdict = p.verify(kernel=kernel, log_level=log_level, unpriv=unpriv)
        except BpfError as error:
            report.complain(f"{p.name}: {error}", Exit.BAD_INPUT)
            continue
        if verdict.log:
            print(verdict.log.rstrip("\n"))
        if verdict.ok:
            print(f"{p.name}: accepted")
        else:
            print(f"{p.name}: rejected: {_complaint(verdict)}")
            report.exit = max(report.exit, Exit.FAILED)
    return report.exit


def disasm(file: str, prog: str | None) -> int:
    """`bpfvm disasm`: print programs as assembly text."""
    obj = open_object(file)
    report = Report(file)
    progs = report.choose(obj, prog)
    what = obj.file if prog is None else progs[0].program if progs else None
    if what is not None:
        print(disassemble(what, vm.HELPER_IDS), end="")
    return report.exit


def asm(file: str, output: str, prog: str | None) -> int:
    """`bpfvm asm`: write the raw insns of one program."""
    obj = open_object(file)
    report = Report(file)
    progs = report.choose(obj, prog)
    if report.exit:
        return report.exit
    if len(progs) > 1:
        names = ", ".join(p.name for p in progs)
        raise BpfError(f"{file}: {len(progs)} programs: choose one with --prog: {names}")
    code = _raw(file, progs[0])
    if output == "-":
        sys.stdout.buffer.write(code)
        return Exit.FINE
    try:
        Path(output).write_bytes(code)
    except OSError as error:
        raise BpfError(f"{output}: {error.strerror}") from None
    return Exit.FINE


def _raw(file: str, prog: vm.Prog) -> bytes:
    # Raw bytes carry no tables of names, so what refers to one would lose its meaning.
    program = prog.program
    if program.kfuncs:
        raise BpfError(f"{file}: raw insns can't hold calls of kfuncs: {', '.join(program.kfuncs)}")
    if program.maps:
        names = ", ".join(m.name for m in program.maps)
        raise BpfError(f"{file}: raw insns can't hold maps: {names}")
    return encode(program.insns)
