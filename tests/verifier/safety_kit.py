"""Accepted means safe: an accepted program runs, and what its registers hold is compared with what
the verifier knew on the very same path.

The verifier walks the program once more without pruning, so that every path has its own states;
they are kept by path. Then the interpreter, which checks every access, runs the program insn by
insn: before each, every register that the verifier calls a number must be a member of its scalar,
and a pointer into the stack must point where it says. A path that the verifier never walked is a
violation too: it took some branch for impossible.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import verifier
from bpfvm import interp, testrun, vm
from bpfvm.context import PROG_TYPES
from bpfvm.errors import InternalError
from bpfvm.flow import Block
from bpfvm.isa import Kind, lookup
from bpfvm.maps.base import MapType
from bpfvm.program import MapFacts, ObjectFile, Program
from bpfvm.rules import KernelRules
from bpfvm.runtime import FRAME_SIZE, Machine, RunContext
from bpfvm.xlated import Verdict, Xlated
from verifier import bounds, explore
from verifier.env import Env, Step
from verifier.state import FuncState, RegState, RegType, VerifierState

__all__ = ["IS_PURE", "Checked", "check", "object_of"]

#: The walk is recorded by replacing functions, which compiled code does not see.
IS_PURE = str(explore.__file__).endswith(".py")

#: Insns that the unpruned walk may process, and a run execute, before they are given up.
MAX_WALK, MAX_RUN = 20_000, 5_000
#: How often a may_goto falls through.
_MAY_GOTO = 3
_BIG = (1 << 31, 1 << 32, 1 << 63, 0)

_Regs = tuple[RegState, ...]


@dataclass(frozen=True, slots=True)
class Checked:
    """What came out: a violation in words or "", and whether paths were compared at all."""

    violation: str = ""
    by_path: bool = False


class _Paths:
    """The states of an unpruned walk by path: a hash of the insns so far."""

    def __init__(self) -> None:
        self.states: dict[int, _Regs] = {}
        self.of: dict[int, int] = {}  # id of a living state: its path
        self.alive: list[VerifierState] = []

    def note(self, state: VerifierState, idx: int) -> None:
        path = hash((self.of.get(id(state), 0), idx))
        if id(state) not in self.of:
            self.alive.append(state)
        self.of[id(state)] = path
        self.states[path] = tuple(state.frames[-1].regs)

    def inherit(self, old: VerifierState, new: VerifierState) -> None:
        self.of[id(new)] = self.of.get(id(old), 0)
        self.alive.append(new)


@contextmanager
def _recording(paths: _Paths) -> Iterator[None]:
    """Let the verifier walk without pruning, and keep its states."""
    compile_step, copy = explore.compile_step, VerifierState.copy
    covered, limit = explore.Walk._is_covered, explore.MAX_PROCESSED

    def observed(env: Env, idx: int) -> Step:
        step = compile_step(env, idx)

        def observe(env: Env, frame: FuncState) -> int:
            paths.note(env.cur, idx)
            return step(env, frame)

        return observe

    def inherited(state: VerifierState) -> VerifierState:
        new = copy(state)
        paths.inherit(state, new)
        return new

    explore.compile_step = observed
    VerifierState.copy = inherited  # type: ignore[method-assign,assignment]
    explore.Walk._is_covered = lambda *_: False  # type: ignore[method-assign]
    explore.MAX_PROCESSED = MAX_WALK
    try:
        yield
    finally:
        explore.compile_step, explore.MAX_PROCESSED = compile_step, limit
        VerifierState.copy = copy  # type: ignore[method-assign]
        explore.Walk._is_covered = covered  # type: ignore[method-assign]


def _verify(program: Program, facts: tuple[MapFacts, ...], kernel: str) -> Verdict:
    return verifier.verify(
        program,
        facts,
        vm.REGISTRY,
        map_types=vm.MAP_TYPES,
        rules=KernelRules.of(kernel),
        log_level=0,
    )


class _Traced(interp._Program):
    """The interpreter's program with a block for each insn; *visit* is called before each."""

    def __init__(self, xlated: Xlated, machine: Machine) -> None:
        super().__init__(xlated, machine)

        self._blocks.clear()
        slot = 0
        while slot < len(xlated.insns):
            row = lookup(xlated.insns[slot])
            end = slot + (2 if row is not None and row.kind is Kind.LDIMM64 else 1)
            self._blocks[slot] = partial(self._compile_and_run, Block(slot, end, 1))
            slot = end
        self.violation = ""
        self.paths: _Paths | None = None
        self.executed = 0
        self.is_inside = False

    def loop(self, r: list[int], state: interp.State, pc: int) -> None:
        """Run as ever, but stop to look before each insn (of the program, not of callbacks)."""
        if self.is_inside:
            super().loop(r, state, pc)
            return
        self.is_inside = True
        path = 0
        top = r[10]
        while pc >= 0 and self.executed < MAX_RUN:
            self.executed += 1
            if self.paths is not None and not self.violation:
                path = hash((path, pc))
                regs = self.paths.states.get(path)
                if regs is None:
                    self.violation = f"insn {pc}: the verifier did not walk this path"
                else:
                    self.violation = _first_outside(pc, regs, r, top)
            pc = self._blocks[pc](r, state)


def _first_outside(pc: int, regs: _Regs, r: list[int], top: int) -> str:
    for number, reg in enumerate(regs):
        value = r[number]
        if reg.type is RegType.SCALAR:
            if not bounds.contains(reg.scalar, value):
                return f"insn {pc}: r{number} is {value:#x}, not {bounds.scalar_text(reg.scalar)}"
        elif reg.type is RegType.STACK:
            offset = value - (top - reg.arg * FRAME_SIZE) - reg.off
            if not bounds.contains(reg.scalar, offset):
                return f"insn {pc}: r{number} is fp{offset + reg.off:+}, not as known"
    return ""


def object_of(program: Program) -> vm.Object:
    """Return *program* alone as an object."""
    return vm.Object(ObjectFile("campaign", {program.name: program}, program.maps))


def check(program: Program, kernel: str, inputs: int = 4, seed: int = 0) -> Checked:
    """Run an accepted program on some random inputs and compare as the module says."""
    anywhere = replace(
        program,
        maps=tuple(replace(d, map_extra=0) for d in program.maps),
    )
    obj = object_of(anywhere)
    machine, facts = obj.machine, obj.facts
    verdict = _verify(anywhere, facts, kernel)
    if verdict.xlated is None:
        return Checked()
    paths = _Paths()
    with _recording(paths):
        unpruned = _verify(anywhere, facts, kernel)
    if not unpruned.ok and unpruned.reason != "too_large":
        return Checked(f"without pruning it is rejected: {unpruned.last}", True)
    traced = _Traced(verdict.xlated, machine)
    traced.paths = paths if unpruned.ok else None
    rng = random.Random(f"{program.name} {seed}")
    for _ in range(inputs):
        _fill(obj, rng)
        try:
            _run(traced, machine, verdict.xlated, rng)
        except InternalError as error:
            return Checked(traced.violation or str(error), unpruned.ok)
        if traced.violation:
            return Checked(traced.violation, unpruned.ok)
    return Checked("", unpruned.ok)


def _run(traced: _Traced, machine: Machine, xlated: Xlated, rng: random.Random) -> None:
    prog_type = PROG_TYPES[xlated.program.prog_type]
    ctx = data = None
    if prog_type.fields is None:
        ctx = b"".join(_word(rng) for _ in range(12))
        ctx += bytes(max(0, xlated.max_ctx_offset - len(ctx)))
    else:
        size = rng.choice((14, 15, 16, 18, 21, 22, 30, 33, 34, 48, 64, 100, 300))
        data = rng.randbytes(6) + bytes(8) + b"".join(_word(rng) for _ in range(40))
        data = data[:size]
    with testrun.prepare(machine, xlated, ctx=ctx, data=data) as test:
        run: RunContext = test.run
        run.may_goto_limit = _MAY_GOTO
        run.rng = rng
        traced.executed, traced.is_inside = 0, False
        traced.run(run, test.r1, test.r2)


def _fill(obj: vm.Object, rng: random.Random) -> None:
    """Put numbers into the maps that programs may compare with, and some of any kind."""
    for live in obj.machine.maps:
        size = live.defn.value_size
        if live.defn.map_type == MapType.ARENA:
            continue
        if live.defn.map_type != MapType.ARRAY:
            for old in list(live.keys_in_order()):
                del live[old]
        for key in range(live.defn.max_entries):
            if live.defn.map_type == MapType.ARRAY or rng.random() < 0.7:
                words = b"".join(_word(rng) for _ in range(-(-size // 8)))
                live[key.to_bytes(live.defn.key_size, "little")] = words[:size]


def _word(rng: random.Random) -> bytes:
    kind = rng.randrange(8)
    if kind < 4:
        number = rng.randrange(40)
    elif kind < 6:
        number = rng.choice(_BIG) + rng.randint(-9, 9)
    else:
        number = rng.getrandbits(64) >> rng.choice((0, 0, 32, 48))
    return (number % (1 << 64)).to_bytes(8, "little")
