"""The interpreter: runs the text of `bpfvm.semantics`, and checks every memory access always.

A program is resolved once at link: the meaning of each slot, the values of its ldimm64s, what its
calls run. A basic block becomes a Python function when it is first entered; the run loop only
goes from block to block. Local calls are frames in a list, never Python frames, and a keyboard
interrupt gets through at any insn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NoReturn

from bpfvm import flow, isa
from bpfvm.bits import U64_MAX, u32, u64
from bpfvm.errors import InternalError, RunFault, Thrown
from bpfvm.isa import CallKind, InsnDef, Kind
from bpfvm.link import call_site, imm64, not_executable, refused_access
from bpfvm.memory import Region, view_of
from bpfvm.runtime import (
    ARENA_GUARD,
    FRAME_SIZE,
    MAX_FRAMES,
    Executable,
    Machine,
    RunContext,
)
from bpfvm.semantics import NAMES, Linked, block_source
from bpfvm.xlated import CallSite, Xlated

__all__ = ["Interpreter", "State"]

#: What a block returns when the main program has ended.
_DONE = -1
_PAGE_SHIFT = 12
_PAGES = 1 << 20
#: Bytes before and after an arena's presence map that stand for its guards.
_PRESENCE_GUARD = 16
_FRESH_FRAME = bytes(FRAME_SIZE)
_SCRATCHED = [0] * 5  # r1..r5 after a call

#: Arguments on the stack; what was never passed is 0.
Args = tuple[int, ...]
_NO_ARGS: Args = (0,) * isa.MAX_STACK_ARGS

#: Bytes of a view from an index on, or None where the access has no effect.
Place = tuple[memoryview, int]


class State:
    """A run in progress, apart from its registers: frames, memory, and what calls do."""

    def __init__(self, linked: _Program, run: RunContext) -> None:
        self.run = run
        self.clear_on_fault = run.clear_on_fault
        self._sandbox = not linked.xlated.verified
        self._machine = run.machine
        self._arena = run.machine.arena
        self._presence = linked.presence
        #: Callers: r6..r9, what is left of their may_goto budget, and their arguments on the stack,
        #: those that they were given and those that they pass.
        self._frames: list[tuple[list[int], int, Args, Args]] = []
        self.args_in: Args = _NO_ARGS
        self._args_out: Args = _NO_ARGS
        self._loops = run.may_goto_limit
        self._space = run.machine.space
        self._generation = -1
        self._linked = linked
        #: Frames that are open below the innermost callback, and r10 of the call in progress.
        self._floor = self._fp = 0
        run.enter = self._call_back
        self._base = self._end = 0
        self._view = memoryview(b"")
        run.callers.clear()
        self._stack = _stack_of(run)
        self._clear_stack(run.stack_top)

    # -- memory ------------------------------------------------------------------------------

    def place(self, pc: int, size: int, base: int, off: int, write: bool) -> Place | None:
        """Return where *size* bytes at address *base* + *off* are kept.

        Raises:
            RunFault: no region allows the access.
        """
        addr = (base + off) & U64_MAX
        if (
            self._base <= addr
            and addr + size <= self._end
            and self._generation == self._space.generation
        ):
            return self._view, addr - self._base
        region = self._space.find(addr, size, write=write)
        if region is not None:
            if region.writable and not region.stride:
                self._base, self._end = region.base, region.base + region.size
                self._view, self._generation = region.view, self._space.generation
            return region.view, addr - region.base
        arena = self._arena
        if arena is not None and self._sandbox:
            offset = addr - arena.kern_vm_start
            if -ARENA_GUARD <= offset < (1 << 32) + ARENA_GUARD:
                return self._arena_place(pc, size, offset, base, off, write)
        raise RunFault(pc, refused_access(size, addr, write=write))

    def arena_place(self, pc: int, size: int, reg: int, off: int, write: bool) -> Place | None:
        """Return where *size* bytes at arena offset (u32)*reg* + *off* are kept; None, and a
        report, where a page of them is absent."""
        return self._arena_place(pc, size, u32(reg) + off, reg, off, write)

    def _arena_place(
        self, pc: int, size: int, offset: int, reg: int, off: int, write: bool
    ) -> Place | None:
        arena = self._arena
        if arena is None:
            raise InternalError(f"pc {pc}: arena access without an arena")
        present = self._presence
        first = (offset >> _PAGE_SHIFT) + _PRESENCE_GUARD
        last = ((offset + size - 1) >> _PAGE_SHIFT) + _PRESENCE_GUARD
        if (present[first] and present[last]) or arena.is_present(offset, size):
            return arena.band, offset
        self.run.report_fault(pc, reg, off, write=write, callers=self.run.callers)
        return None

    def _clear_stack(self, top: int) -> None:
        at = top - self._stack.base
        self._stack.view[at - FRAME_SIZE : at] = _FRESH_FRAME

    # -- calls -------------------------------------------------------------------------------

    def invoke(self, r: list[int], pc: int, site: CallSite) -> None:
        """Run the helper or kfunc of *site*."""
        proto = site.proto
        self._fp = r[10]
        r[0] = self.run.call(pc, proto, site.variant, r[1 : 1 + proto.arg_count])
        r[1:6] = _SCRATCHED

    def jumped(self, r: list[int], pc: int, site: CallSite) -> bool:
        """Run the helper of *site*, which may jump to another program; say whether it did: the
        frame is then to be left with that one's result."""
        self.invoke(r, pc, site)
        left, self.run.left = self.run.left, None
        if left is None:
            return False
        r[0] = left
        return True

    def invoke_number(self, r: list[int], pc: int, number: int) -> None:
        """Run the helper whose number a register holds."""
        proto = self._machine.registry.helpers.get(number)
        if proto is None:
            raise RunFault(pc, f"unknown helper {number}")
        if not proto.is_executable:
            raise RunFault(pc, not_executable(proto))
        self.invoke(r, pc, CallSite(proto))

    def enter(self, r: list[int], pc: int, target: int) -> int:
        """Open a frame for the local call in slot *pc*; return its first slot."""
        if len(self._frames) + 1 >= MAX_FRAMES:
            raise RunFault(pc, f"call stack deeper than {MAX_FRAMES} frames")
        self._frames.append((r[6:10], self._loops, self.args_in, self._args_out))
        self.args_in, self._args_out = self._args_out, _NO_ARGS
        self.run.callers.append(pc)
        self._loops = self.run.may_goto_limit
        r[6:10] = _SCRATCHED[:4]
        r[10] -= FRAME_SIZE
        self._clear_stack(r[10])
        return target

    def leave(self, r: list[int]) -> int:
        """Close the innermost frame; return the slot after its call."""
        if len(self._frames) == self._floor:
            return _DONE
        r[6:10], self._loops, self.args_in, self._args_out = self._frames.pop()
        r[1:6] = _SCRATCHED
        r[10] += FRAME_SIZE
        return self.run.callers.pop() + 1

    def _call_back(self, target: int, args: Sequence[int]) -> int:
        """Run the subprog in slot *target* for the helper call in progress; return its r0."""
        pc, fp, floor = self.run.pc, self._fp, self._floor
        if len(self._frames) + 1 >= MAX_FRAMES:
            raise RunFault(pc, f"call stack deeper than {MAX_FRAMES} frames")
        self._frames.append(([], self._loops, self.args_in, self._args_out))
        self.args_in = self._args_out = _NO_ARGS
        self._floor = len(self._frames)
        self.run.callers.append(pc)
        self._loops = self.run.may_goto_limit
        r = [0, *map(u64, args), *[0] * (9 - len(args)), fp - FRAME_SIZE]
        self._clear_stack(r[10])
        self._linked.loop(r, self, target)
        self.run.callers.pop()
        _, self._loops, self.args_in, self._args_out = self._frames.pop()
        self._floor, self._fp = floor, fp
        return r[0]

    def pass_arg(self, number: int, value: int) -> None:
        """Put argument *number* on the stack, from 0, for the calls that follow."""
        args = list(self._args_out)
        args[number] = value
        self._args_out = tuple(args)

    def may_goto(self, pc: int) -> bool:
        """Say whether the may_goto in slot *pc* jumps: its frame's loop budget is used up."""
        if self._loops:
            self._loops -= 1
            return False
        run = self.run
        run.stderr.push(
            b"ERROR: Timeout detected for may_goto instruction\n" + run.stack_dump(pc, run.callers)
        )
        return True

    def load_packet(self, r: list[int], pc: int, offset: int, size: int) -> bool:
        """Load packet bytes into r0; False: they are not there, and the frame is to be left."""
        value = self.run.load_packet(pc, offset, size)
        r[0] = value or 0
        r[1:6] = _SCRATCHED
        return value is not None

    # -- ends --------------------------------------------------------------------------------

    def refuse(self, pc: int, reason: str) -> NoReturn:
        """End the run: the insn in slot *pc* can't be executed."""
        raise RunFault(pc, reason)

    def trap(self, pc: int, reason: str) -> NoReturn:
        """Report that slot *pc* should never have been reached."""
        raise InternalError(f"pc {pc}: {reason}")


def _stack_of(run: RunContext) -> Region:
    size = FRAME_SIZE * MAX_FRAMES
    region = run.machine.space.find(run.stack_top - size, size, write=True)
    if region is None:
        raise InternalError(f"no stack of {size} bytes below {run.stack_top:#x}")
    return region


_Block = Callable[[list[int], State], int]


class _Program:
    """A linked program: its blocks, by first slot, compiled as they are entered."""

    def __init__(self, xlated: Xlated, machine: Machine) -> None:
        self.xlated = xlated
        self._machine = machine
        self._linked = _link(xlated, machine)
        arena = machine.arena
        self.presence = memoryview(b"")
        if arena is not None:
            self.presence = view_of(
                arena.presence_addr - _PRESENCE_GUARD, _PAGES + 2 * _PRESENCE_GUARD, owner=arena
            )
        self._names = {**NAMES, "sites": self._linked.sites}
        self._blocks: dict[int, _Block] = {}
        self._costs: dict[int, int] = {}
        for block in flow.basic_blocks(xlated.insns):
            self._blocks[block.start] = partial(self._compile_and_run, block)
            self._costs[block.start] = block.cost

    def _compile_and_run(self, block: flow.Block, r: list[int], state: State) -> int:
        code = block_source(self._linked, block)
        found: dict[str, _Block] = {}
        where = f"<{self.xlated.program.name} insn {block.start}>"
        exec(compile(code, where, "exec"), self._names, found)
        run = self._blocks[block.start] = found["block"]
        return run(r, state)

    def run(self, run: RunContext, r1: int, r2: int = 0) -> int:
        """Run to the end and return r0."""
        return self.call(run, 0, (r1, r2))

    def call(self, run: RunContext, slot: int, args: Sequence[int]) -> int:
        """Run the subprog at *slot* with *args* as the outermost frame and return its r0."""
        r = [0, *map(u64, args), *[0] * (9 - len(args)), run.stack_top]
        try:
            return self._run(run, slot, r)
        except RunFault as fault:
            if self.xlated.verified:
                raise InternalError(f"verified program: pc {fault.pc}: {fault.reason}") from fault
            raise

    def _run(self, run: RunContext, slot: int, r: list[int]) -> int:
        try:
            self.loop(r, State(self, run), slot)
            return r[0]
        except Thrown as thrown:
            callback = self.xlated.program.exception_callback
            if callback is None:
                return u64(thrown.cookie)
            r = [0, u64(thrown.cookie), *[0] * 8, run.stack_top]
            self.loop(r, State(self, run), callback.start)
            return r[0]

    def loop(self, r: list[int], state: State, pc: int) -> None:
        """Run from slot *pc* until the frame that is open is left."""
        if state.run.budget is not None:
            self._loop_on_budget(r, state, pc)
            return
        blocks = self._blocks
        while pc >= 0:
            pc = blocks[pc](r, state)

    def _loop_on_budget(self, r: list[int], state: State, pc: int) -> None:
        blocks, costs, run = self._blocks, self._costs, state.run
        while pc >= 0:
            left = (run.budget or 0) - costs[pc]
            if left < 0:
                raise RunFault(pc, "budget of insns exceeded")
            run.budget = left
            pc = blocks[pc](r, state)


def _link(xlated: Xlated, machine: Machine) -> Linked:
    """Resolve what *xlated* leaves symbolic."""
    insns = xlated.insns
    rows: list[InsnDef | None] = [None] * len(insns)
    constants: dict[int, int] = {}
    sites: dict[int, CallSite | str] = {}
    slot = 0
    while slot < len(insns):
        insn, row, seen = insns[slot], isa.lookup(insns[slot]), xlated.aux[slot].seen
        rows[slot] = row
        if row is None:
            raise InternalError(f"insn {slot}: no meaning for opcode {insn.opcode:02x}")
        if row.kind is Kind.LDIMM64:
            if seen:
                constants[slot] = imm64(xlated, machine, slot, row)
            slot += 1
        elif row.kind is Kind.CALL and row.op is not CallKind.LOCAL and seen:
            sites[slot] = call_site(xlated, machine, slot, row)
        slot += 1
    arena = machine.arena
    return Linked(
        insns,
        rows,
        [aux.seen for aux in xlated.aux],
        xlated.verified,
        constants,
        sites,
        arena.kern_vm_start if arena is not None else None,
        arena.cast_high if arena is not None else None,
    )


class Interpreter:
    """The engine that every other is compared with."""

    name = "interp"

    def link(self, xlated: Xlated, machine: Machine) -> Executable:
        """Prepare *xlated* for runs on *machine*.

        Raises:
            LoadError: an unverified program that has no meaning (`bpfvm.flow.check_structure`),
                or an ldimm64 that names no map of *machine*.
        """
        if not xlated.verified:
            flow.check_structure(xlated.insns)
        return _Program(xlated, machine)
