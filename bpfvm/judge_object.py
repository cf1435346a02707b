"""Judges the programs of an object by the kernel selftests' annotations (`bpfvm.annotations`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bpfvm import isa, vm
from bpfvm.annotations import ANY_VALUE, Annotations, Expectation, LoadMode, read_annotations
from bpfvm.bits import s32
from bpfvm.context import PROG_TYPES
from bpfvm.errors import CannotRun, LoadError, MapError, NotSupported, RunNotSupported, RunRefused
from bpfvm.isa import Kind, LdKind
from bpfvm.judge import Options, Row, fresh, not_supported, told
from bpfvm.loader import load_path
from bpfvm.patterns import Pattern, first_missing
from bpfvm.privileges import PRIVILEGED
from bpfvm.program import MapDef, ObjectFile, Program
from bpfvm.rules import NEWEST
from bpfvm.wordings import What, changes_of, wordings_of
from bpfvm.xlated import Verdict

__all__ = ["tests_in"]

#: Load flags that a program has as a field of its own.
_F_SLEEPABLE = 16


def tests_in(path: str) -> list[tuple[str, Callable[[Options], Row]]]:
    """Return the tests of the object *path*: its programs, each with what judges it; a program
    that is tested without privileges has a second one, its name with ` @unpriv` behind it.

    Raises:
        BpfError: it is no object that can be loaded.
    """
    file = load_path(path, helpers=vm.HELPER_IDS, kfuncs=vm.REGISTRY.kfuncs)
    found: list[tuple[str, Callable[[Options], Row]]] = []
    for name in (*file.programs, *file.broken):
        test = _Test(file, name)
        found += [(row, test.judge_as(row)) for row in test.rows()]
    order = {name: number for number, name in enumerate(file.sections)}
    return sorted(found, key=lambda t: order.get(t[0].removesuffix(_UNPRIV), 0))


_UNPRIV = " @unpriv"


class _Test:
    """One program and its annotations."""

    def __init__(self, file: ObjectFile, name: str) -> None:
        self.file, self.name = file, name
        self.complaint = ""
        self.said: Annotations | None = None
        try:
            self.said = read_annotations(file.tags.get(name, ()))
        except LoadError as err:
            self.complaint = str(err)

    def rows(self) -> Iterator[str]:
        """Yield the names of the rows that the program has."""
        root = self.said is None or self.said.root or not self.said.unprivileged
        if root:
            yield self.name
        if self.said is not None and self.said.unprivileged and not self.said.auxiliary:
            yield self.name + _UNPRIV

    def judge_as(self, row_name: str) -> Callable[[Options], Row]:
        """Return what judges the row *row_name*."""

        def judge(options: Options) -> Row:
            row = Row(self.file.origin, row_name, self.file.sections.get(self.name, ""))
            return self.judge(row, options, unpriv=row_name.endswith(_UNPRIV))

        return judge

    def judge(self, row: Row, options: Options, *, unpriv: bool) -> Row:
        """Judge the program as root, or without privileges."""
        if self.complaint:
            return row.fail(self.complaint)
        said = self.said
        expected = None if said is None else said.unprivileged if unpriv else said.root
        if said is None or (expected is None and not said.auxiliary):
            return row.skip("nothing is expected of it")
        if said.auxiliary or expected is None:
            return row.skip("auxiliary: it is loaded with other programs")
        note_expected(row, expected)
        if not said.is_for_us:
            return row.skip(f"for {' and '.join(sorted(said.archs))}")
        if said.load_mode == LoadMode.NO_JITED:
            return row.skip("for a kernel without JIT")
        if said.btf_path:
            return row.skip(f"not supported yet: BTF of {said.btf_path}")
        broken = self.file.broken.get(self.name)
        if broken is not None:
            why = str(broken).removeprefix(f"{self.file.origin}: program '{self.name}': ")
            return row.skip(why) if isinstance(broken, NotSupported) else row.fail(why)
        return _Judging(self.file, self.name, said, expected, row, options, unpriv).judge()


def note_expected(row: Row, expected: Expectation) -> None:
    """Note in *row* what is expected."""
    row.expected["verdict"] = "accept" if expected.success else "reject"
    for name in ("messages", "xlated", "jited", "stdout", "stderr"):
        patterns: tuple[Pattern, ...] = getattr(expected, name)
        if patterns:
            row.expected[name] = [("not: " if p.absent else "") + p.text for p in patterns]
    if expected.retval is not None and expected.success:
        row.expected["retval"] = "any" if expected.retval == ANY_VALUE else expected.retval


class _Judging:
    """One judgement."""

    def __init__(
        self,
        file: ObjectFile,
        name: str,
        said: Annotations,
        expected: Expectation,
        row: Row,
        options: Options,
        unpriv: bool,
    ) -> None:
        self.file = alone(file, name, said)
        self.name, self.said, self.expected, self.row = name, said, expected, row
        self.options = options
        self.kernel = options.kernel or NEWEST
        self.privileges = said.privileges if unpriv else PRIVILEGED
        self.notes: list[str] = []
        self.broken = file.broken.keys()
        stem = Path(file.origin).name.split(".")[0]
        self.changes = changes_of(stem, name, self.kernel, options.written_for)
        if unpriv:  # whom programs are refused to has not changed
            self.changes.pop(What.VERDICT, None)
            self.changes |= changes_of(stem, name + _UNPRIV, self.kernel, options.written_for)

    def judge(self) -> Row:
        """Fill in the row."""
        try:
            verdict = self.verify()
        except (MapError, NotSupported) as err:
            return self.row.skip(f"not supported yet: {err}")
        self.row.note_verdict(verdict)
        missing = not_supported(verdict)
        if missing is not None:
            return self.row.skip(missing)
        success = self.expected.success
        changed = self.has_changed(What.VERDICT)
        if changed:
            success = not success
        if verdict.ok != success:
            expected = "accept" if success else "reject"
            return self.row.fail(f"expected {expected}, got {told(verdict)}")
        complaint = "" if changed or self.has_changed(What.LOG) else self.check_log(verdict)
        if not complaint and verdict.ok and self.expected.success:
            try:
                complaint = self.check_run(verdict)
            except (CannotRun, NotSupported, RunNotSupported) as err:
                why = str(err).removeprefix(f"{self.name}: ")
                return self.row.skip(f"not supported yet: {why}")
        if complaint:
            return self.row.fail(complaint)
        self.row.why = "; ".join(dict.fromkeys(self.notes))
        return self.row

    def has_changed(self, what: What) -> bool:
        """Return whether *what* of this test is another by now, and note it."""
        change = self.changes.get(what)
        if change is not None:
            self.notes.append(f"{what.value} is not as in the test: {change.why}")
        return change is not None

    def verify(self) -> Verdict:
        prog = fresh(self.file).programs[self.name]
        # libbpf asks again with a log where a program is rejected without one.
        return prog.verify(
            kernel=self.kernel,
            log_level=self.said.log_level or 1,
            privileges=self.privileges,
        )

    def check_log(self, verdict: Verdict) -> str:
        log = verdict.log if self.said.log_level or not verdict.ok else ""
        return self.check("log", log, self.expected.messages)

    def check(self, what: str, text: str, patterns: Sequence[Pattern]) -> str:
        """Return which of *patterns* is not found in *text*, or ""; note what was reworded."""
        if first_missing(text, patterns) is None:
            return ""
        written_for = self.options.written_for
        reworded = [
            replace(p, others=wordings_of(p.text, self.kernel, written_for)[1:]) for p in patterns
        ]
        missing = first_missing(text, reworded)
        if missing is not None:
            return f"{what}: {missing}"
        changed = [p.text for p in reworded if p.others]
        self.notes.append(f"reworded since: {'; '.join(changed)}")
        return ""

    def check_run(self, verdict: Verdict) -> str:
        expected = self.expected
        # Rewriting never moves or adds an insn here, and machine code is LLVM's.
        passed = [name for name in ("xlated", "jited") if getattr(expected, name)]
        if passed:
            self.notes.append(f"{' and '.join(passed)} not compared: ours differ by design")
        if expected.retval is None and not expected.stdout and not expected.stderr:
            return ""
        prog_type = PROG_TYPES[self.file.programs[self.name].prog_type]
        if not prog_type.test_run:
            raise NotSupported(f"test-runs of {prog_type.name} programs")
        if not self.options.run:
            self.notes.append("not run")
            return ""
        held = [slot for m in self.file.maps for slot in m.slots]
        broken = [name for _, name in held if name in self.broken]
        if broken:
            raise NotSupported(f"a program that a map holds: {', '.join(broken)}")
        for engine in self.options.engines:
            complaint = self.run_in(engine, verdict)
            if complaint:
                return f"{engine}: {complaint}"
        return ""

    def run_in(self, engine: str, verdict: Verdict) -> str:
        prog = fresh(self.file).programs[self.name]
        try:
            result = prog.run(
                engine=engine, kernel=self.kernel, privileges=self.privileges, verdict=verdict
            )
        except RunRefused as err:
            return str(err)
        retval, expected = s32(result.r0), self.expected
        if expected.retval not in (None, ANY_VALUE) and not self.has_changed(What.RETVAL):
            if self.row.retval not in (None, retval):
                return f"retval {retval}, the other engine's is {self.row.retval}"
            if expected.retval != retval:
                self.row.retval = retval
                return f"retval {retval}, expected {expected.retval}"
        self.row.retval = retval
        for name, stream in (("stdout", result.stdout), ("stderr", result.stderr)):
            complaint = self.check(name, stream.decode(errors="replace"), getattr(expected, name))
            if complaint:
                return complaint
        return ""


def alone(file: ObjectFile, name: str, said: Annotations) -> ObjectFile:
    """Return *file* with the program *name* as it is said to be loaded, the maps that it needs,
    and the programs that stand in those.

    A map that is not needed may be of a type that is not there yet.
    """
    chosen = {name: _loaded(file.programs[name], said)}
    used: set[int] = set()
    while True:
        needed = {p.insns[slot].imm for p in chosen.values() for slot in _map_slots(p)}
        needed |= used
        held = {held for i in needed for _, held in file.maps[i].slots}
        needed |= {i for i, defn in enumerate(file.maps) if defn.name in held}
        programs = held & file.programs.keys() - chosen.keys()
        if needed == used and not programs:
            break
        used = needed
        chosen |= {held: file.programs[held] for held in sorted(programs)}
    order = {old: number for number, old in enumerate(sorted(used))}
    maps = tuple(file.maps[i] for i in order)
    programs_out = {n: _with_maps(p, maps, order) for n, p in chosen.items()}
    return ObjectFile(file.origin, programs_out, maps)


def _loaded(program: Program, said: Annotations) -> Program:
    flags = (program.flags | said.flags) & ~said.cleared
    sleepable = (program.sleepable or said.flags & _F_SLEEPABLE) and not (
        said.cleared & _F_SLEEPABLE
    )
    return replace(program, flags=flags & ~_F_SLEEPABLE, sleepable=bool(sleepable))


def _with_maps(program: Program, maps: tuple[MapDef, ...], order: Mapping[int, int]) -> Program:
    insns = list(program.insns)
    for slot in _map_slots(program):
        insns[slot] = insns[slot]._replace(imm=order[insns[slot].imm])
    return replace(program, insns=tuple(insns), maps=maps)


def _map_slots(program: Program) -> Iterator[int]:
    """Yield the slots that refer to maps."""
    slot = 0
    while slot < len(program.insns):
        row = isa.lookup(program.insns[slot])
        is_wide = row is not None and row.kind is Kind.LDIMM64
        if row is not None and is_wide and row.op in (LdKind.MAP_IDX, LdKind.MAP_IDX_VALUE):
            yield slot
        slot += 2 if is_wide else 1
