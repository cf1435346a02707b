"""The JSON interface's answers from the running kernel: the same stages, the same shapes."""

from __future__ import annotations

import time
from dataclasses import asdict

from bpfvm.bits import u32
from bpfvm.errors import BpfError
from bpfvm.json_request import DumpSpec, Pages, Ranges, Request, RequestError, RunSpec
from bpfvm.kernel import KernelError, KernelMap, KernelObject, KernelProg, refusal
from bpfvm.maps.base import MapType
from bpfvm.program import ObjectFile
from bpfvm.sys_bpf import RunAnswer

__all__ = ["work"]

Answer = dict[str, object]


def work(request: Request, file: ObjectFile, out: Answer) -> None:
    """Answer *request*, whose maps and program are in *file*, stage by stage into *out*.

    Raises:
        RequestError: the kernel can't be asked; the text says why.
    """
    why = refusal()
    if why is not None:
        raise RequestError(f"request: engine: kernel: {why}")
    names = [defn.name for defn in file.maps]
    for name in request.dump:
        if name not in names:
            raise RequestError(f"request: dump: no map {name!r}")
    mapped = frozenset(spec.defn.name for spec in request.maps if spec.mmap)
    try:
        obj = KernelObject(file, mapped)
        created: KernelError | None = None
    except KernelError as error:
        obj, created = KernelObject(ObjectFile("request", {})), error
    with obj:
        out.update(stage="maps", ok=created is None)
        if created is not None:
            out["maps"] = _broken_maps(created, names)
            return
        for spec in request.maps:
            for key, value in spec.init:
                obj.maps[spec.defn.name][key] = value
        if names:
            out["maps"] = {name: _map(live) for name, live in obj.maps.items()}
        for program in file.programs.values():
            prog = obj.load(program, request.log_level)
            _load(prog, out)
            if prog.verdict.ok:
                _use(request, obj, prog, out)


def _broken_maps(error: KernelError, names: list[str]) -> Answer:
    answers: Answer = {}
    for name in names:
        if str(error).startswith(f"map {name} "):
            answers[name] = {"ok": False, "errno": error.errno, "error": str(error)}
            return answers
        answers[name] = {"ok": True}
    answers[names[-1]] = {"ok": False, "errno": error.errno, "error": str(error)}
    return answers


def _map(live: KernelMap) -> Answer:
    answer: Answer = {"ok": True}
    if live.user_vm_start:
        answer["user_vm_start"] = hex(live.user_vm_start)
    return answer


def _load(prog: KernelProg, out: Answer) -> None:
    verdict = prog.verdict
    out["load"] = {
        "ok": verdict.ok,
        "errno": verdict.errno,
        "last": verdict.last,
        "log": verdict.log,
        "stats": asdict(verdict.stats),
        "load_ns": prog.load_ns,
    }
    out.update(stage="load", ok=verdict.ok)


def _use(request: Request, obj: KernelObject, prog: KernelProg, out: Answer) -> None:
    if request.xlated or request.jited:
        xlated, jited = prog.code()
        info = {"xlated": xlated.hex(), "jited": jited.hex()}
        asked = {"xlated": request.xlated, "jited": request.jited}
        out["info"] = {what: code for what, code in info.items() if asked[what]}
    if request.run is not None:
        try:
            out["run"] = _run(prog, request.run)
            out.update(stage="run", ok=True)
        except KernelError as error:
            out["run"] = {"ok": False, "errno": error.errno, "error": str(error)}
            out.update(stage="run", ok=False)
    dumps = {
        name: _dump(obj.maps[name], what)
        for name, what in request.dump.items()
        if what is not False
    }
    if dumps:
        out["dump"] = dumps


def _run(prog: KernelProg, spec: RunSpec) -> Answer:
    runs: list[RunAnswer] = []
    deadline = time.monotonic() + spec.timeout_s
    while len(runs) < spec.times and (not runs or time.monotonic() < deadline):
        left = max(0.001, deadline - time.monotonic())
        runs.append(
            prog.run(ctx=spec.ctx_in, data=spec.data_in, repeat=spec.repeat, timeout_s=left)
        )
    last = runs[-1]
    return {
        "ok": True,
        "retval": last.retval,
        "retvals": sorted({run.retval for run in runs}),
        "times": len(runs),
        "duration_ns": min(run.duration_ns for run in runs),
        "wall_ns": min(run.wall_ns for run in runs),
        "data_out": last.data.hex() if last.data else None,
        "ctx": last.ctx.hex() if last.ctx else None,
    }


def _dump(live: KernelMap, what: DumpSpec) -> object:
    if live.is_arena != isinstance(what, Pages | Ranges):
        return {"error": "an arena is dumped by ranges or pages, another map by true"}
    try:
        if isinstance(what, Pages):
            return [_page(live, addr) for addr in what.pages]
        if isinstance(what, Ranges):
            return [
                {"off": off, "bytes": live.arena_bytes(off, size).hex()}
                for off, size in what.ranges
            ]
        pairs = live.items()
        if live.defn.map_type != MapType.ARRAY:
            pairs.sort()
        return [{"key": key.hex(), "value": value.hex()} for key, value in pairs]
    except BpfError as error:
        return {"error": str(error)}


def _page(live: KernelMap, addr: int) -> Answer:
    data = live.arena_page(u32(addr))
    return {
        "page": hex(addr),
        "present": data is not None,
        "bytes": data.hex() if data is not None else None,
    }
