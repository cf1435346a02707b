"""The rig of the JIT's tests: runs insns in both engines on the same memory and compares all."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from bpfvm import isa
from bpfvm.errors import InternalError, RunFault
from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn
from bpfvm.interp import Interpreter
from bpfvm.memory import (
    MAP_FIXED,
    MAP_NORESERVE,
    AddressSpace,
    Region,
    RegionKind,
    map_memory,
    unmap_memory,
    view_of,
)
from bpfvm.program import Program
from bpfvm.proto import FuncProto, Registry
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES, Executable, Fault, Machine, RunContext
from bpfvm.xlated import CallSite, InsnAux, Xlated, unverified
from jit.engine import Jit
from jit.llvm import Pipeline

GIB = 1 << 30
U64 = 1 << 64
ROWS = {row.mnemonic: row for row in isa.TABLE}


class RealArena:
    """An arena on real memory whose pages come and go by hand."""

    def __init__(self, user_vm_start: int = 0x7E0000000000) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        self._size = 12 * GIB
        self._base = map_memory(0, self._size, 0, flags)
        self.kern_vm_start = (self._base + 8 * GIB - 1) // (4 * GIB) * (4 * GIB)
        rw = mmap.PROT_READ | mmap.PROT_WRITE
        map_memory(self.kern_vm_start, 4 * GIB, rw, flags | MAP_FIXED)
        self.user_vm_start, self.user_vm_end = user_vm_start, user_vm_start + 4 * GIB
        self.cast_high = user_vm_start & ~0xFFFFFFFF
        self.band = view_of(self.kern_vm_start, 4 * GIB, owner=self)
        self._presence = (ctypes.c_ubyte * ((1 << 20) + 32))()
        self.presence_addr = ctypes.addressof(self._presence) + 16
        self.touched: set[int] = set()

    def close(self) -> None:
        unmap_memory(self._base, self._size)

    def add_page(self, *numbers: int) -> None:
        for number in numbers:
            self._presence[16 + number] = 1

    def drop_page(self, number: int) -> None:
        self._presence[16 + number] = 0

    def is_present(self, offset: int, size: int) -> bool:
        pages = range(offset >> 12, ((offset + size - 1) >> 12) + 1)
        return all(
            0 <= p < 1 << 20 and (self._presence[16 + p] or p in self.touched) for p in pages
        )


@dataclass(frozen=True)
class Outcome:
    """All that a run leaves behind."""

    r0: int | None
    error: str
    memory: tuple[bytes, ...]
    arena: bytes
    budget: int | None
    faults: tuple[Fault, ...]
    stderr: bytes
    stdout: bytes


@dataclass
class Pair:
    """A program linked by both engines; calling it runs both and compares."""

    rig: Rig
    xlated: Xlated
    interp: Executable
    jit: Executable
    last: list[RunContext] = field(default_factory=list)

    def __call__(self, r1: int = 0, r2: int = 0, **context: object) -> Outcome:
        before = self.rig.save()
        expected = self.rig.run(self.interp, self.xlated, r1, r2, **context)
        self.rig.restore(before)
        got = self.rig.run(self.jit, self.xlated, r1, r2, **context)
        assert got == expected, f"r1={r1:#x} r2={r2:#x}"
        return got


class Rig:
    """A machine with a stack and one region of memory for the test."""

    def __init__(
        self,
        arena: RealArena | None = None,
        registry: Registry | None = None,
        maps: Sequence[Any] = (),
        size: int = 256,
    ) -> None:
        self.space = AddressSpace()
        self.stack = self.space.add(FRAME_SIZE * MAX_FRAMES, RegionKind.STACK)
        self.memory = self.space.add(size, RegionKind.MEM)
        self.watched: list[Region] = [self.memory]
        self.arena = arena
        self.machine = Machine(self.space, maps, registry or Registry([]), arena)
        #: Compiles the sandbox's programs quickly; verified ones are compiled with care here.
        self.jit = Jit()
        self.careful_jit = Jit(Pipeline.NORMAL)

    def xlated(
        self,
        insns: Sequence[Insn],
        *,
        verified: bool = False,
        calls: dict[int, FuncProto] | None = None,
        access: RegionKind | None = RegionKind.MEM,
        **program: object,
    ) -> Xlated:
        made = Program("test", tuple(insns), "xdp", find_subprogs(insns), **program)
        if not verified:
            return unverified(made)
        calls = calls or {}
        aux = tuple(
            InsnAux(access=access, call=CallSite(calls[i]) if i in calls else None)
            for i in range(len(insns))
        )
        return replace(unverified(made), aux=aux, verified=True)

    def pair(self, insns: Sequence[Insn], **fields: object) -> Pair:
        return self.link(self.xlated(insns, **fields))

    def link(self, xlated: Xlated) -> Pair:
        machine = self.machine
        engine = self.careful_jit if xlated.verified else self.jit
        return Pair(self, xlated, Interpreter().link(xlated, machine), engine.link(xlated, machine))

    def context(self, xlated: Xlated, **fields: object) -> RunContext:
        top = self.stack.base + self.stack.size
        return RunContext(self.machine, xlated.program, top, **fields)

    def run(
        self, executable: Executable, xlated: Xlated, r1: int, r2: int, **context: object
    ) -> Outcome:
        if not xlated.verified:
            context.setdefault("budget", 100_000)
        run = self.context(xlated, **context)
        r0, error = None, ""
        try:
            r0 = executable.run(run, r1, r2)
        except (RunFault, InternalError) as e:
            error = f"{type(e).__name__}: {e}"
        return Outcome(
            r0,
            error,
            tuple(bytes(r.view) for r in self.watched),
            self.arena_bytes(),
            run.budget,
            tuple(run.faults),
            bytes(run.stderr.data),
            bytes(run.stdout.data),
        )

    def arena_bytes(self) -> bytes:
        """The first 16 pages and the last one."""
        if self.arena is None:
            return b""
        return bytes(self.arena.band[: 16 << 12]) + bytes(self.arena.band[-4096:])

    def save(self) -> tuple[list[bytes], bytes]:
        return [bytes(r.view) for r in self.watched], self.arena_bytes()

    def restore(self, saved: tuple[list[bytes], bytes]) -> None:
        for region, data in zip(self.watched, saved[0], strict=True):
            region.view[:] = data
        if self.arena:
            self.arena.band[: 16 << 12] = saved[1][:-4096]
            self.arena.band[-4096:] = saved[1][-4096:]


def _op(mnemonic: str, dst: int = 0, src: int = 0, *, off: int = 0, imm: int = 0) -> Insn:
    row = ROWS[mnemonic]
    return Insn(row.opcode, dst, src, off, imm)._replace(**dict(row.fixed))


def _lddw(dst: int, value: int, kind: str = "lddw") -> list[Insn]:
    low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    signed = [n - (1 << 32) if n >> 31 else n for n in (low, high)]
    return [_op(kind, dst, imm=signed[0]), Insn(0, imm=signed[1])]


@pytest.fixture(scope="session")
def op() -> Callable[..., Insn]:
    """An insn by its mnemonic, fixed fields filled in."""
    return _op


@pytest.fixture(scope="session")
def lddw() -> Callable[..., list[Insn]]:
    """Both slots of an ldimm64."""
    return _lddw


@pytest.fixture(scope="module")
def rig() -> Rig:
    return Rig()


@pytest.fixture(scope="session")
def make_rig() -> type[Rig]:
    return Rig


@pytest.fixture
def arena() -> Iterator[RealArena]:
    made = RealArena()
    yield made
    made.band.release()
    made.close()


@pytest.fixture
def arena_rig(arena: RealArena) -> Rig:
    return Rig(arena)
