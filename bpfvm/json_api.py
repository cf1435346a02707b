"""The JSON interface: one request a line in, one answer a line out, in order.

Whatever a line holds it gets an answer, and the loop goes on. Reading requests is
`bpfvm.json_request`'s job; here programs are built from them, verified, run and looked at.
"""

from __future__ import annotations

import errno
import gc
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import BinaryIO

from bpfvm import json_kernel, vm
from bpfvm.bits import s32, u32
from bpfvm.context import PROG_TYPES
from bpfvm.errnos import ENOTSUPP
from bpfvm.errors import BpfError, MapError, RunFault, RunRefused, bug_report
from bpfvm.exits import Exit
from bpfvm.flow import check_structure, find_subprogs
from bpfvm.insn import Insn, decode, encode
from bpfvm.isa import CallKind, LdKind
from bpfvm.json_request import (
    DumpSpec,
    FixupSpec,
    FuncSpec,
    Pages,
    ProgFlags,
    Ranges,
    Request,
    RequestError,
    RunSpec,
    read_request,
)
from bpfvm.maps.base import Map, MapFlags, MapType
from bpfvm.memory import PAGE_SIZE
from bpfvm.program import FuncRecord, MapDef, ObjectFile, Program, Subprog
from bpfvm.runtime import RunContext
from bpfvm.xlated import Verdict

__all__ = ["answer", "answer_line", "serve"]

Answer = dict[str, object]


def serve(stdin: BinaryIO | None = None) -> int:
    """`bpfvm json`: answer every line of *stdin* on stdout."""
    gc.freeze()  # what is there now stays: the collections to come need not look at it
    for line in stdin or sys.stdin.buffer:
        if line.strip():
            print(json.dumps(answer_line(line)), flush=True)
    return Exit.FINE


def answer_line(line: bytes) -> Answer:
    """Return the answer to one line, whatever it holds."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {"ok": False, "stage": "request", "error": f"not JSON: {error}"}
    return answer(value)


def answer(value: object) -> Answer:
    """Return the answer to one request, as the JSON value that it is."""
    out: Answer = {"ok": False, "stage": "request"}
    if isinstance(value, dict) and "name" in value:
        out["name"] = value["name"]
    try:
        request = read_request(value)
        if request.engine == "kernel":
            json_kernel.work(request, _object_file(request), out)
        else:
            _Work(request, out).do()
    except BpfError as error:
        out.update(ok=False, error=str(error))
    except Exception as error:  # a bug of ours: told in the answer, the next request goes on
        out.update(ok=False, error=bug_report(error))
    # The next request may want the addresses of this one's arena.
    gc.collect()
    return out


class _Work:
    """The work on one request; *out* is filled in stage by stage."""

    def __init__(self, request: Request, out: Answer) -> None:
        self.request, self.out = request, out
        self.obj = vm.Object(_object_file(request))
        names = [defn.name for defn in self.obj.file.maps]
        for name in request.dump:
            if name not in names:
                raise RequestError(f"request: dump: no map {name!r}")

    def do(self) -> None:
        """Go through the stages, as far as they succeed and are asked for."""
        if not self.create_maps() or not self.obj.programs:
            return
        (prog,) = self.obj.programs.values()
        if not self.load(prog):
            return
        if self.request.xlated or self.request.jited:
            self.out["info"] = self.info(prog)
        if self.request.run is not None:
            self.run(prog, self.request.run)
        dumps = {
            name: self.dump(self.obj.maps[name], what)
            for name, what in self.request.dump.items()
            if what is not False
        }
        if dumps:
            self.out["dump"] = dumps

    def stage(self, stage: str, ok: bool) -> None:
        self.out.update(stage=stage, ok=ok)

    # -- maps ----------------------------------------------------------------------------------

    def create_maps(self) -> bool:
        answers: dict[str, Answer] = {}
        mapped = {spec.defn.name for spec in self.request.maps if spec.mmap}
        for defn in self.obj.file.maps:
            try:
                vm.MAP_TYPES.check(defn)
                if defn.name in mapped:
                    _check_mmap(defn)
                answers[defn.name] = {"ok": True}
            except MapError as error:
                answers[defn.name] = _refused(error)
        ok = all(a["ok"] for a in answers.values())
        if ok and answers:
            ok = self.fill_maps(answers)
        if answers:
            self.out["maps"] = answers
        self.stage("maps", ok)
        return ok

    def fill_maps(self, answers: dict[str, Answer]) -> bool:
        last = next(reversed(answers))
        unmapped = {spec.defn.name for spec in self.request.maps if not spec.mmap}
        try:
            facts = []
            for live in self.obj.machine.maps:
                name, is_arena = live.defn.name, live.defn.map_type == MapType.ARENA
                known = live.facts()
                if is_arena and name in unmapped and not live.defn.map_extra:
                    # User space has not said yet where the arena is to be.
                    known = replace(known, user_vm_start=0, user_vm_end=0)
                elif name not in unmapped and live.defn.flags & MapFlags.MMAPABLE:
                    answers[name]["user_vm_start"] = hex(live.value_addr(0))
                facts.append(known)
            self.obj.facts = tuple(facts)
            for spec in self.request.maps:
                last = spec.defn.name
                for key, value in spec.init:
                    self.obj.maps[last][key] = value
        except BpfError as error:
            # Creation as a whole failed (no memory, an address that is taken), or a value did.
            answers[last] = _refused(error)
            return False
        return True

    @property
    def mem_size(self) -> int:
        """Bytes behind r1 in a program of type "mem"."""
        return len(self.request.run.data_in or b"") if self.request.run is not None else 0

    # -- load ----------------------------------------------------------------------------------

    def load(self, prog: vm.Prog) -> bool:
        start = time.perf_counter_ns()
        try:
            if self.request.verify:
                verdict = prog.verify(
                    kernel=self.request.kernel,
                    log_level=self.request.log_level,
                    mem_size=self.mem_size,
                    privileges=self.request.privileges,
                )
            else:
                check_structure(prog.program.insns)
                verdict = Verdict(ok=True)
        except BpfError as error:
            verdict = Verdict(ok=False, errno=_errno_of(error), last=str(error))
        self.out["load"] = {
            "ok": verdict.ok,
            "errno": verdict.errno,
            "last": verdict.last,
            "reason": verdict.reason,
            "log": verdict.log,
            "stats": asdict(verdict.stats),
            "load_ns": time.perf_counter_ns() - start,
        }
        self.stage("load", verdict.ok)
        return verdict.ok

    def info(self, prog: vm.Prog) -> Answer:
        xlated = prog.xlated(
            verify=self.request.verify,
            kernel=self.request.kernel,
            mem_size=self.mem_size,
            privileges=self.request.privileges,
        )
        info: Answer = {}
        if self.request.xlated:
            info["xlated"] = encode(xlated.insns).hex()
        if self.request.jited:
            info["jited"] = vm.compiler().native_code(xlated).hex()
        return info

    # -- run -----------------------------------------------------------------------------------

    def run(self, prog: vm.Prog, spec: RunSpec) -> None:
        runs: list[RunContext] = []
        measured: list[tuple[vm.Result, int]] = []
        error: BpfError | None = None
        deadline = time.monotonic() + spec.timeout_s
        try:
            while len(measured) < spec.times and (not measured or time.monotonic() < deadline):
                start = time.perf_counter_ns()
                result = prog.run(
                    engine=self.request.engine,
                    ctx=spec.ctx_in,
                    data=spec.data_in,
                    verify=self.request.verify,
                    budget=self.request.budget,
                    kernel=self.request.kernel,
                    privileges=self.request.privileges,
                    repeat=spec.repeat,
                    timeout_s=max(0.0, deadline - time.monotonic()),
                    setup=runs.append,
                )
                measured.append((result, time.perf_counter_ns() - start))
        except BpfError as caught:
            error = caught
        run: Answer = {
            **(_ended(error) if error is not None else _measured(measured)),
            **(_left_behind(runs[-1]) if runs else {}),
        }
        prog_type = PROG_TYPES.get(prog.program.prog_type)
        if spec.ctx_in is None and prog_type is not None and prog_type.fields is not None:
            run["ctx"] = None  # a struct comes out only where one went in
        self.out["run"] = run
        self.stage("run", error is None)

    # -- dumps ---------------------------------------------------------------------------------

    def dump(self, live: Map, what: DumpSpec) -> object:
        is_arena = live.defn.map_type == MapType.ARENA
        if is_arena != isinstance(what, Pages | Ranges):
            return {"error": "an arena is dumped by ranges or pages, another map by true"}
        try:
            if isinstance(what, Pages):
                return [self.page(addr) for addr in what.pages]
            if isinstance(what, Ranges):
                return [self.arena_range(off, size) for off, size in what.ranges]
            keys = list(live.keys_in_order())
            if live.defn.map_type != MapType.ARRAY:
                keys.sort()
            return [{"key": key.hex(), "value": live[key].hex()} for key in keys]
        except BpfError as error:
            return {"error": str(error)}

    def page(self, addr: int) -> Answer:
        # As programs see it: presence is asked for, nothing is faulted in.
        arena, start = self.obj.arena, u32(addr) & -PAGE_SIZE
        present = arena.is_present(start, PAGE_SIZE)
        data = arena.band[start : start + PAGE_SIZE].hex() if present else None
        return {"page": hex(addr), "present": present, "bytes": data}

    def arena_range(self, off: int, size: int) -> Answer:
        arena = self.obj.arena
        data = bytes(arena.view(arena.user_vm_start + off, size))
        return {"off": off, "bytes": data.hex()}


def _check_mmap(defn: MapDef) -> None:
    """Refuse what mmap(2) of a map refuses."""
    if defn.map_type not in (MapType.ARENA, MapType.ARRAY):
        raise MapError(f"map {defn.name}: this type of map can't be mapped", ENOTSUPP)
    if not defn.flags & MapFlags.MMAPABLE:
        raise MapError(f"map {defn.name}: mapping it needs the flag mmapable", errno.EINVAL)


def _refused(error: BpfError) -> Answer:
    return {"ok": False, "errno": _errno_of(error), "error": str(error)}


def _errno_of(error: BpfError) -> int:
    return error.errno if isinstance(error, MapError | RunRefused) else errno.EINVAL


def _ended(error: BpfError) -> Answer:
    if isinstance(error, RunFault):
        return {"ok": False, "error": str(error)}
    return _refused(error)


def _measured(measured: list[tuple[vm.Result, int]]) -> Answer:
    last = measured[-1][0]
    return {
        "ok": True,
        "retval": u32(last.r0),
        "r0": hex(last.r0),
        "retvals": sorted({u32(result.r0) for result, _ in measured}),
        "times": len(measured),
        "duration_ns": min(result.duration_ns for result, _ in measured),
        "wall_ns": min(wall for _, wall in measured),
        "data_out": last.data.hex() if last.data else None,
        "ctx": last.ctx.hex() if last.ctx else None,
    }


def _left_behind(run: RunContext) -> Answer:
    return {
        "stdout": bytes(run.stdout.data).decode(errors="replace"),
        "stderr": bytes(run.stderr.data).decode(errors="replace"),
        "trace": bytes(run.trace).decode(errors="replace"),
        "faults": [{"insn": f.insn, "addr": hex(f.addr), "write": f.write} for f in run.faults],
    }


# -- from a request to a program ---------------------------------------------------------------


def _object_file(request: Request) -> ObjectFile:
    """Build the one program, or none, and the maps that *request* describes."""
    base = _base_file(request)
    maps = (*base.maps, *(spec.defn for spec in request.maps))
    index = {defn.name: i for i, defn in enumerate(maps)}
    if len(index) < len(maps):
        raise RequestError("request: maps: a map is also declared in the text")
    programs: dict[str, Program] = {}
    for name, program in base.programs.items():
        insns, kfuncs = list(program.insns), list(program.kfuncs)
        for fixup in request.fixups:
            _apply(fixup, insns, kfuncs, index)
        code = tuple(insns)
        programs[name] = replace(
            program,
            insns=code,
            kfuncs=tuple(kfuncs),
            maps=maps,
            subprogs=_subprogs(code, program.subprogs, request.funcs),
            func_info=tuple(FuncRecord(f.insn) for f in request.funcs) or None,
            line_info=request.lines,
        )
    return ObjectFile("request", programs, maps)


def _base_file(request: Request) -> ObjectFile:
    if request.asm is not None:
        file = vm.assemble(request.asm, "asm").file
        if len(file.programs) != 1:
            names = ", ".join(file.programs) or "none"
            raise RequestError(f"request: asm: expected one program, found {names}")
        ((name, program),) = file.programs.items()
        if request.prog_type is not None:
            program = replace(program, prog_type=request.prog_type)
    elif request.insns is not None:
        file = ObjectFile("request", {})
        name, code = "main", decode(request.insns, "request: insns")
        program = Program(name, code, request.prog_type or "socket_filter")
    elif request.fixups or request.funcs or request.lines or request.run:
        raise RequestError("request: no insns and no asm")
    else:
        return ObjectFile("request", {})
    if request.flags is not None:
        program = replace(
            program,
            sleepable=bool(request.flags & ProgFlags.SLEEPABLE),
            flags=request.flags & ~ProgFlags.SLEEPABLE,
        )
    if request.license is not None:
        program = replace(program, license=request.license)
    if request.expected_attach_type is not None:
        program = replace(program, expected_attach_type=request.expected_attach_type)
    return ObjectFile("request", {name: program}, file.maps)


def _apply(fixup: FixupSpec, insns: list[Insn], kfuncs: list[str], maps: Mapping[str, int]) -> None:
    """Set the fields of one insn that name something."""
    place = f"request: fixup of insn {fixup.insn}"
    wide = fixup.kind in ("map_fd", "map_value", "func")
    if fixup.insn + (2 if wide else 1) > len(insns):
        raise RequestError(f"{place}: the program has {len(insns)} slots")
    next_imm = 0
    match fixup.kind:
        case "map_fd" | "map_value":
            if fixup.name not in maps:
                raise RequestError(f"{place}: no map {fixup.name!r}")
            is_value = fixup.kind == "map_value"
            src = (LdKind.MAP_IDX_VALUE if is_value else LdKind.MAP_IDX).value
            imm, next_imm = maps[fixup.name], fixup.off
        case "kfunc":
            if fixup.name not in kfuncs:
                kfuncs.append(fixup.name)
            src, imm = CallKind.KFUNC.value, kfuncs.index(fixup.name)
        case "func":
            src, imm = LdKind.FUNC.value, fixup.target - fixup.insn - 1
        case _:
            src, imm = CallKind.LOCAL.value, fixup.target - fixup.insn - 1
    insns[fixup.insn] = insns[fixup.insn]._replace(src=src, imm=s32(imm))
    if wide:
        insns[fixup.insn + 1] = insns[fixup.insn + 1]._replace(imm=s32(next_imm))


def _subprogs(
    code: tuple[Insn, ...], named: tuple[Subprog, ...], funcs: tuple[FuncSpec, ...]
) -> tuple[Subprog, ...]:
    """Return the subprogs of *code*, with what *funcs* (BTF) or the text tell of them."""
    names = {sub.start: sub.name for sub in named} | {f.insn: f.name for f in funcs}
    found = find_subprogs(code, names)
    told = {f.insn: f for f in funcs}
    links = {sub.start: sub for sub in named}
    return tuple(
        replace(sub, linkage=f.linkage, params=f.params, ret=f.ret)
        if (f := told.get(sub.start))
        else replace(links.get(sub.start, sub), start=sub.start, end=sub.end)
        for sub in found
    )
