"""What a running program meets: the machine it runs on, the run it is part of, and its engines."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from bpfvm.bits import hi32, s32, u32, u64
from bpfvm.context import PROG_TYPES, CtxKind
from bpfvm.errors import RunFault
from bpfvm.laters import LaterTable, Start
from bpfvm.locktable import LockTable
from bpfvm.maps.base import Map
from bpfvm.memory import AddressSpace, ArenaMemory, Region, RegionKind, RegionSpec
from bpfvm.program import LocalType, Program
from bpfvm.proto import FuncProto, Registry, RetType, Variant
from bpfvm.xlated import MAP_IMAGE_SIZE, Xlated

__all__ = [
    "ARENA_GUARD",
    "FRAME_SIZE",
    "MAX_FRAMES",
    "MAY_GOTO_LIMIT",
    "Engine",
    "Executable",
    "Fault",
    "Machine",
    "Object",
    "RunContext",
    "Stream",
    "func_address",
]

#: Stack bytes of one frame in the sandbox, and the most a verified call chain uses in all.
FRAME_SIZE = 512
#: How often one frame's may_gotos fall through before they jump (kernel: BPF_MAX_LOOPS).
MAY_GOTO_LIMIT = 8 * 1024 * 1024
#: Bytes on both sides of an arena that an insn's signed 16-bit offset can reach.
ARENA_GUARD = 1 << 15
#: The most frames of a call chain in the sandbox; one more is a run fault.
MAX_FRAMES = 16


#: What stands for the address of slot 0 as a pointer to a subprog. Nothing lies there: it is
#: where the kernel's programs would lie.
_FUNC_BASE = 0xFFFF_FFFF_C000_0000
_SLOT = 8
#: Offsets of packet loads that count from the network or the link header (kernel: SKF_NET_OFF,
#: SKF_LL_OFF), and where the network header is.
_SKF_NET_OFF, _SKF_LL_OFF, _ETH_HLEN = -0x100000, -0x200000, 14


def func_address(slot: int) -> int:
    """Return what a program holds as the address of the subprog that starts at *slot*."""
    return _FUNC_BASE + slot * _SLOT


class Stream:
    """A program's output stream: at most `CAPACITY` - 1 bytes, all or nothing per push."""

    CAPACITY = 100_000

    def __init__(self) -> None:
        self.data = bytearray()

    def push(self, data: bytes) -> bool:
        """Append *data*; False (ENOSPC) where it does not fit."""
        if len(self.data) + len(data) >= self.CAPACITY:
            return False
        self.data += data
        return True


class Fault(NamedTuple):
    """An arena access to an absent page: slot, reported address, and whether it wrote."""

    insn: int
    addr: int
    write: bool


class Object(NamedTuple):
    """Memory that a program has for one of its own structs."""

    kind: LocalType
    spec: RegionSpec
    region: Region


class Machine:
    """The instances that programs of one object share: memory, live maps, arena.

    `maps[i]` is the live map of `Program.maps[i]`. A map's *handle* is what a program holds as
    its map pointer: an address that names the map. Nothing can be read there unless it was shown.
    """

    def __init__(
        self,
        space: AddressSpace,
        maps: Sequence[Map],
        registry: Registry,
        arena: ArenaMemory | None = None,
    ) -> None:
        self.space, self.maps, self.registry, self.arena = space, tuple(maps), registry, arena
        self.locks = LockTable()
        self.laters = LaterTable()
        #: Objects of programs, by address.
        self.objects: dict[int, Object] = {}
        places = [space.window.alloc(MAP_IMAGE_SIZE, 64) for _ in self.maps]
        self._handles = [base for base, _ in places]
        self._views = [view for _, view in places]
        self._shown: set[int] = set()
        self._by_handle = dict(zip(self._handles, self.maps, strict=True))

    def map_handle(self, index: int) -> int:
        """Return the handle of map number *index*."""
        return self._handles[index]

    def show_map(self, index: int, image: bytes) -> None:
        """Let programs read *image* through the pointer of map number *index*."""
        if index not in self._shown:
            self._shown.add(index)
            view = self._views[index][: len(image)]
            view[:] = image
            self.space.insert(
                Region(self._handles[index], len(image), RegionKind.MEM, False, view, 0, 0)
            )

    def map_of(self, handle: int) -> Map | None:
        """Return the map that *handle* names, or None."""
        return self._by_handle.get(handle)


@dataclass
class RunContext:
    """One run of one program.

    Attributes:
        machine: shared instances.
        program: what runs (its subprog names and line info serve stack dumps).
        stack_top: end of the run's stack memory, `MAX_FRAMES` frames of `FRAME_SIZE`; frame k's
            r10 is stack_top - k * FRAME_SIZE in the interpreter and in the sandbox.
        sleepable: the program's own context.
        cpu: number that bpf_get_smp_processor_id gives.
        budget: insns left for an unverified program, None: no limit. It is charged for a whole
            basic block (`bpfvm.flow.leaders`) when the block is entered; a block that does not
            fit any more is not entered and ends the run at its first slot.
        fail_alloc: asked before each page allocation; True makes it fail.
        may_goto_limit: see `MAY_GOTO_LIMIT`.
    """

    machine: Machine
    program: Program
    stack_top: int
    sleepable: bool = False
    cpu: int = 0
    budget: int | None = None
    fail_alloc: Callable[[], bool] | None = None
    may_goto_limit: int = MAY_GOTO_LIMIT
    clear_on_fault: bool = True
    rng: random.Random = field(default_factory=random.Random)
    clock: Callable[[], int] = time.monotonic_ns
    stdout: Stream = field(default_factory=Stream)
    stderr: Stream = field(default_factory=Stream)
    trace: bytearray = field(default_factory=bytearray)
    faults: list[Fault] = field(default_factory=list)
    #: Slot of the helper or kfunc call in progress, and of the local calls open around it,
    #: innermost last: engines keep both, helpers' messages and stack dumps read them.
    pc: int = 0
    callers: list[int] = field(default_factory=list)
    #: RCU read sections, preemption-disabled and IRQ-disabled regions that are open.
    rcu_depth: int = 0
    preempt_depth: int = 0
    irq_depth: int = 0
    #: Addresses of the locks that the run holds, in the order it took them.
    held: list[int] = field(default_factory=list)
    #: Bits that the iterator at an address goes over.
    iter_bits: dict[int, int] = field(default_factory=dict)
    #: The packet from its Ethernet header on, and where the program's view of it begins.
    skb: tuple[memoryview, int] | None = None
    #: Set by the engine: runs the subprog that starts at a slot as the callee of the helper in
    #: progress, with r1.. from its arguments, and returns its r0.
    enter: Callable[[int, Sequence[int]], int] | None = None
    #: Runs the program of that name of this object on a context, in place of the frame that calls
    #: (kernel: bpf_tail_call), and returns its r0; None: slots of prog_arrays are empty.
    jump: Callable[[RunContext, str, int], int] | None = None
    #: Makes of a subprog's address what runs it later, apart from this run; None: nothing does.
    later: Callable[[int], Start] | None = None
    #: How many tail calls there were: one count for all programs and frames of a run.
    jumps: list[int] = field(default_factory=lambda: [0])
    #: What the program that the helper call in progress jumped to has returned: the engine leaves
    #: the frame with it.
    left: int | None = None

    def load_packet(self, pc: int, offset: int, size: int) -> int | None:
        """Return *size* bytes of the packet at *offset* (mod 2**32), big-endian, or None where they
        are not in it (kernel: bpf_skb_load_helper_8 and kin).

        Raises:
            RunFault: the program has no packet.
        """
        if self.skb is None:
            raise RunFault(pc, "no packet to load from")
        frame, data = self.skb
        at = s32(u32(offset))
        if at >= 0:
            at += data
        elif at >= _SKF_NET_OFF:
            at += _ETH_HLEN - _SKF_NET_OFF
        elif at >= _SKF_LL_OFF:
            at -= _SKF_LL_OFF
        else:
            return None
        return int.from_bytes(frame[at : at + size], "big") if at + size <= len(frame) else None

    def packet_of(self, ctx: int) -> tuple[int, int]:
        """Return where the packet of the context at *ctx* begins and ends.

        Raises:
            RunFault: programs of the type see no packet.
        """
        fields = PROG_TYPES[self.program.prog_type].fields or ()
        found = {f.kind: f.internal_off for f in fields}
        start, end = found.get(CtxKind.PACKET), found.get(CtxKind.PACKET_END)
        if start is None or end is None:
            raise RunFault(self.pc, "the context has no packet")
        words = self.read(ctx + start, 8), self.read(ctx + end, 8)
        return int.from_bytes(words[0], "little"), int.from_bytes(words[1], "little")

    def call_back(self, function: int, *args: int) -> int:
        """Run the subprog whose address the program gave to a helper; return its r0.

        Raises:
            RunFault: *function* is not one that the program takes the address of.
        """
        pc, slot = self.pc, self.slot_of(function)
        if self.enter is None:
            raise RunFault(pc, "no engine to call back")
        result = self.enter(slot, args)
        self.pc = pc
        return result

    def slot_of(self, function: int) -> int:
        """Return where the subprog starts whose address the program gave to a helper.

        Raises:
            RunFault: *function* is not one that the program takes the address of.
        """
        slot, rest = divmod(function - _FUNC_BASE, _SLOT)
        if rest or not any(s.start == slot for s in self.program.subprogs):
            raise RunFault(self.pc, f"{function:#x} is not a subprogram")
        return slot

    def call(self, pc: int, proto: FuncProto, variant: Variant, args: Sequence[int]) -> int:
        """Run helper or kfunc *proto* for the call in slot *pc*; return what it leaves in r0.

        A kfunc that returns a C int leaves its 32 bits zero-extended (x86-64's ABI); helpers
        return 64 bits.
        """
        self.pc = pc
        result = proto.impl(variant)(self, *args)
        narrow = proto.ret is RetType.INT32 and proto.helper_id is None
        return u32(result) if narrow else u64(result)

    def unlock(self, addr: int) -> None:
        """Give back the lock at *addr*.

        Raises:
            RunFault: the run does not hold it.
        """
        if not self.machine.locks.release(addr, self):
            raise RunFault(self.pc, f"lock at {addr:#x} is not held")
        self.held.remove(addr)

    def end(self) -> None:
        """Give back what a run that ended early has left locked."""
        while self.held:
            self.machine.locks.release(self.held.pop(), self)

    def read(self, addr: int, size: int) -> bytes:
        """Return *size* bytes a helper was pointed to.

        Raises:
            RunFault: the program may not read them.
        """
        data = self.machine.space.read(addr, size)
        if data is None:
            raise RunFault(self.pc, f"helper may not read {size} bytes at {addr:#x}")
        return data

    def write(self, addr: int, data: bytes) -> None:
        """Store *data* where a helper was pointed to.

        Raises:
            RunFault: the program may not write there.
        """
        if not self.machine.space.write(addr, data):
            raise RunFault(self.pc, f"helper may not write {len(data)} bytes at {addr:#x}")

    def map_arg(self, handle: int) -> Map:
        """Return the map a helper was given.

        Raises:
            RunFault: *handle* names none.
        """
        found = self.machine.map_of(handle)
        if found is None:
            raise RunFault(self.pc, f"{handle:#x} is not a map")
        return found

    def report_fault(
        self, pc: int, reg: int, off: int, *, write: bool, callers: Sequence[int]
    ) -> None:
        """Record an access to an absent arena page and report it to stderr (arena.md 4.6).

        Args:
            pc: slot of the access.
            reg: the 64-bit address register's value; the sandbox's kernel view address
                counts as the arena offset it stands for.
            off: the insn's offset.
            write: how the kernel classifies it (every atomic but load-acquire writes).
            callers: slots of the calls that are open, innermost last.
        """
        arena = self.machine.arena
        high = 0
        if arena is not None:
            high = hi32(arena.user_vm_start)
            if -ARENA_GUARD <= reg + off - arena.kern_vm_start < (1 << 32) + ARENA_GUARD:
                reg -= arena.kern_vm_start
        addr = u64(high + reg + off)
        self.faults.append(Fault(pc, addr, write))
        how = "WRITE" if write else "READ"
        self.stderr.push(
            f"ERROR: Arena {how} access at unmapped address {addr:#x}\n".encode()
            + self.stack_dump(pc, callers)
        )

    def stack_dump(self, pc: int, callers: Sequence[int]) -> bytes:
        """Return the text of a stack dump (kernel: bpf_stream_stage_dump_stack).

        Frame offsets and sizes count bytes of BPF insns, the same in every engine.
        """
        lines = [
            f"CPU: {self.cpu} UID: {os.geteuid()} PID: {threading.get_native_id()} Comm: bpfvm",
            "Call trace:",
        ]
        for slot in (pc, *reversed(callers)):
            sub = next((s for s in self.program.subprogs if s.start <= slot < s.end), None)
            if sub is None:
                continue
            lines.append(f"{sub.name}+{(slot - sub.start) * 8:#x}/{(sub.end - sub.start) * 8:#x}")
            line = None
            for info in self.program.line_info:
                if info.insn_off > slot:
                    break
                line = info
            if line is not None:
                lines.append(
                    f"  {line.source.lstrip()} @ {line.file.rsplit('/', 1)[-1]}:{line.line}"
                )
        return ("\n".join(lines) + "\n\n").encode()


class Executable(Protocol):
    """A program linked to a machine."""

    def run(self, run: RunContext, r1: int, r2: int = 0) -> int:
        """Run to the end and return r0 (unsigned 64 bits).

        Raises:
            RunFault: it ended early (sandbox only; of a verified program it is an InternalError).
        """
        ...

    def call(self, run: RunContext, slot: int, args: Sequence[int]) -> int:
        """Run the subprog at *slot*, which the program takes the address of, with *args* as the
        outermost frame, and return its r0.

        Raises:
            RunFault: see `run`.
        """
        ...


class Engine(Protocol):
    """An interpreter or a compiler."""

    name: str

    def link(self, xlated: Xlated, machine: Machine) -> Executable:
        """Prepare *xlated* for runs on *machine*.

        Raises:
            LoadError: an unverified program that has no meaning (see `bpfvm.flow.check_structure`).
        """
        ...
