"""The way from compiled code back to Python: what serves each site, and the callback itself.

Compiled code calls one function per run with the number of a site. That function is the `send` of
a generator, so an exception that strikes as Python code is entered (a signal's handler, most
often KeyboardInterrupt) is raised inside the generator's `try`: a plain function could be left
before its own `try` began, and ctypes would print the exception and drop it. Compiled code sets
STOP before it calls and looks at it after; only a call that was served to its end clears it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import assert_never

from bpfvm import isa
from bpfvm.bits import s64, u32, u64
from bpfvm.errors import InternalError, RunFault
from bpfvm.link import call_site, not_executable
from bpfvm.memory import AddressSpace
from bpfvm.runtime import MAX_FRAMES, Machine, RunContext
from bpfvm.xlated import CallSite, Xlated
from jit.state import (
    MAY_GOTO_SLICE,
    NO_PACKET,
    PENDING,
    REGION_WORDS,
    WORDS,
    ArenaSite,
    CallSlot,
    CallxSlot,
    MayGotoSite,
    PacketSite,
    RefillSite,
    Site,
    Word,
)

__all__ = ["Active", "Entry", "Handler", "RegionTable", "bind"]

#: Insns that run before Python is asked for more of the budget, which also looks after signals.
BUDGET_SLICE = 1 << 22

#: Words that every call touches, as plain ints: looking an enum's member up takes longer.
_STOP, _FRAME, _LEFT, _ARG, _CALLER = (
    int(word) for word in (Word.STOP, Word.FRAME, Word.LEFT, Word.ARG, Word.CALLER)
)
_DISPATCH = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint64)


class EndedError(Exception):
    """A callback's code has ended the run: STOP and ADDR tell why."""


class RegionTable:
    """A copy of an address space's regions as rows of words, sorted by base."""

    def __init__(self, space: AddressSpace) -> None:
        self.generation = space.generation
        rows: list[tuple[int, ...]] = [
            (r.base, r.size, int(r.writable), r.stride, r.elem_size) for r in space.regions
        ] or [(0,) * REGION_WORDS]
        self.count = len(rows)
        self._words = (ctypes.c_uint64 * (self.count * REGION_WORDS))()
        self._words[:] = [word for row in rows for word in row]
        self.address = ctypes.addressof(self._words)


class Active:
    """A run in flight: the words that compiled code sees, and what belongs to them.

    Attributes:
        words: the run state.
        address: where it lies.
        error: the exception that ended the run while a site was served.
        rest: insns of the budget that are not in word BUDGET.
    """

    def __init__(
        self,
        run: RunContext,
        machine: Machine,
        pool: int,
        handlers: Sequence[Handler],
        entries: Mapping[int, Entry],
        *,
        sandbox: bool,
    ) -> None:
        self.run, self.machine, self._sandbox = run, machine, sandbox
        self._handlers, self._entries = handlers, entries
        #: What serves the code at each depth of callbacks: a generator can't be entered again
        #: while it waits for a callback to end.
        self._servers: list[tuple[Generator[int, int, None], object, int]] = []
        self._depth = 0
        run.enter = self.call_back
        self._state = (ctypes.c_uint64 * WORDS)()
        self.address = ctypes.addressof(self._state)
        self.words = memoryview(self._state).cast("B").cast("Q")
        self.error: BaseException | None = None
        first = BUDGET_SLICE if run.budget is None else min(run.budget, BUDGET_SLICE)
        self.rest = None if run.budget is None else run.budget - first
        self._regions: RegionTable | None = None
        words = self.words
        words[Word.BUDGET] = first
        words[Word.MAY_GOTO] = run.may_goto_limit
        words[Word.CLEAR] = int(run.clear_on_fault)
        words[Word.STACK_TOP] = run.stack_top
        words[Word.POOL] = pool
        arena = machine.arena
        if arena is not None:
            words[Word.KERN] = arena.kern_vm_start
            words[Word.PRESENCE] = arena.presence_addr
            words[Word.CAST_HIGH] = arena.cast_high
        if sandbox:
            self._refresh()

    def _refresh(self) -> None:
        space = self.machine.space
        if self._regions is None or self._regions.generation != space.generation:
            table = self._regions = RegionTable(space)
            self.words[Word.REGIONS] = self.words[Word.REGION_HINT] = table.address
            self.words[Word.REGION_COUNT] = table.count

    def callers(self) -> list[int]:
        """Return the slots of the open local calls, innermost last."""
        frame = self.words[_FRAME]
        return self.words[_CALLER : _CALLER + frame].tolist() if frame else []

    def call(self, pc: int, site: CallSite) -> int:
        """Run the helper or kfunc of *site* with the arguments in the words."""
        run, proto = self.run, site.proto
        run.callers = self.callers()
        args = self.words[_ARG : _ARG + proto.arg_count].tolist()
        result = run.call(pc, proto, site.variant, args)
        if run.left is not None:
            result, run.left = run.left, None
            self.words[_LEFT] = 1
        if self._sandbox:
            self._refresh()
        return result

    def refill(self, pc: int, cost: int) -> int:
        """Give compiled code more of the budget: the block at *pc* needs *cost* insns."""
        words = self.words
        held = words[Word.BUDGET] + cost
        if self.rest is None:
            words[Word.BUDGET] = max(BUDGET_SLICE, cost) - cost
            return 0
        left = self.rest + u64(held)
        if left < cost:
            self.rest, words[Word.BUDGET] = left, 0
            raise RunFault(pc, "budget of insns exceeded")
        taken = min(left, max(BUDGET_SLICE, cost))
        self.rest, words[Word.BUDGET] = left - taken, taken - cost
        return 0

    def open(self) -> None:
        """Let the code that runs next, one callback deeper than before, call out."""
        if self._depth == len(self._servers):
            serving = self._serve()
            self._servers.append((serving, *callback(serving)))
        self.words[Word.DISPATCH] = self._servers[self._depth][2]
        self._depth += 1

    def restart(self) -> None:
        """Forget how the run ended, so that code may run in its place."""
        self.error = None
        self.words[_STOP] = self.words[_FRAME] = 0
        self._depth = 0
        self.open()

    def call_back(self, slot: int, args: Sequence[int]) -> int:
        """Run the subprog that starts at *slot* for the call out in progress; return its r0."""
        words, entry = self.words, self._entries.get(slot)
        frame, dispatch, pc = words[_FRAME], words[Word.DISPATCH], self.run.pc
        if entry is None:
            raise RunFault(pc, f"slot {slot} can't be called back")
        if frame + 1 >= MAX_FRAMES:
            raise RunFault(pc, f"call stack deeper than {MAX_FRAMES} frames")
        if self._sandbox:
            self._refresh()
        words[_CALLER + frame] = pc
        words[_STOP] = 0
        self.open()
        r0 = entry(self.address, frame + 1, *map(u64, args), *[0] * (5 - len(args)))
        self._depth -= 1
        words[Word.DISPATCH], words[_FRAME] = dispatch, frame
        if self.error is not None:
            raise self.error
        if words[_STOP]:
            raise EndedError
        return r0

    def close(self) -> None:
        """Let go of what served the run."""
        for serving, _, _ in self._servers:
            serving.close()

    def _serve(self) -> Generator[int, int, None]:
        """Answer numbers of sites with their results, until closed."""
        words, handlers = self.words, self._handlers
        result = 0
        while True:
            try:
                while True:
                    number = yield result
                    result = handlers[number](self)
                    words[_STOP] = 0
            except GeneratorExit:
                return
            except EndedError:  # STOP tells why
                result = 0
            except BaseException as e:  # raised again when compiled code has returned
                words[_STOP] = PENDING
                self.error = e
                result = 0

    def finish(self) -> None:
        """Write back what the run used up."""
        if self.rest is not None:
            self.run.budget = max(0, self.rest + s64(self.words[Word.BUDGET]))


Handler = Callable[[Active], int]
#: A subprog as native code: (state, frame, r1..r5) to r0.
Entry = Callable[..., int]


def callback(serving: Generator[int, int, None]) -> tuple[object, int]:
    """Return *serving* as a native function, started: the object to keep, and its address."""
    next(serving)
    function = _DISPATCH(serving.send)
    return function, ctypes.cast(function, ctypes.c_void_p).value or 0


def bind(site: Site, xlated: Xlated, machine: Machine) -> Handler:
    """Return what serves *site* on *machine*."""
    match site:
        case CallSlot():
            return _bind_call(site.pc, xlated, machine)
        case CallxSlot():
            return _bind_callx(site.pc, machine)
        case ArenaSite():
            return _bind_arena(site, machine)
        case MayGotoSite():
            return _bind_may_goto(site.pc)
        case PacketSite():
            return _bind_packet(site)
        case RefillSite():
            pc, cost = site.pc, site.cost
            return lambda active: active.refill(pc, cost)
        case _:
            assert_never(site)


def _bind_call(pc: int, xlated: Xlated, machine: Machine) -> Handler:
    row = isa.lookup(xlated.insns[pc])
    if row is None:
        raise InternalError(f"insn {pc}: no meaning")
    found = call_site(xlated, machine, pc, row)
    if isinstance(found, CallSite):
        site = found
        return lambda active: active.call(pc, site)
    reason = found

    def refuse(active: Active) -> int:
        raise RunFault(pc, reason)

    return refuse


def _bind_callx(pc: int, machine: Machine) -> Handler:
    helpers = machine.registry.helpers

    def handle(active: Active) -> int:
        number = active.words[Word.ADDR]
        proto = helpers.get(number)
        if proto is None:
            raise RunFault(pc, f"unknown helper {number}")
        if not proto.is_executable:
            raise RunFault(pc, not_executable(proto))
        return active.call(pc, CallSite(proto))

    return handle


def _bind_arena(site: ArenaSite, machine: Machine) -> Handler:
    arena = machine.arena

    def handle(active: Active) -> int:
        if arena is None:
            raise InternalError(f"pc {site.pc}: arena access without an arena")
        value = active.words[_ARG]
        if site.is_address:
            offset, reg = value - arena.kern_vm_start, u64(value - site.off)
        else:
            offset, reg = u32(value) + site.off, value
        if arena.is_present(offset, site.size):
            return 1
        active.run.report_fault(site.pc, reg, site.off, write=site.write, callers=active.callers())
        return 0

    return handle


def _bind_packet(site: PacketSite) -> Handler:
    def handle(active: Active) -> int:
        value = active.run.load_packet(site.pc, active.words[_ARG], site.size)
        return NO_PACKET if value is None else value

    return handle


def _bind_may_goto(pc: int) -> Handler:
    def handle(active: Active) -> int:
        rest = active.words[_ARG]
        if not rest:
            run = active.run
            run.stderr.push(
                b"ERROR: Timeout detected for may_goto instruction\n"
                + run.stack_dump(pc, active.callers())
            )
        return min(rest, MAY_GOTO_SLICE)

    return handle
