"""Runs programs the way the vectors ask: in every engine, in the sandbox or verified."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from arena import kfuncs as arena_kfuncs
from arena.arena import ArenaMap
from bpfvm import helpers, kfuncs
from bpfvm.interp import Interpreter
from bpfvm.maps.array import ArrayMap
from bpfvm.maps.base import MapType, MapTypes
from bpfvm.maps.hash import HashMap
from bpfvm.memory import AddressSpace, RegionKind
from bpfvm.program import ObjectFile, Program
from bpfvm.proto import Registry
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES, Engine, Machine, RunContext
from bpfvm.xlated import unverified
from jit.engine import Jit

REGISTRY = Registry([helpers, kfuncs, arena_kfuncs])
HELPER_IDS = {proto.name: number for number, proto in REGISTRY.helpers.items()}
MAP_TYPES = MapTypes({MapType.ARRAY: ArrayMap, MapType.HASH: HashMap, MapType.ARENA: ArenaMap})
ENGINES: dict[str, type[Engine]] = {"interp": Interpreter, "jit": Jit}
BUDGET = 1_000_000


@dataclass
class Outcome:
    """What a sandbox run left behind."""

    r0: int
    mem: bytes
    stderr: str


def machine_for(file: ObjectFile) -> Machine:
    """Return a machine with the live maps of *file*."""
    space = AddressSpace()
    maps = [MAP_TYPES.create(defn, space) for defn in file.maps]
    arenas = [m for m in maps if isinstance(m, ArenaMap)]
    return Machine(space, maps, REGISTRY, arenas[0] if arenas else None)


def run_in_sandbox(
    engine: str,
    program: Program,
    machine: Machine,
    mem: bytes = b"",
    *,
    may_goto_limit: int = 1000,
) -> Outcome:
    """Run *program* unverified, r1 pointing to *mem* (0 where it is empty), r2 its length.

    Raises:
        RunFault: it ended early.
    """
    executable = ENGINES[engine]().link(unverified(program), machine)
    stack = machine.space.add(FRAME_SIZE * MAX_FRAMES, RegionKind.STACK)
    region = machine.space.add(len(mem), RegionKind.MEM) if mem else None
    if region is not None:
        region.view[:] = mem
    run = RunContext(machine, program, stack.base + stack.size, budget=BUDGET)
    run.may_goto_limit = may_goto_limit
    run.rng, run.clock = random.Random(0), itertools.count().__next__
    r0 = executable.run(run, region.base if region else 0, len(mem))
    after = bytes(region.view) if region is not None else b""
    return Outcome(r0, after, run.stderr.data.decode())
