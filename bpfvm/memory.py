"""Memory that programs see: windows of native memory, regions in them, and the arena's protocol.

Every pointer a program holds is a real address in this process. A `Window` is reserved once and
never moves; a `Region` is a piece of it with exact bounds; `AddressSpace` finds the region that
an access falls into. The arena is apart (see `ArenaMemory`): its pages come and go.
"""

from __future__ import annotations

import bisect
import ctypes
import mmap
import threading
import weakref
from dataclasses import dataclass, field
from enum import Enum, unique
from typing import NamedTuple, Protocol

from bpfvm.errors import BpfError, InternalError

__all__ = [
    "PAGE_SIZE",
    "AddressSpace",
    "ArenaMemory",
    "Region",
    "RegionKind",
    "RegionSpec",
    "Window",
    "map_memory",
]

#: Bytes of an arena page, whatever the host's own pages are.
PAGE_SIZE = 4096


@unique
class RegionKind(Enum):
    """What an address points into; also the verifier's finding for each memory operand."""

    STACK = "stack"
    CTX = "ctx"
    PACKET = "packet"
    MAP_VALUE = "map_value"
    MEM = "mem"
    ARENA = "arena"


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes [base, base + size) that a program may touch.

    With *stride* nonzero the region is an array of elements *stride* bytes apart of which only
    the first *elem_size* bytes of each may be touched (map values; the rest is padding), and no
    access may cross from one element into the next.
    """

    base: int
    size: int
    kind: RegionKind
    writable: bool
    view: memoryview = field(compare=False, repr=False)
    stride: int = 0
    elem_size: int = 0

    def allows(self, addr: int, size: int, *, write: bool) -> bool:
        """Say whether *size* bytes at *addr* lie wholly inside and may be accessed so."""
        at = addr - self.base
        if at < 0 or at + size > self.size or (write and not self.writable):
            return False
        return not self.stride or at % self.stride + size <= self.elem_size


_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_MAP_FAILED = ctypes.c_void_p(-1).value
MAP_32BIT = 0x40
MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000


def map_memory(addr: int, size: int, prot: int, flags: int, fd: int = -1) -> int:
    """Call mmap(2); return the address.

    Raises:
        OSError: with the errno of the call.
    """
    got = _libc.mmap(addr or None, size, prot, flags, fd, 0)
    if got is None or got == _MAP_FAILED:
        errno = ctypes.get_errno()
        raise OSError(errno, f"mmap of {size} bytes failed")
    return int(got)


def unmap_memory(addr: int, size: int) -> None:
    """Call munmap(2)."""
    _libc.munmap(addr, size)


def view_of(addr: int, size: int, *, owner: object | None = None) -> memoryview:
    """Return the *size* bytes at *addr* as a writable byte view that keeps *owner* alive."""
    array = (ctypes.c_ubyte * size).from_address(addr)
    array._owner = owner  # type: ignore[attr-defined]  # ctypes arrays have a __dict__
    return memoryview(array).cast("B")


def unmap_when_dead(owner: object, addr: int, size: int) -> None:
    """Unmap the *size* bytes at *addr* when *owner* is collected.

    Not at exit: views may outlive the finalizers that run there, and the process ends anyway.
    """
    weakref.finalize(owner, unmap_memory, addr, size).atexit = False


class Window:
    """Reserved native memory, committed by the kernel as it is touched.

    It stays mapped while the window or any view of it is alive. *low* asks for addresses below
    4 GiB (packets in the sandbox, whose context fields are 32 bits wide).
    """

    def __init__(self, size: int, *, low: bool = False) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE
        try:
            self.base = map_memory(
                0, size, mmap.PROT_READ | mmap.PROT_WRITE, flags | (MAP_32BIT if low else 0)
            )
        except OSError as e:
            raise BpfError(f"cannot reserve {size} bytes of memory for programs: {e}") from None
        self.size = size
        self._used = 0
        whole = (ctypes.c_ubyte * size).from_address(self.base)
        self.view = memoryview(whole).cast("B")
        unmap_when_dead(whole, self.base, size)

    def alloc(self, size: int, align: int = 16) -> tuple[int, memoryview]:
        """Return the address and view of *size* fresh zeroed bytes.

        Raises:
            BpfError: the window is full.
        """
        start = -(-self._used // align) * align
        if start + size > self.size:
            raise BpfError(f"out of program memory: {size} bytes wanted, {self.size - start} left")
        self._used = start + size
        return self.base + start, self.view[start : start + size]


class _Table(NamedTuple):
    """Regions by base. Replaced as a whole, so that threads that search it need no lock."""

    bases: tuple[int, ...] = ()
    regions: tuple[Region, ...] = ()


class RegionSpec(NamedTuple):
    """What a borrowed region must be like (see `AddressSpace.borrow`)."""

    size: int
    kind: RegionKind
    writable: bool = True
    low: bool = False

    @property
    def block_size(self) -> int:
        """The memory it takes: one of few sizes, so that others can have it afterwards."""
        return max(64, 1 << (self.size - 1).bit_length())


class AddressSpace:
    """The regions a machine's programs may touch, outside the arena."""

    #: Default reservation: enough for big maps, nothing is committed before it is touched.
    WINDOW = 8 << 30
    LOW_WINDOW = 16 << 20
    #: Borrowed regions that are kept for the next borrower, at most.
    IDLE = 16

    def __init__(self) -> None:
        size = self.WINDOW
        while True:
            try:
                self.window = Window(size)
                break
            except BpfError:
                size //= 4
                if size < 1 << 24:
                    raise
        try:
            self.low_window: Window | None = Window(self.LOW_WINDOW, low=True)
        except BpfError:
            self.low_window = None
        self._table = _Table()
        self._lock = threading.RLock()
        self._idle: list[tuple[RegionSpec, Region]] = []
        self._blocks: dict[tuple[int, bool], list[tuple[int, memoryview]]] = {}
        #: Runs between `enter_run` and `leave_run`; map elements that are gone rest meanwhile.
        self.runs_in_flight = 0
        #: Counts changes, so that engines can tell when a copy of the table is stale.
        self.generation = 0

    def enter_run(self) -> None:
        """Note that a run begins."""
        with self._lock:
            self.runs_in_flight += 1

    def leave_run(self) -> None:
        """Note that a run has ended."""
        with self._lock:
            self.runs_in_flight -= 1

    @property
    def regions(self) -> tuple[Region, ...]:
        """All regions, by base."""
        return self._table.regions

    def add(
        self,
        size: int,
        kind: RegionKind,
        *,
        writable: bool = True,
        stride: int = 0,
        elem_size: int = 0,
        low: bool = False,
    ) -> Region:
        """Allocate zeroed memory and make it a region. *low*: below 4 GiB where that can be had."""
        with self._lock:
            base, view = self._alloc(size, low)
            region = Region(base, size, kind, writable, view[:size], stride, elem_size)
            self.insert(region)
        return region

    def borrow(self, spec: RegionSpec) -> Region:
        """Make a region for a while; its bytes are whatever the last borrower left.

        A region that was given back may stay accessible until its memory is wanted, so that runs
        that follow each other don't change the table.
        """
        with self._lock:
            for i in reversed(range(len(self._idle))):
                if self._idle[i][0] == spec:
                    return self._idle.pop(i)[1]
            blocks = self._blocks.get((spec.block_size, spec.low))
            base, view = blocks.pop() if blocks else self._alloc(spec.block_size, spec.low)
            region = Region(base, spec.size, spec.kind, spec.writable, view[: spec.size])
            self.insert(region)
            return region

    def give_back(self, spec: RegionSpec, region: Region) -> None:
        """Return a region that `borrow` gave for *spec*."""
        with self._lock:
            self._idle.append((spec, region))
            if len(self._idle) <= self.IDLE:
                return
            spec, region = self._idle.pop(0)
            self.remove(region)
            window = self._window(spec.low)
            at = region.base - window.base
            block = region.base, window.view[at : at + spec.block_size]
            self._blocks.setdefault((spec.block_size, spec.low), []).append(block)

    def _window(self, low: bool) -> Window:
        return self.low_window if low and self.low_window is not None else self.window

    def _alloc(self, size: int, low: bool) -> tuple[int, memoryview]:
        # Never adjacent: an access that runs over an end must not land in a neighbour.
        return self._window(low).alloc(size + 64, 64)

    def insert(self, region: Region) -> None:
        """Make *region* accessible; it must not overlap another."""
        with self._lock:
            bases, regions = self._table
            at = bisect.bisect(bases, region.base)
            before = regions[at - 1] if at else None
            after = regions[at] if at < len(regions) else None
            if (before and before.base + before.size > region.base) or (
                after and region.base + region.size > after.base
            ):
                raise InternalError(f"region at {region.base:#x} overlaps another")
            self._table = _Table(
                (*bases[:at], region.base, *bases[at:]), (*regions[:at], region, *regions[at:])
            )
            self.generation += 1

    def remove(self, region: Region) -> None:
        """Make *region* inaccessible; its memory stays reserved."""
        with self._lock:
            bases, regions = self._table
            at = bisect.bisect_left(bases, region.base)
            if at == len(bases) or regions[at] is not region:
                raise InternalError(f"no region at {region.base:#x}")
            self._table = _Table(
                (*bases[:at], *bases[at + 1 :]), (*regions[:at], *regions[at + 1 :])
            )
            self.generation += 1

    def find(self, addr: int, size: int, *, write: bool) -> Region | None:
        """Return the region that allows this access, or None."""
        bases, regions = self._table
        at = bisect.bisect(bases, addr) - 1
        if at < 0:
            return None
        region = regions[at]
        return region if region.allows(addr, size, write=write) else None

    def read(self, addr: int, size: int) -> bytes | None:
        """Return *size* bytes at *addr*, or None where that is not allowed."""
        if size == 0:
            return b""
        region = self.find(addr, size, write=False)
        if region is None:
            return None
        at = addr - region.base
        return bytes(region.view[at : at + size])

    def write(self, addr: int, data: bytes) -> bool:
        """Store *data* at *addr*; False where that is not allowed."""
        if not data:
            return True
        region = self.find(addr, len(data), write=True)
        if region is None:
            return False
        at = addr - region.base
        region.view[at : at + len(data)] = data
        return True


class ArenaMemory(Protocol):
    """What engines need of an arena. Offsets are relative to `kern_vm_start`: (u32)ptr + off,
    so they run from -32768 to 2**32 + 32767; no address wraps (arena.md section 4.3).

    Attributes:
        kern_vm_start: 4 GiB aligned base of the kernel view; guards lie on both sides.
        user_vm_start, user_vm_end: the user view's bounds.
        cast_high: what a cast to user puts into the upper half: that of user_vm_start, or 0
            under BPF_F_NO_USER_CONV, where such a cast is a 32-bit move.
        band: the bytes [kern_vm_start, +4 GiB). Touch only pages that are present.
        presence_addr: address of one byte per page of the band, nonzero where the page is known
            to be present; 16 zero bytes lie before and after it for the guards. A zero byte is
            not final: ask `is_present`, which also sees pages that user space has touched.
    """

    kern_vm_start: int
    user_vm_start: int
    user_vm_end: int
    cast_high: int
    band: memoryview
    presence_addr: int

    def is_present(self, offset: int, size: int) -> bool:
        """Say whether all of [offset, offset + size) may be accessed now."""
        ...
