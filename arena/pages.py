"""An arena's native memory: one memfd, mapped as kernel view and as user view, and its pages.

This is the `plain` memory: no signals. A page exists when the memfd has data there. What the
arena itself made is noted in a byte map that engines read directly; a page that user space made
by touching it is found by asking the memfd (`is_data`, `unknown_pages`).

The views stay mapped while any memoryview of them lives, whatever becomes of the arena.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import weakref
from collections.abc import Iterator
from errno import EEXIST, EINVAL, ENOMEM, ENXIO, EOPNOTSUPP

from bpfvm.bits import hi32, u32
from bpfvm.errors import BpfError, MapError
from bpfvm.memory import (
    MAP_FIXED,
    MAP_NORESERVE,
    PAGE_SIZE,
    Window,
    map_memory,
    unmap_memory,
)

__all__ = ["BAND", "PAGE_SHIFT", "ArenaPages"]

PAGE_SHIFT = PAGE_SIZE.bit_length() - 1
#: The 32-bit address range that arena pointers span.
BAND = 1 << 32
#: Unmapped on both sides of the band: an insn's offset reaches 32 KiB, and 8 bytes further.
_GUARD = 1 << 16

_PROT_NONE = 0
_MAP_FIXED_NOREPLACE = 0x100000
_MADV_DONTFORK, _MADV_NOHUGEPAGE, _MADV_POPULATE_WRITE = 10, 15, 23
_FALLOC_PUNCH_HOLE = 0x02 | 0x01  # with FALLOC_FL_KEEP_SIZE
#: Pages of one allocation that are made at once; more are made as they are touched.
_EAGER = 4096
#: Values of the presence map.
_ABSENT, _MADE, _PROMISED = b"\x00", b"\x01", b"\x02"
_BLOCKS = PAGE_SIZE // 512

_libc = ctypes.CDLL(None, use_errno=True)
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_FALLOCATE = getattr(_libc, "fallocate64", None) or _libc.fallocate
_FALLOCATE.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


class ArenaPages:
    """The memory of an arena of *count* pages.

    Page numbers count from the arena's start (pgoff). Nothing here locks: the arena does.

    Attributes:
        kern_vm_start: base of the kernel view's 4 GiB band, 4 GiB aligned.
        user_vm_start: base of the user view; it never crosses a 4 GiB line.
        band: all of the band's bytes. Only those of present pages may be touched.
        user: the user view's bytes.
        presence_addr: see `bpfvm.memory.ArenaMemory`.
    """

    def __init__(self, name: str, count: int, user_vm_start: int) -> None:
        """Create the memory; *user_vm_start* 0 leaves the place to mmap.

        Raises:
            MapError: with mmap's errno.
        """
        if not hasattr(os, "memfd_create"):
            raise MapError(f"map {name}: arenas need Linux", EOPNOTSUPP)
        self.count = count
        self.size = count * PAGE_SIZE
        self._fd = os.memfd_create("bpf_arena", os.MFD_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False
        try:
            os.ftruncate(self._fd, self.size)
            self.user_vm_start, self.user = self._map_user_view(user_vm_start)
            self.kern_vm_start, self.band = self._map_kernel_view()
            presence = Window((BAND >> PAGE_SHIFT) + 2 * PAGE_SIZE)
        except BpfError as e:
            raise MapError(f"map {name}: {e}", ENOMEM) from None
        except OSError as e:
            errno = e.errno or 0
            at = f" at {user_vm_start:#x}" if user_vm_start else ""
            why = self._who_is_at(user_vm_start) if errno == EEXIST else os.strerror(errno).lower()
            raise MapError(f"map {name}: cannot map an arena{at}: {why}", errno) from None
        _LIVE.add(self)
        self.presence_addr = presence.base + PAGE_SIZE
        pages = presence.view[PAGE_SIZE : PAGE_SIZE + (BAND >> PAGE_SHIFT)]
        first = u32(self.user_vm_start) >> PAGE_SHIFT
        self._presence = pages[first : first + count]
        # Pages are made through the kernel view, where programs will touch them next.
        self._kern = self.band[first << PAGE_SHIFT : (first + count) << PAGE_SHIFT]
        # Blocks of the memfd that the presence map accounts for, and pages that are promised:
        # while there are such, the number of blocks tells nothing about user space.
        self._blocks = 0
        self._promised = 0

    def _who_is_at(self, at: int) -> str:
        for other in _LIVE:
            if at < other.user_vm_start + other.size and other.user_vm_start < at + self.size:
                return "an arena of this process that is still in use lies there"
        return "memory of this process lies there"

    def _map_user_view(self, at: int) -> tuple[int, memoryview]:
        prot, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED | MAP_NORESERVE
        if at:
            try:
                self._map_at(at, prot, flags)
            except FileExistsError:
                # Perhaps by an arena that only a cycle of references keeps.
                gc.collect()
                self._map_at(at, prot, flags)
        else:
            hole = _reserve(2 * self.size)
            at = hole
            if hi32(at) != hi32(at + self.size - 1):
                at = hi32(at + BAND)
            _trim(hole, 2 * self.size, at, self.size)
            view = _own(at, self.size)
            map_memory(at, self.size, prot, flags | MAP_FIXED, self._fd)
            _advise(at, self.size)
            return at, view
        _advise(at, self.size)
        return at, _own(at, self.size)

    def _map_at(self, at: int, prot: int, flags: int) -> None:
        got = map_memory(at, self.size, prot, flags | _MAP_FIXED_NOREPLACE, self._fd)
        if got != at:  # a kernel that takes the flag for a hint
            unmap_memory(got, self.size)
            raise FileExistsError(EEXIST, os.strerror(EEXIST))

    def _map_kernel_view(self) -> tuple[int, memoryview]:
        wanted = BAND + 2 * _GUARD
        hole = _reserve(BAND + wanted)
        start = hi32(hole + _GUARD + BAND - 1)
        _trim(hole, BAND + wanted, start - _GUARD, wanted)
        whole = _own(start - _GUARD, wanted)
        map_memory(
            start + u32(self.user_vm_start),
            self.size,
            mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_SHARED | MAP_NORESERVE | MAP_FIXED,
            self._fd,
        )
        _advise(start - _GUARD, wanted)
        return start, whole[_GUARD : _GUARD + BAND]

    # -- what is there ------------------------------------------------------------------------

    def is_noted(self, page: int) -> bool:
        """Say whether the presence map has *page*."""
        return self._presence[page] != 0

    def is_data(self, page: int) -> bool:
        """Say whether the memfd has data in *page*."""
        return self._next_data(page) == page

    def next_data(self, page: int, end: int) -> int | None:
        """Return the first page of [page, end) that has data."""
        found = self._next_data(page)
        return found if found is not None and found < end else None

    def _next_data(self, page: int) -> int | None:
        try:
            return os.lseek(self._fd, page << PAGE_SHIFT, os.SEEK_DATA) >> PAGE_SHIFT
        except OSError as e:
            if e.errno != ENXIO:
                raise
            return None

    @property
    def is_exact(self) -> bool:
        """Whether `unknown_pages` finds all: no pages are promised."""
        return not self._promised

    def unknown_pages(self) -> Iterator[int]:
        """Yield the pages that user space has made and the presence map doesn't have.

        The caller notes each (`note`). Nothing is yielded unless `is_exact`: else `next_data`
        must be asked about the range in question.
        """
        if self._promised or os.fstat(self._fd).st_blocks == self._blocks:
            return
        noted = bytes(self._presence)
        page = self._next_data(0)
        while page is not None:
            if noted[page]:
                page = noted.find(_ABSENT, page)
                if page < 0:
                    return
            else:
                yield page
                page += 1
            if page >= self.count:
                return
            page = self._next_data(page)

    @property
    def present_count(self) -> int:
        """Pages that the presence map has."""
        return self.count - bytes(self._presence).count(_ABSENT)

    # -- making and dropping ------------------------------------------------------------------

    def note(self, page: int) -> None:
        """Note that user space has made *page*."""
        self._presence[page] = 1
        self._blocks += _BLOCKS

    def make(self, page: int, count: int) -> bool:
        """Make *count* pages from *page*, all zero; False where there is no memory.

        They must be holes of the memfd now.
        """
        if count > _EAGER:
            self._presence[page : page + count] = _PROMISED * count
            self._promised += count
            return True
        if count > 1 and not self._populate(page, count):
            self._punch(page, count)
            return False
        if count == 1:
            self._kern[page << PAGE_SHIFT] = 0
        self._presence[page : page + count] = _MADE * count
        self._blocks += count * _BLOCKS
        return True

    def _populate(self, page: int, count: int) -> bool:
        addr = self.kern_vm_start + u32(self.user_vm_start) + (page << PAGE_SHIFT)
        if _libc.madvise(addr, count << PAGE_SHIFT, _MADV_POPULATE_WRITE) == 0:
            return True
        if ctypes.get_errno() != EINVAL:  # a kernel older than 5.14
            return False
        for at in range(page << PAGE_SHIFT, (page + count) << PAGE_SHIFT, PAGE_SIZE):
            self._kern[at] = 0
        return True

    def drop(self, page: int, count: int) -> None:
        """Remove *count* pages from *page*, whoever made them."""
        if count == 1:
            value = self._presence[page]
            made, promised = int(value == 1), int(value == 2)
            self._presence[page] = 0
        else:
            noted = bytes(self._presence[page : page + count])
            made, promised = noted.count(_MADE), noted.count(_PROMISED)
            self._presence[page : page + count] = bytes(count)
        self._blocks -= made * _BLOCKS
        self._promised -= promised
        self._punch(page, count)

    def _punch(self, page: int, count: int) -> None:
        if _FALLOCATE(self._fd, _FALLOC_PUNCH_HOLE, page << PAGE_SHIFT, count << PAGE_SHIFT):
            raise BpfError(f"cannot free arena pages: {os.strerror(ctypes.get_errno())}")


def _reserve(size: int) -> int:
    return map_memory(0, size, _PROT_NONE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)


def _trim(hole: int, hole_size: int, start: int, size: int) -> None:
    """Unmap what of the hole lies outside [start, start + size)."""
    if start > hole:
        unmap_memory(hole, start - hole)
    if hole + hole_size > start + size:
        unmap_memory(start + size, hole + hole_size - start - size)


def _advise(addr: int, size: int) -> None:
    # Either may be refused (no huge pages in this kernel, say); nothing depends on it then.
    _libc.madvise(addr, size, _MADV_NOHUGEPAGE)
    _libc.madvise(addr, size, _MADV_DONTFORK)


def _own(addr: int, size: int) -> memoryview:
    """Return the view of fresh mappings, which go when the last view of them has gone."""
    whole = (ctypes.c_ubyte * size).from_address(addr)
    weakref.finalize(whole, _disown, addr, size, os.getpid()).atexit = False
    return memoryview(whole).cast("B")


def _disown(addr: int, size: int, pid: int) -> None:
    # A forked child doesn't have the mapping, but may have another of its own there.
    if os.getpid() == pid:
        unmap_memory(addr, size)


#: All arenas there are, to name the one that is in the way.
_LIVE: weakref.WeakSet[ArenaPages] = weakref.WeakSet()
