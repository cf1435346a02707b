"""Runs programs the way the vectors ask: in every engine, in the sandbox or verified."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass

from bpfvm import vm
from bpfvm.interp import Interpreter
from bpfvm.memory import RegionKind
from bpfvm.program import ObjectFile, Program
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES, Engine, Machine, RunContext
from bpfvm.xlated import unverified

HELPER_IDS = vm.HELPER_IDS
ENGINES: dict[str, Callable[[], Engine]] = {"interp": Interpreter, "jit": vm.compiler}
BUDGET = 1_000_000


@dataclass
class Outcome:
    """What a sandbox run left behind."""

    r0: int
    mem: bytes
    stderr: str


def machine_for(file: ObjectFile) -> Machine:
    """Return a machine with the live maps of *file*."""
    return vm.Object(file).machine


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
