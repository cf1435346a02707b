"""What the interpreter's tests share: insns by mnemonic, machines, and a fake arena."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from bpfvm import isa
from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn
from bpfvm.interp import Interpreter
from bpfvm.memory import AddressSpace, RegionKind
from bpfvm.program import Program
from bpfvm.proto import Registry
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES, Machine, RunContext
from bpfvm.xlated import InsnAux, Xlated, unverified

#: Fields of a Program or a RunContext, by keyword.
Fields: TypeAlias = Any

PAGE = 4096
U64 = 2**64
_ROWS = {row.mnemonic: row for row in isa.TABLE}
EXIT = Insn(0x95)


def op(mnemonic: str, dst: int = 0, src: int = 0, *, off: int = 0, imm: int = 0) -> Insn:
    """Return the insn *mnemonic* (a row of the table), its fixed fields filled in."""
    row = _ROWS[mnemonic]
    insn = Insn(row.opcode, dst, src, off, imm)
    return insn._replace(**dict(row.fixed))


def lddw(dst: int, value: int, kind: str = "lddw") -> tuple[Insn, Insn]:
    """Return both slots of an ldimm64."""
    low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    signed = [n - (1 << 32) if n >> 31 else n for n in (low, high)]
    return op(kind, dst, imm=signed[0]), Insn(0, imm=signed[1])


def flat(*parts: Insn | Sequence[Insn]) -> tuple[Insn, ...]:
    """Return the insns of *parts*, each an insn or several."""
    out: list[Insn] = []
    for part in parts:
        if isinstance(part, Insn):
            out.append(part)
        else:
            out.extend(part)
    return tuple(out)


class FakeArena:
    """An arena of 16 MiB of real memory that stands at a made-up, aligned base; pages by hand."""

    def __init__(self, user_vm_start: int = 0x7F0000000000) -> None:
        self.kern_vm_start = 0x5_0000_0000
        self.user_vm_start, self.user_vm_end = user_vm_start, user_vm_start + (1 << 32)
        self.cast_high = user_vm_start & ~0xFFFFFFFF
        self._bytes = bytearray(16 << 20)
        self.band = memoryview(self._bytes)
        self._presence = (ctypes.c_ubyte * ((1 << 20) + 32))()
        self.presence_addr = ctypes.addressof(self._presence) + 16
        #: Pages that only `is_present` knows, as if user space had touched them.
        self.touched: set[int] = set()

    def add_page(self, number: int) -> None:
        self._presence[16 + number] = 1

    def is_present(self, offset: int, size: int) -> bool:
        pages = range(offset >> 12, ((offset + size - 1) >> 12) + 1)
        return all(
            0 <= page < 1 << 20 and (self._presence[16 + page] or page in self.touched)
            for page in pages
        )


class Bench:
    """A machine with a stack, and runs on it."""

    def __init__(
        self,
        registry: Registry | None = None,
        arena: FakeArena | None = None,
        maps: Sequence[Any] = (),
    ) -> None:
        self.space = AddressSpace()
        size = FRAME_SIZE * MAX_FRAMES
        self.stack = self.space.add(size, RegionKind.STACK)
        built = [make(self.space) if callable(make) else make for make in maps]
        self.machine = Machine(self.space, built, registry or Registry([]), arena)
        self.last: RunContext | None = None

    @property
    def stack_top(self) -> int:
        return self.stack.base + self.stack.size

    def xlated(self, insns: Sequence[Insn], *, verified: bool = False, **fields: Fields) -> Xlated:
        program = Program("test", tuple(insns), "socket_filter", find_subprogs(insns), **fields)
        sandboxed = unverified(program)
        return replace(sandboxed, verified=True) if verified else sandboxed

    def context(self, xlated: Xlated, **fields: Fields) -> RunContext:
        self.last = RunContext(self.machine, xlated.program, self.stack_top, **fields)
        return self.last

    def run_xlated(self, xlated: Xlated, r1: int = 0, r2: int = 0, **fields: Fields) -> int:
        linked = Interpreter().link(xlated, self.machine)
        return linked.run(self.context(xlated, **fields), r1, r2)

    def run(self, *parts: Insn | Sequence[Insn], r1: int = 0, r2: int = 0, **fields: Fields) -> int:
        """Run *parts* and a final exit in the sandbox; return r0."""
        return self.run_xlated(self.xlated(flat(*parts, EXIT)), r1, r2, **fields)

    def run_verified(
        self,
        *parts: Insn | Sequence[Insn],
        r1: int = 0,
        r2: int = 0,
        aux: Callable[[int], InsnAux] | None = None,
        **fields: Fields,
    ) -> int:
        """Run *parts* and a final exit as if the verifier had made them."""
        xlated = self.xlated(flat(*parts, EXIT), verified=True)
        if aux is not None:
            xlated = replace(xlated, aux=tuple(aux(i) for i in range(len(xlated.insns))))
        return self.run_xlated(xlated, r1, r2, **fields)
