"""Judges one test: a program, what is expected of it, and what verifier and engines make of it.

A `Row` is the answer about one test; this module judges text vectors, `bpfvm.judge_object` the
programs of objects.
"""

from __future__ import annotations

import gc
import itertools
import random
from dataclasses import dataclass, field, replace
from enum import Enum, unique

from bpfvm import vm
from bpfvm.bits import s32, u32, u64
from bpfvm.errnos import errno_name
from bpfvm.errors import AsmError, BpfError, LoadError, RunFault
from bpfvm.flow import check_structure, find_subprogs
from bpfvm.insn import decode
from bpfvm.loader import load_text
from bpfvm.maps.base import MapType
from bpfvm.program import ObjectFile, Program
from bpfvm.rules import NEWEST
from bpfvm.runtime import RunContext
from bpfvm.testrun import MEM
from bpfvm.vectors import Vector, Wanted
from bpfvm.wordings import OLDEST_TESTS
from bpfvm.xlated import Verdict

__all__ = ["Options", "Outcome", "Row", "judge_vector", "program_of"]

#: Insns that a vector without a verdict may execute, and how often its may_gotos fall through.
SANDBOX_BUDGET = 1_000_000
SANDBOX_MAY_GOTO = 1000
_NOT_SUPPORTED, _NOT_SUPPORTED_LINE = "not_supported", "not supported yet: "


@unique
class Outcome(Enum):
    """How a test ended."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Options:
    """How tests are judged.

    Attributes:
        kernel: whose rules apply; None: the newest that the test is for.
        engines: what runs accepted programs.
        run: whether anything runs.
        written_for: the kernel that annotated objects expect (`bpfvm.wordings`).
    """

    kernel: str | None = None
    engines: tuple[str, ...] = vm.ENGINES
    run: bool = True
    written_for: str = OLDEST_TESTS


@dataclass(slots=True)
class Row:
    """The answer about one test, as `bpfvm test --json` gives it.

    Attributes:
        file: where it stands ("object" in JSON).
        program: the program's or the vector's name; ` @unpriv` behind it: without privileges.
        section: the ELF section, or the program's type.
        verdict: "accept" or "reject", None where the verifier was not asked.
        errno: positive, 0 for an accepted program.
        last: the closing complaint.
        retval: what the program returned, 32 bits with sign.
        expected: what was expected, by name.
        why: what a failure failed in, why a test was skipped, or what was passed over.
    """

    file: str
    program: str
    section: str = ""
    verdict: str | None = None
    errno: int | None = None
    last: str | None = None
    retval: int | None = None
    expected: dict[str, object] = field(default_factory=dict)
    outcome: Outcome = Outcome.PASS
    why: str = ""

    def end(self, outcome: Outcome, why: str) -> Row:
        """End with *outcome*, for the reason *why*."""
        self.outcome, self.why = outcome, why
        return self

    def fail(self, why: str) -> Row:
        """End as a failure."""
        return self.end(Outcome.FAIL, why)

    def skip(self, why: str) -> Row:
        """End as a skipped test."""
        return self.end(Outcome.SKIP, why)

    def note_verdict(self, verdict: Verdict) -> None:
        """Note what the verifier said."""
        self.verdict = "accept" if verdict.ok else "reject"
        self.errno, self.last = verdict.errno, verdict.last

    def as_json(self) -> dict[str, object]:
        """Return the row as JSON has it."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {"object": values.pop("file"), **values, "outcome": self.outcome.value}


def told(verdict: Verdict) -> str:
    """Return a verdict in one line."""
    return "accept" if verdict.ok else f"reject {errno_name(verdict.errno)}: {verdict.last}"


def not_supported(verdict: Verdict) -> str | None:
    """Return what a verdict says is not there yet, None where it is a verdict.

    The line may be followed by others, such as that of the call whose arguments were looked at.
    """
    if verdict.ok:
        return None
    if verdict.reason == _NOT_SUPPORTED:
        return verdict.last
    lines = (line for line in verdict.log.splitlines() if line.startswith(_NOT_SUPPORTED_LINE))
    return next(lines, None)


def fresh(file: ObjectFile) -> vm.Object:
    """Return *file* with maps of its own; those that nothing refers to any more make room."""
    if any(m.map_type == MapType.ARENA for m in file.maps):
        gc.collect()
    return vm.Object(file)


# -- vectors ---------------------------------------------------------------------------------------


def program_of(vector: Vector) -> ObjectFile:
    """Return the vector's only program, assembled or decoded, and patched.

    Raises:
        AsmError, LoadError: it does not assemble, or there are several.
    """
    source = vector.source
    file: ObjectFile
    if source is not None:
        try:
            file = load_text(source, vector.origin, vm.HELPER_IDS)
        except AsmError as err:
            raise vector.placed(err) from None
    else:
        place = f"{vector.origin}:{vector.places['raw']}: section raw"
        code = decode(vector.bytes("raw") or b"", place)
        program = Program("main", code, "socket_filter", find_subprogs(code))
        file = ObjectFile(vector.name, {"main": program})
    if len(file.programs) != 1:
        raise vector.error(f"{len(file.programs)} programs, expected one")
    (program,) = file.programs.values()
    patches = vector.patches
    if not patches:
        return file
    insns = list(program.insns)
    for slot, fields in patches:
        if slot >= len(insns):
            raise vector.error(f"no slot {slot}: there are {len(insns)}", "patch")
        insns[slot] = insns[slot]._replace(**fields)
    return replace(file, programs={program.name: replace(program, insns=tuple(insns))})


def judge_vector(vector: Vector, origin: str, options: Options) -> Row:
    """Judge *vector* of the file *origin*."""
    row = Row(origin, vector.name)
    try:
        vector.check()
        return _judge(vector, row, options)
    except BpfError as err:
        return row.fail(str(err).splitlines()[0])


def _judge(vector: Vector, row: Row, options: Options) -> Row:
    if not vector.asks:
        return row.skip("nothing is expected of it")
    kernel = options.kernel or (NEWEST if NEWEST in vector.kernels else vector.kernels[-1])
    if kernel not in vector.kernels:
        return row.skip(f"for kernel {' and '.join(vector.kernels)}")
    complaint = vector.text("error", kernel)
    wanted = vector.wanted(kernel)
    if wanted is None and not any(vector.text(s, kernel) for s in ("error", "result", "fault")):
        return row.skip(f"nothing is expected of kernel {kernel}")
    try:
        file = program_of(vector)
        (program,) = file.programs.values()
        row.section = program.prog_type
        if wanted is None:
            check_structure(program.insns)
    except (AsmError, LoadError) as err:
        if complaint is not None and complaint in str(err):
            row.expected["error"] = complaint
            return row
        return row.fail(str(err).splitlines()[0])
    if complaint is not None:
        return row.fail(f"expected the error {complaint!r}")
    if wanted is not None:
        return _judge_verified(vector, file, wanted, kernel, row, options)
    return _judge_sandboxed(vector, file, kernel, row, options)


def _judge_verified(
    vector: Vector, file: ObjectFile, wanted: Wanted, kernel: str, row: Row, options: Options
) -> Row:
    row.expected["verdict"] = "accept" if wanted.ok else "reject"
    if wanted.errno:
        row.expected["errno"] = wanted.errno
    if wanted.message is not None:
        row.expected["message"] = wanted.message
    (prog,) = fresh(file).programs.values()
    lines = vector.lines("log", kernel)
    # The log of a million insns takes longer to write than they take to verify.
    level = 2 if lines else 0
    verdict = prog.verify(kernel=kernel, log_level=level, privileges=vector.privileges)
    row.note_verdict(verdict)
    missing = not_supported(verdict)
    if missing is not None and (wanted.ok or not wanted.fits(missing)):
        return row.skip(missing)
    if verdict.ok != wanted.ok or wanted.errno not in (0, verdict.errno):
        expected = "accept" if wanted.ok else "reject"
        if wanted.errno:
            expected += f" {errno_name(wanted.errno)}"
        return row.fail(f"expected {expected}, got {told(verdict)}")
    if not wanted.fits(verdict.last):
        return row.fail(f"expected the message {wanted.message!r}, got {verdict.last!r}")
    for line in lines:
        if line not in verdict.log:
            return row.fail(f"expected in the log: {line!r}")
    if not verdict.ok or not _RUN & {name.rstrip("0123456789. ") for name in vector.sections}:
        return row
    # The next instance of an arena needs this one's addresses.
    del prog
    return _run(vector, file, kernel, row, options, verdict)


#: Sections that say something of a verified run.
_RUN = frozenset({"result", "retval", "ctx out", "data out", "stdout", "stderr"})


def _judge_sandboxed(
    vector: Vector, file: ObjectFile, kernel: str, row: Row, options: Options
) -> Row:
    (program,) = file.programs.values()
    # Registers 1 and 2 are address and length of the memory, whatever the type is called.
    sandboxed = replace(file, programs={program.name: replace(program, prog_type=MEM)})
    return _run(vector, sandboxed, kernel, row, options, None)


def _run(
    vector: Vector,
    file: ObjectFile,
    kernel: str,
    row: Row,
    options: Options,
    verdict: Verdict | None,
) -> Row:
    """Run in every engine; without *verdict* in the sandbox."""
    if not options.run:
        row.why = "not run"
        return row
    for name in ("result", "retval", "fault"):
        text = vector.text(name, kernel)
        if text is not None:
            row.expected[name] = text
    chosen = [e for e in vector.engines(vm.ENGINES) if e in options.engines]
    if not chosen:
        return row.skip(f"for engine {' and '.join(vector.engines(vm.ENGINES))}")
    for engine in chosen:
        difference = _run_in(engine, vector, file, kernel, row, verdict)
        if difference:
            return row.fail(f"{engine}: {difference}")
    return row


def _run_in(
    engine: str,
    vector: Vector,
    file: ObjectFile,
    kernel: str,
    row: Row,
    verdict: Verdict | None,
) -> str:
    """Run in *engine* on fresh maps; return what differs from what is expected, or ""."""
    verify = verdict is not None
    (prog,) = fresh(file).programs.values()
    fault = vector.text("fault", kernel)
    try:
        result = prog.run(
            engine=engine,
            ctx=vector.bytes("ctx"),
            data=vector.bytes("data") if verify else vector.bytes("mem"),
            verify=verify,
            budget=None if verify else SANDBOX_BUDGET,
            kernel=kernel,
            setup=_reproducible if verify else _sandboxed,
            privileges=vector.privileges,
            verdict=verdict,
        )
    except RunFault as ended:
        return "" if fault is not None and str(ended).startswith(fault) else f"ended early: {ended}"
    if fault is not None:
        return f"expected it to end early: {fault}"
    row.retval = s32(result.r0)
    return _compare(vector, kernel, result, "data out" if verify else "mem out")


def _reproducible(run: RunContext) -> None:
    run.rng, run.clock = random.Random(0), itertools.count().__next__


def _sandboxed(run: RunContext) -> None:
    _reproducible(run)
    run.may_goto_limit = SANDBOX_MAY_GOTO


def _compare(vector: Vector, kernel: str, result: vm.Result, data_out: str) -> str:
    wanted = vector.number("result", kernel)
    if wanted is not None and u64(wanted) != result.r0:
        return f"r0 = {result.r0:#x}, expected {u64(wanted):#x}"
    wanted = vector.number("retval", kernel)
    if wanted is not None and u32(wanted) != u32(result.r0):
        return f"retval {s32(result.r0)}, expected {s32(wanted)}"
    for name, found in (("ctx out", result.ctx), (data_out, result.data)):
        expected = vector.bytes(name)
        if expected is not None and expected != found:
            return f"{name}: {found.hex(' ')}"
    for name, stream in (("stdout", result.stdout), ("stderr", result.stderr)):
        for line in vector.lines(name, kernel):
            if line not in stream.decode(errors="replace"):
                return f"expected on {name}: {line!r}"
    return ""
