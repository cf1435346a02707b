"""The JIT as an engine: links a program to a machine, and runs it.

A linked program owns its native code and keeps alive all that the code reaches: the machine with
its maps and arena, and the pool of addresses. Whoever runs it holds it, so code is never freed
under a run; each run has its own state, so any number may be in flight, on any threads.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

from bpfvm import isa
from bpfvm.bits import u64
from bpfvm.errors import InternalError, RunFault, Thrown
from bpfvm.flow import check_structure, jump_target
from bpfvm.insn import Insn
from bpfvm.isa import Kind
from bpfvm.link import imm64, refused_access
from bpfvm.maps.base import MapType
from bpfvm.runtime import Executable, Machine, RunContext
from bpfvm.xlated import Xlated
from jit import llvm
from jit.calls import Active, Entry, bind
from jit.llvm import Pipeline
from jit.lower import lower
from jit.state import FIRST_TRAP, Lowered, Word

__all__ = ["Jit"]

#: Slots from which on a program is compiled quickly.
BIG_PROGRAM = 4096
_MAIN = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64)


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p, *[ctypes.c_uint64] * 6)


class _Program:
    """A linked program."""

    def __init__(self, xlated: Xlated, machine: Machine, pipeline: Pipeline) -> None:
        self.xlated, self._machine = xlated, machine
        self._lowered = lower(xlated, arena=machine.arena is not None)
        self._pool = _pool(self._lowered, xlated, machine)
        self._handlers = [bind(site, xlated, machine) for site in self._lowered.sites]
        self._code = llvm.Code(llvm.compile_object(self._lowered.text, pipeline))
        self._main = _MAIN(self._code.address("bpf_main"))
        self._entries: dict[int, Entry] = {
            slot: _CALLBACK(self._code.address(f"bpf_callback_{slot}"))
            for slot in self._lowered.callbacks
        }

    def run(self, run: RunContext, r1: int, r2: int = 0) -> int:
        """Run to the end and return r0."""
        return self._enter(run, lambda address: self._main(address, u64(r1), u64(r2)))

    def call(self, run: RunContext, slot: int, args: Sequence[int]) -> int:
        """Run the subprog at *slot* with *args* as the outermost frame and return its r0."""
        entry, given = self._entries[slot], [*map(u64, args), *[0] * (5 - len(args))]
        return self._enter(run, lambda address: entry(address, 0, *given))

    def _enter(self, run: RunContext, start: Callable[[int], int]) -> int:
        sandbox = not self.xlated.verified
        pool = ctypes.addressof(self._pool)
        active = Active(run, self._machine, pool, self._handlers, self._entries, sandbox=sandbox)
        run.callers = []
        try:
            active.open()
            r0 = int(start(active.address))
            if isinstance(active.error, Thrown):
                r0 = self._thrown(active, active.error.cookie)
        finally:
            active.close()
            active.finish()
        if active.error or active.words[Word.STOP]:
            self._ended_early(active)
        return r0

    def _thrown(self, active: Active, cookie: int) -> int:
        """Run the exception callback in place of all frames; return what it does."""
        active.restart()
        callback = self.xlated.program.exception_callback
        if callback is None:
            return u64(cookie)
        return int(self._entries[callback.start](active.address, 0, u64(cookie), 0, 0, 0, 0))

    def _ended_early(self, active: Active) -> None:
        error = active.error or self._trapped(active)
        if isinstance(error, RunFault) and self.xlated.verified:
            raise InternalError(f"verified program: {error}") from error
        raise error

    def _trapped(self, active: Active) -> Exception:
        number = active.words[Word.STOP] - FIRST_TRAP
        if number < 0:
            # An exception struck while another was being dealt with, and went where ctypes
            # sends what it can't deliver: sys.unraisablehook.
            return InternalError("an exception was lost while the program called out")
        trap = self._lowered.traps[number]
        if trap.is_bug:
            return InternalError(f"pc {trap.pc}: {trap.reason}")
        reason = trap.reason or refused_access(trap.size, active.words[Word.ADDR], write=trap.write)
        return RunFault(trap.pc, reason)


def _pool(lowered: Lowered, xlated: Xlated, machine: Machine) -> ctypes.Array[ctypes.c_uint64]:
    pool = (ctypes.c_uint64 * max(1, len(lowered.pool)))()
    for index, slot in enumerate(lowered.pool):
        row = isa.lookup(xlated.insns[slot])
        if row is None:
            raise InternalError(f"insn {slot}: no meaning")
        pool[index] = imm64(xlated, machine, slot, row)
    return pool


def _has_loop(insns: Sequence[Insn]) -> bool:
    """Say whether an insn may run more than once in a frame: whether any jump goes back."""
    for slot, insn in enumerate(insns):
        row = isa.lookup(insn)
        if row is None or row.kind is Kind.CALL:
            continue
        target = jump_target(slot, insn, row)
        if target is not None and target <= slot:
            return True
    return False


class Jit:
    """The compiler. *pipeline* trades time to compile for speed of the code.

    Without one it is picked for each program: only verified programs with loops are worth the
    time. Sandboxed ones spend theirs in checks, and for big ones LLVM takes more than linear time.
    """

    name = "jit"

    def __init__(self, pipeline: Pipeline | None = None) -> None:
        self.pipeline = pipeline

    def pipeline_of(self, xlated: Xlated) -> Pipeline:
        """Return how *xlated* is compiled."""
        if self.pipeline is not None:
            return self.pipeline
        small = xlated.verified and len(xlated.insns) <= BIG_PROGRAM
        return Pipeline.NORMAL if small and _has_loop(xlated.insns) else Pipeline.QUICK

    def link(self, xlated: Xlated, machine: Machine) -> Executable:
        """Compile *xlated* for runs on *machine*.

        Raises:
            LoadError: an unverified program that has no meaning (`bpfvm.flow.check_structure`),
                or an ldimm64 that names no map of *machine*.
        """
        if not xlated.verified:
            check_structure(xlated.insns)
        return _Program(xlated, machine, self.pipeline_of(xlated))

    def llvm_ir(self, xlated: Xlated, *, optimized: bool = False) -> str:
        """Return the LLVM IR of *xlated*, as lowered or after the optimisation passes."""
        text = self._lowered(xlated).text
        return llvm.optimized_text(text, self.pipeline_of(xlated)) if optimized else text

    def native_text(self, xlated: Xlated) -> str:
        """Return the assembly of *xlated* for this host."""
        return llvm.native_text(self._lowered(xlated).text, self.pipeline_of(xlated))

    def native_code(self, xlated: Xlated) -> bytes:
        """Return the machine code of *xlated*, not yet linked."""
        return llvm.code_bytes(
            llvm.compile_object(self._lowered(xlated).text, self.pipeline_of(xlated))
        )

    def _lowered(self, xlated: Xlated) -> Lowered:
        if not xlated.verified:
            check_structure(xlated.insns)
        arena = any(defn.map_type == MapType.ARENA for defn in xlated.program.maps)
        return lower(xlated, arena=arena)
