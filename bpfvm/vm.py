"""The composition root: objects, programs and their runs, as users meet them.

Only this module (with the command line above it) knows verifier, JIT and arena together. An
`Object` is what one source holds; its maps and arena come to life at the first verify, run or
map access, as libbpf's load does, and all its programs share them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from errno import EINVAL
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import verifier
from arena import kfuncs as arena_kfuncs
from arena.arena import ArenaMap
from bpfvm import (
    callbacks,
    drain,
    dynptrs,
    exceptions,
    graph,
    helpers,
    helpers_map,
    helpers_packet,
    helpers_probe,
    helpers_sock,
    helpers_task,
    helpers_text,
    iters,
    kfuncs,
    kfuncs_text,
    loader,
    locks,
    prototypes,
    regions,
    ringbuf,
    testrun,
    timers,
)
from bpfvm.context import PROG_TYPES, Sleepable
from bpfvm.errors import BpfError, CannotRun, InternalError, MapError, RunFault
from bpfvm.flow import find_subprogs
from bpfvm.insn import decode
from bpfvm.interp import Interpreter
from bpfvm.kernel_btf import VMLINUX, KernelTypes
from bpfvm.laters import Later, Start
from bpfvm.link import not_executable
from bpfvm.maps.array import ArrayMap
from bpfvm.maps.base import Map, MapType, MapTypes
from bpfvm.maps.hash import HashMap
from bpfvm.maps.kinds import LruHashMap, LruPercpuHashMap, PercpuArrayMap, PercpuHashMap
from bpfvm.maps.opaque import OPAQUE
from bpfvm.maps.prog_array import ProgArrayMap
from bpfvm.maps.queue import QueueMap, StackMap
from bpfvm.maps.ringbuf import RingbufMap
from bpfvm.maps.user_ringbuf import UserRingbufMap
from bpfvm.memory import AddressSpace
from bpfvm.privileges import PRIVILEGED, UNPRIVILEGED, Privileges
from bpfvm.program import MapFacts, ObjectFile, Program
from bpfvm.proto import Registry
from bpfvm.rules import NEWEST, KernelRules
from bpfvm.runtime import Engine, Executable, Fault, Machine, RunContext
from bpfvm.variables import Variables
from bpfvm.xlated import Rejected, Verdict, Xlated, unverified

if TYPE_CHECKING:
    from jit.engine import Jit

__all__ = [
    "ENGINES",
    "HELPER_IDS",
    "MAP_TYPES",
    "MAX_FIRED",
    "REGISTRY",
    "SANDBOX_BUDGET",
    "Fired",
    "Object",
    "Prog",
    "Result",
    "assemble",
    "compiler",
    "from_bytes",
    "open",
]

#: The engines a run may ask for.
ENGINES = ("interp", "jit")
#: Insns an unverified run may execute unless it says otherwise.
SANDBOX_BUDGET = 10_000_000
_XDP_HAS_FRAGS = 1 << 5

#: The kernel whose types programs are verified with.
_kernel_types = [KernelTypes(VMLINUX)]


def use_kernel_types(path: str) -> None:
    """Verify programs with the types in the raw BTF at *path*, not with the running kernel's."""
    _kernel_types[0] = KernelTypes(Path(path))


REGISTRY = Registry(
    [
        helpers,
        callbacks,
        exceptions,
        kfuncs,
        kfuncs_text,
        regions,
        iters,
        ringbuf,
        timers,
        graph,
        locks,
        dynptrs,
        drain,
        arena_kfuncs,
        helpers_map,
        helpers_packet,
        helpers_probe,
        helpers_sock,
        helpers_task,
        helpers_text,
        prototypes,
    ]
)
MAP_TYPES = MapTypes(
    {
        MapType.ARRAY: ArrayMap,
        MapType.HASH: HashMap,
        MapType.ARENA: ArenaMap,
        MapType.RINGBUF: RingbufMap,
        MapType.USER_RINGBUF: UserRingbufMap,
        MapType.PROG_ARRAY: ProgArrayMap,
        MapType.PERCPU_ARRAY: PercpuArrayMap,
        MapType.PERCPU_HASH: PercpuHashMap,
        MapType.LRU_HASH: LruHashMap,
        MapType.LRU_PERCPU_HASH: LruPercpuHashMap,
        MapType.QUEUE: QueueMap,
        MapType.STACK: StackMap,
        **OPAQUE,
    },
)
#: Helper numbers by name, as assembly text and listings use them.
HELPER_IDS = {proto.name: number for number, proto in REGISTRY.helpers.items()}


def compiler() -> Jit:
    """Return a new JIT; the first one loads LLVM."""
    # llvmlite takes longer to import than most programs take to run.
    from jit.engine import Jit

    return Jit()


def _engine(name: str) -> Engine:
    if name == "interp":
        return Interpreter()
    if name == "jit":
        return compiler()
    raise BpfError(f"unknown engine {name!r}: expected one of {', '.join(ENGINES)}")


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind.

    Attributes:
        r0: the program's return value, unsigned 64 bits.
        stdout, stderr: the program's two streams (bpf_stream_vprintk, fault reports).
        trace: what bpf_trace_printk wrote.
        duration_ns: time inside the engine, for one run.
        ctx, data: context and packet after the run, as user space sees them.
        faults: arena accesses to absent pages, in order.
    """

    r0: int
    stdout: bytes = b""
    stderr: bytes = b""
    trace: bytes = b""
    duration_ns: int = 0
    ctx: bytes = b""
    data: bytes = b""
    faults: tuple[Fault, ...] = field(default=())


#: Callbacks that one `Object.advance` runs at most: a timer may start itself again at once.
MAX_FIRED = 100_000


@dataclass(frozen=True, slots=True)
class Fired:
    """A callback that ran later: what asked for it ("bpf_timer", "bpf_wq"), of which program, at
    what simulated time in ns, and what it wrote, as in `Result`."""

    kind: str
    prog: str
    time: int
    r0: int
    stdout: bytes = b""
    stderr: bytes = b""
    trace: bytes = b""
    faults: tuple[Fault, ...] = field(default=())


class Prog:
    """One program of an `Object`."""

    def __init__(self, owner: Object, program: Program) -> None:
        self.owner = owner
        self.program = program
        self._verdicts: dict[tuple[str, int, int | None, Privileges], Verdict] = {}
        self._linked: dict[tuple[str, str | None, int, Privileges], Executable] = {}

    def __repr__(self) -> str:
        return f"<Prog {self.name} ({self.program.prog_type})>"

    @property
    def name(self) -> str:
        """The program's name."""
        return self.program.name

    def verify(
        self,
        *,
        kernel: str = NEWEST,
        log_level: int = 1,
        mem_size: int = 0,
        unpriv: bool = False,
        privileges: Privileges | None = None,
    ) -> Verdict:
        """Return the verifier's verdict under the rules of *kernel* ("7.3" or "6.18").

        A rejection is a value (`.ok` False with `.errno`, `.last`, `.reason`), not an exception.
        *mem_size* is what a program of type "mem" is promised: bytes of memory behind r1.
        *unpriv* verifies for a user without capabilities, *privileges* for one with some of them.

        Raises:
            BpfError: unknown kernel, or the object's maps can't be created.
        """
        size = mem_size if self.program.prog_type == testrun.MEM else None
        privs = _privileges(unpriv, privileges)
        key = (kernel, log_level, size, privs)
        if key not in self._verdicts:
            self._verdicts[key] = verifier.verify(
                self.program,
                self.owner.facts,
                REGISTRY,
                map_types=MAP_TYPES,
                rules=KernelRules.of(kernel),
                log_level=log_level,
                mem_size=size,
                privileges=privs,
                kernel_types=_kernel_types[0],
            )
        return self._verdicts[key]

    def contradicts(self, kernel: str) -> bool:
        """Say whether a kernel with the rules of *kernel* would warn about the program, because
        on a way that can't be gone its own range tracking contradicts itself (and be tainted)."""
        return verifier.contradicts(
            self.program,
            self.owner.facts,
            REGISTRY,
            map_types=MAP_TYPES,
            rules=KernelRules.of(kernel),
        )

    def xlated(
        self,
        *,
        verify: bool = True,
        kernel: str = NEWEST,
        mem_size: int = 0,
        unpriv: bool = False,
        privileges: Privileges | None = None,
    ) -> Xlated:
        """Return the insns as engines run them.

        Raises:
            Rejected: *verify* was asked for and the program does not.
        """
        if not verify:
            return unverified(self.program)
        verdict = self.verify(
            kernel=kernel, mem_size=mem_size, unpriv=unpriv, privileges=privileges
        )
        if verdict.xlated is None:
            raise Rejected(self.name, verdict)
        return verdict.xlated

    def run(
        self,
        *,
        engine: str = "jit",
        ctx: bytes | None = None,
        data: bytes | None = None,
        verify: bool = True,
        budget: int | None = None,
        kernel: str = NEWEST,
        unpriv: bool = False,
        privileges: Privileges | None = None,
        repeat: int = 1,
        timeout_s: float | None = None,
        setup: Callable[[RunContext], None] | None = None,
        verdict: Verdict | None = None,
    ) -> Result:
        """Run the program once (or *repeat* times on the same context) and return its result.

        Args:
            engine: "jit" or "interp".
            ctx: the context as user space gives it to BPF_PROG_TEST_RUN.
            data: packet bytes, for program types that take a packet.
            verify: False runs it in the sandbox: nothing is proven, every access is checked.
            budget: insns the sandbox may execute, `SANDBOX_BUDGET` unless given.
            kernel: the rules to verify by.
            unpriv, privileges: whom to verify for, as with `verify`.
            repeat: how often; the result is the last run's, duration_ns the mean.
            timeout_s: no further repetition starts after this many seconds.
            setup: given the run before it starts, to choose its clock, random numbers or
                failing allocations, or to keep what a run that ends early has left.
            verdict: what `verify` said of this program on maps with the same facts, in order
                not to verify again.

        Raises:
            Rejected: it does not verify.
            RunFault: a sandbox run ended early.
            BpfError: input that a test-run of this program type refuses.
        """
        rules = KernelRules.of(kernel)
        mem_size = len(data or b"") if verify and self.program.prog_type == testrun.MEM else 0
        privs = _privileges(unpriv, privileges)
        if verdict is not None:
            self._verdicts[kernel, 1, None, privs] = verdict
        xlated = self.xlated(verify=verify, kernel=kernel, mem_size=mem_size, privileges=privs)
        executable = self._link((engine, kernel if verify else None, mem_size, privs), xlated)
        if not verify and budget is None:
            budget = SANDBOX_BUDGET
        with testrun.prepare(self.owner.machine, xlated, ctx=ctx, data=data) as test:
            test.run.budget = budget if not verify else None
            test.run.clear_on_fault = rules.arena_fault_clears_result
            test.run.later = self._deferrer(executable, xlated, rules)
            if verify:
                test.run.jump = self._jumper(test, (engine, kernel, 0, privs))
            if setup is not None:
                setup(test.run)
            limit_ns = None if timeout_s is None else int(timeout_s * 1e9)
            elapsed, r0, done = 0, 0, 0
            while done < max(1, repeat) and (not done or limit_ns is None or elapsed < limit_ns):
                start = time.perf_counter_ns()
                try:
                    r0 = executable.run(test.run, test.r1, test.r2)
                except RunFault as fault:
                    if verify:
                        raise InternalError(f"verified program {self.name}: {fault}") from fault
                    raise
                elapsed += time.perf_counter_ns() - start
                done += 1
            out = test.finish()
            return Result(
                r0,
                bytes(test.run.stdout.data),
                bytes(test.run.stderr.data),
                bytes(test.run.trace),
                elapsed // done,
                out.ctx,
                out.data,
                tuple(test.run.faults),
            )

    def _deferrer(
        self, executable: Executable, xlated: Xlated, rules: KernelRules
    ) -> Callable[[int], Start]:
        """Return what makes of a function's address what runs it later, on this program."""
        owner = self.owner

        def later(function: int) -> Start:
            def start(asked: Later, args: tuple[int, ...]) -> None:
                now = owner.machine.laters.now
                with testrun.prepare_apart(owner.machine, xlated) as test:
                    run = test.run
                    run.sleepable, run.clock, run.later = asked.sleepable, lambda: now, later
                    run.clear_on_fault = rules.arena_fault_clears_result
                    run.budget = None if xlated.verified else SANDBOX_BUDGET
                    r0 = executable.call(run, run.slot_of(function), args)
                    owner.fired.append(
                        Fired(
                            asked.kind,
                            self.name,
                            now,
                            r0,
                            bytes(run.stdout.data),
                            bytes(run.stderr.data),
                            bytes(run.trace),
                            tuple(run.faults),
                        )
                    )

            return start

        return later

    def _jumper(
        self, test: testrun.PreparedRun, key: tuple[str, str, int, Privileges]
    ) -> Callable[[RunContext, str, int], int]:
        """Return what runs another program of the object in place of a frame of this one."""
        _, kernel, _, privileges = key

        def jump(run: RunContext, name: str, ctx: int) -> int:
            target = self.owner.programs[name]
            if _kind_of(target.program) != _kind_of(self.program):
                raise BpfError(f"{name}: a tail call from a program of another type")
            xlated = target.xlated(kernel=kernel, privileges=privileges)
            if xlated.max_ctx_offset > test.ctx_size:
                raise BpfError(
                    f"{name}: it reads {xlated.max_ctx_offset} bytes of a context of "
                    f"{test.ctx_size}"
                )
            executable = target._link(key, xlated)
            entered = replace(
                run,
                program=xlated.program,
                stack_top=test.borrow_stack(),
                sleepable=xlated.program.sleepable,
                callers=[],
                enter=None,
            )
            return executable.run(entered, ctx)

        return jump

    def _link(self, key: tuple[str, str | None, int, Privileges], xlated: Xlated) -> Executable:
        with self.owner.lock:
            if key not in self._linked:
                for call in (a.call for a in xlated.aux if a.call is not None):
                    if not call.proto.is_executable:
                        raise CannotRun(f"{self.name}: {not_executable(call.proto)}")
                for index, image in xlated.map_images.items():
                    self.owner.machine.show_map(index, image)
                self._linked[key] = _engine(key[0]).link(xlated, self.owner.machine)
            return self._linked[key]


def _privileges(unpriv: bool, given: Privileges | None) -> Privileges:
    if given is not None:
        return given
    return UNPRIVILEGED if unpriv else PRIVILEGED


def _kind_of(program: Program) -> tuple[str, int]:
    """Return what programs of one prog_array have in common."""
    return program.prog_type, program.flags & _XDP_HAS_FRAGS


class _MapsByName(Mapping[str, Map]):
    """The live maps of an object, created at the first access."""

    def __init__(self, owner: Object) -> None:
        self._owner = owner

    def __getitem__(self, name: str) -> Map:
        for defn, live in zip(self._owner.file.maps, self._owner.machine.maps, strict=True):
            if defn.name == name:
                return live
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return (defn.name for defn in self._owner.file.maps)

    def __len__(self) -> int:
        return len(self._owner.file.maps)


class Object:
    """All programs of one source, and the maps and the arena they share.

    Attributes:
        programs: by name, in file order.
        broken: programs that could not be linked, each with its error.
        maps: live maps by name.
        fired: callbacks that ran later, until `advance` returns them.
    """

    def __init__(self, file: ObjectFile) -> None:
        self.file = file
        self.programs: dict[str, Prog] = {n: Prog(self, p) for n, p in file.programs.items()}
        self.broken = dict(file.broken)
        self.maps: Mapping[str, Map] = _MapsByName(self)
        self.lock = threading.RLock()
        self._machine: Machine | None = None
        self.fired: list[Fired] = []

    def __repr__(self) -> str:
        return f"<Object {self.file.origin}: {', '.join(self.programs) or 'no programs'}>"

    @property
    def machine(self) -> Machine:
        """The live instances, created on first use.

        Raises:
            MapError: a map can't be created.
        """
        with self.lock:
            if self._machine is None:
                space = AddressSpace()
                maps = [MAP_TYPES.create(defn, space) for defn in self.file.maps]
                arenas = [m for m in maps if isinstance(m, ArenaMap)]
                if len(arenas) > 1:
                    names = " and ".join(m.defn.name for m in arenas[:2])
                    raise BpfError(
                        f"{self.file.origin}: only a single arena map is supported: {names}"
                    )
                for live in maps:
                    if isinstance(live, ProgArrayMap):
                        self._fill(live)
                self._machine = Machine(space, maps, REGISTRY, arenas[0] if arenas else None)
            return self._machine

    def _fill(self, live: ProgArrayMap) -> None:
        """Put into a prog_array what its definition names; programs that could not be linked are
        left out (kernel: __bpf_prog_map_compatible).

        Raises:
            MapError: the programs are not of one type.
        """
        kinds = set()
        for index, name in live.defn.slots:
            if name in self.programs:
                kinds.add(_kind_of(self.programs[name].program))
                live.put(index, name)
        if len(kinds) > 1:
            raise MapError(f"map {live.defn.name}: programs of different types", EINVAL)

    def advance(self, ns: int = 0) -> list[Fired]:
        """Let *ns* of simulated time pass, and run what programs have asked for in it: callbacks
        of timers and work queues, the earliest first. Return what they did, in this order.

        A run takes the time along to its own clock where that is later.

        Raises:
            BpfError: more than `MAX_FIRED` callbacks.
            RunFault: one that was set by a sandbox run ended early.
        """
        laters = self.machine.laters
        until = laters.now + ns
        self.fired.clear()
        for _ in range(MAX_FIRED):
            due = laters.next_due(until)
            if due is None:
                laters.now = until
                return self.fired.copy()
            laters.now = max(laters.now, due.due or 0)
            timers.fire(self.machine, due)
        raise BpfError(f"{self.file.origin}: more than {MAX_FIRED} callbacks in {ns} ns")

    @cached_property
    def facts(self) -> tuple[MapFacts, ...]:
        """What the verifier may know of the live maps, in the order of `Program.maps`."""
        return tuple(m.facts() for m in self.machine.maps)

    @cached_property
    def globals(self) -> Mapping[str, memoryview]:
        """The source's variables by name: the very bytes that programs use."""
        return Variables(self.file.symbols, lambda: self.machine.maps)

    @property
    def arena(self) -> ArenaMap:
        """The object's arena.

        Raises:
            BpfError: it has none.
        """
        found = self.machine.arena
        if not isinstance(found, ArenaMap):
            raise BpfError(f"{self.file.origin}: no arena map")
        return found


def open(path: str | os.PathLike[str]) -> Object:
    """Return the object in the file at *path*: ELF, C source, assembly text, or raw insns.

    Raises:
        BpfError: it can't be read, compiled, assembled or understood; the text says where.
    """
    return Object(loader.load_path(path, helpers=HELPER_IDS, kfuncs=REGISTRY.kfuncs))


def assemble(text: str, origin: str = "<text>") -> Object:
    """Return the object that assembly *text* describes (`bpfvm.asm`).

    Raises:
        AsmError: at the first thing that is wrong.
    """
    return Object(loader.load_text(text, origin, HELPER_IDS))


def from_bytes(
    insns: bytes,
    prog_type: str = "socket_filter",
    *,
    name: str = "main",
    sleepable: bool | None = None,
    license: str = "GPL",
) -> Object:
    """Return an object with one program of the raw slots *insns* (8 bytes each, little-endian).

    *sleepable* defaults to what the program type demands. The type "mem" is the conformance
    suite's entry state, for the sandbox: r1 = address of the run's *data*, r2 = its length.

    Raises:
        BpfError: not whole slots, or an unknown program type.
    """
    if prog_type not in (*PROG_TYPES, testrun.MEM):
        raise BpfError(f"unknown program type {prog_type!r}")
    if sleepable is None:
        row = PROG_TYPES.get(prog_type)
        sleepable = row is not None and row.sleepable is Sleepable.MUST
    code = decode(insns, name)
    program = Program(
        name, code, prog_type, find_subprogs(code, {0: name}), sleepable, license=license
    )
    return Object(ObjectFile("<bytes>", {name: program}))
