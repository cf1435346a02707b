"""BPF_MAP_TYPE_ARENA: memory that programs and user space share, page by page.

`ArenaMap` is the map (creation checks, the view for Python) and the arena's page operations by
arena.md section 3; `arena.pages` has the memory and `arena.ranges` the free set. The free set is
reconciled with pages that user space has made whenever it is about to be asked.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from errno import E2BIG, EBUSY, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP, ERANGE

from arena.pages import BAND, PAGE_SHIFT, ArenaPages
from arena.ranges import RangeTree
from bpfvm.bits import hi32, u32
from bpfvm.errors import MapError
from bpfvm.maps.base import ELEM_HELPERS, Map, MapFlags, MapTraits
from bpfvm.memory import PAGE_SIZE, AddressSpace
from bpfvm.program import MapDef, MapFacts

__all__ = ["ArenaMap"]

_FLAGS = int(MapFlags.MMAPABLE | MapFlags.SEGV_ON_FAULT | MapFlags.NO_USER_CONV)
#: Pages that the kernel allocates at a time; a failure keeps whole batches apart (section 3.2).
_BATCH = 1024


class ArenaMap(Map):
    """An arena. Satisfies `bpfvm.memory.ArenaMemory`."""

    traits = MapTraits("bpf_arena", direct_value=True, helpers=ELEM_HELPERS)

    def __init__(self, defn: MapDef, space: AddressSpace) -> None:
        super().__init__(defn, space)
        self._pages = ArenaPages(defn.name, defn.max_entries, defn.map_extra)
        self._free = RangeTree(defn.max_entries)
        self._lock = threading.Lock()
        self.kern_vm_start = self._pages.kern_vm_start
        self.user_vm_start = self._pages.user_vm_start
        self.user_vm_end = self.user_vm_start + self._pages.size
        self.cast_high = 0 if defn.flags & MapFlags.NO_USER_CONV else hi32(self.user_vm_start)
        self.band = self._pages.band
        self.presence_addr = self._pages.presence_addr
        if defn.image:
            self._place_image(defn.image)
        if defn.flags & MapFlags.SEGV_ON_FAULT:
            _warn_of_the_gap()

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Refuse what BPF_MAP_CREATE refuses, in its order (section 1.2)."""

        def refuse(why: str, errno: int) -> MapError:
            return MapError(f"map {defn.name}: {why}", errno)

        size = defn.max_entries * PAGE_SIZE
        if defn.key_size or defn.value_size:
            raise refuse("an arena has neither keys nor values", EINVAL)
        if not defn.max_entries:
            raise refuse("an arena needs max_entries, its pages", EINVAL)
        if not defn.flags & MapFlags.MMAPABLE or defn.flags & ~_FLAGS:
            raise refuse(f"an arena can't have flags {defn.flags:#x}", EINVAL)
        if defn.map_extra % PAGE_SIZE:
            raise refuse(f"user_vm_start {defn.map_extra:#x} is not page aligned", EINVAL)
        if size > BAND:
            raise refuse(f"an arena of {defn.max_entries} pages is larger than 4 GiB", E2BIG)
        if hi32(defn.map_extra) != hi32(defn.map_extra + size - 1):
            raise refuse(
                f"{defn.max_entries} pages at {defn.map_extra:#x} cross a 4 GiB line", ERANGE
            )
        if len(defn.image or b"") > size:
            raise refuse(
                f"{defn.max_entries} pages are too few for {len(defn.image or b'')} bytes of"
                " __arena variables",
                E2BIG,
            )

    def _place_image(self, image: bytes) -> None:
        count = -(-len(image) // PAGE_SIZE)
        page = self._pages.count - count
        self._free.clear(page, count)
        at = page << PAGE_SHIFT
        if not self._pages.make(page, count):
            raise MapError(f"map {self.defn.name}: no memory for __arena variables", ENOMEM)
        self._pages.user[at : at + len(image)] = image

    # -- for the verifier and the engines -----------------------------------------------------

    def facts(self) -> MapFacts:
        """Add the user view's bounds."""
        return MapFacts(self.defn, self.user_vm_start, self.user_vm_end)

    def value_addr(self, off: int) -> int:
        """Kernel: arena_map_direct_value_addr."""
        return self.user_vm_start + off

    def is_present(self, offset: int, size: int) -> bool:
        """Say whether all of [offset, offset + size) of the band may be accessed now."""
        at = offset - u32(self.user_vm_start)
        if at < 0 or at + size > self._pages.size:
            return False
        pages = range(at >> PAGE_SHIFT, (at + size + PAGE_SIZE - 1) >> PAGE_SHIFT)
        return all(self._pages.is_noted(page) or self._adopt(page) for page in pages)

    def _adopt(self, page: int) -> bool:
        with self._lock:
            if not self._pages.is_noted(page):
                if not self._pages.is_data(page):
                    return False
                self._note(page)
        return True

    # -- pages (section 3); addresses are 64-bit user addresses of which 32 bits count -----------

    @property
    def page_limit(self) -> int:
        """Pages of the user view, the most an allocation may ask for."""
        return (self.user_vm_end - self.user_vm_start) >> PAGE_SHIFT

    def alloc_pages(
        self, addr: int, page_cnt: int, fail_alloc: Callable[[], bool] | None = None
    ) -> int:
        """Allocate pages, at *addr* if nonzero; return their user address, or 0."""
        if addr % PAGE_SIZE or not 0 < page_cnt <= self.page_limit:
            return 0
        wanted = self._pgoff(addr)
        if addr and wanted > self.page_limit - page_cnt:
            return 0
        with self._lock:
            page = self._take(wanted, page_cnt) if addr else self._place(page_cnt)
            if page is None:
                return 0
            mapped = self._map(page, page_cnt, fail_alloc)
            if mapped < page_cnt:
                self._free.set(page + mapped, page_cnt - mapped)
        if mapped < page_cnt:
            if mapped:
                self._release(page, mapped)
            return 0
        return self.user_vm_start + (page << PAGE_SHIFT)

    def free_pages(self, addr: int, page_cnt: int) -> None:
        """Free the pages at *addr*, as many of them as lie in the arena."""
        full = hi32(self.user_vm_start) | u32(addr) & -PAGE_SIZE
        end = min(self.user_vm_end, full + page_cnt * PAGE_SIZE)
        if self.user_vm_start <= full < end:
            self._release(self._pgoff(full), (end - full) >> PAGE_SHIFT)

    def reserve_pages(self, addr: int, page_cnt: int) -> int:
        """Take free pages out of use; return 0 or a negative errno."""
        if not page_cnt or addr % PAGE_SIZE:
            return 0
        page = self._pgoff(addr)
        if page + page_cnt > self.page_limit:
            return -EINVAL
        with self._lock:
            return 0 if self._take(page, page_cnt) is not None else -EBUSY

    def _pgoff(self, addr: int) -> int:
        return u32(addr - self.user_vm_start) >> PAGE_SHIFT

    # The rest is called with the lock held, but for _release.

    def _take(self, page: int, page_cnt: int) -> int | None:
        self._reconcile()
        if not self._free.is_set(page, page_cnt) or self._touched(page, page_cnt):
            return None
        self._free.clear(page, page_cnt)
        return page

    def _place(self, page_cnt: int) -> int | None:
        self._reconcile()
        page = self._free.find(page_cnt)
        while page is not None and self._touched(page, page_cnt):
            page = self._free.find(page_cnt)
        if page is not None:
            self._free.clear(page, page_cnt)
        return page

    def _reconcile(self) -> None:
        for page in self._pages.unknown_pages():
            self._note(page)

    # Whether user space has touched a free range; the first page it touched is noted then.
    def _touched(self, page: int, page_cnt: int) -> bool:
        if self._pages.is_exact:
            return False  # _reconcile has found them all
        found = self._pages.next_data(page, page + page_cnt)
        if found is not None:
            self._note(found)
        return found is not None

    def _note(self, page: int) -> None:
        self._pages.note(page)
        self._free.clear(page, 1)

    def _map(self, page: int, page_cnt: int, fail_alloc: Callable[[], bool] | None) -> int:
        if fail_alloc is None:
            return page_cnt if self._pages.make(page, page_cnt) else 0
        for mapped in range(0, page_cnt, _BATCH):
            batch = min(_BATCH, page_cnt - mapped)
            if any(fail_alloc() for _ in range(batch)) or not self._pages.make(
                page + mapped, batch
            ):
                return mapped
        return page_cnt

    def _release(self, page: int, page_cnt: int) -> None:
        with self._lock:
            self._free.set(page, page_cnt)
            self._pages.drop(page, page_cnt)

    # -- for user space -------------------------------------------------------------------------

    def view(self, ptr: int, size: int) -> memoryview:
        """Return the *size* bytes that *ptr* points to: the very bytes programs see.

        Touching a page that is absent makes it, as in the kernel. The view stays valid as long
        as it lives, but its pages may be freed under it: then it reads zeros.

        Args:
            ptr: as a program stored it: a user pointer, or 32 bits of one (a pointer that was
                never cast to user space, or BPF_F_NO_USER_CONV). 0 is NULL.
            size: bytes.

        Raises:
            MapError: not wholly inside the arena, or absent under BPF_F_SEGV_ON_FAULT.
        """
        full = hi32(self.user_vm_start) | ptr if 0 < ptr <= 0xFFFFFFFF else ptr
        if size < 0 or not self.user_vm_start <= full <= full + size <= self.user_vm_end:
            raise MapError(
                f"map {self.defn.name}: {size} bytes at {ptr:#x} are not inside the arena"
                f" ({self.user_vm_start:#x} to {self.user_vm_end:#x})",
                EFAULT,
            )
        if self.defn.flags & MapFlags.SEGV_ON_FAULT and not self.is_present(
            full - hi32(self.user_vm_start), size
        ):
            raise MapError(
                f"map {self.defn.name}: {size} bytes at {ptr:#x} are not all allocated", EFAULT
            )
        at = full - self.user_vm_start
        return self._pages.user[at : at + size]

    def page(self, pgoff: int) -> bytes | None:
        """Return a copy of page number *pgoff* of the arena, or None where it is absent."""
        at = pgoff << PAGE_SHIFT
        if not self.is_present(u32(self.user_vm_start) + at, PAGE_SIZE):
            return None
        return bytes(self._pages.user[at : at + PAGE_SIZE])

    @property
    def mem_usage(self) -> int:
        """Bytes of pages that are present (kernel: arena_map_mem_usage)."""
        with self._lock:
            self._reconcile()
            return self._pages.present_count * PAGE_SIZE

    def free_ranges(self) -> list[tuple[int, int]]:
        """Return the free page ranges as (first, last)."""
        with self._lock:
            self._reconcile()
            return list(self._free)

    # -- as a map: an arena has no elements (section 1.5) -----------------------------------------

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, key: int | bytes) -> bytes:
        raise self._no_elements(EINVAL)

    def __setitem__(self, key: int | bytes, value: int | bytes) -> None:
        raise self._no_elements(EOPNOTSUPP)

    def __delitem__(self, key: int | bytes) -> None:
        raise self._no_elements(EOPNOTSUPP)

    def __len__(self) -> int:
        raise self._no_elements(EOPNOTSUPP)

    def lookup_elem(self, key: bytes) -> int:
        """Return ERR_PTR(-EINVAL), as the kernel does."""
        return -EINVAL

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Refuse."""
        return -EOPNOTSUPP

    def delete_elem(self, key: bytes) -> int:
        """Refuse."""
        return -EOPNOTSUPP

    def keys_in_order(self) -> Iterator[bytes]:
        """Refuse."""
        raise self._no_elements(EOPNOTSUPP)

    def _no_elements(self, errno: int) -> MapError:
        return MapError(f"map {self.defn.name}: an arena has no elements; use view()", errno)


_warned = False


def _warn_of_the_gap() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            "BPF_F_SEGV_ON_FAULT: a raw touch of an absent arena page makes the page here;"
            " only view() refuses",
            RuntimeWarning,
            stacklevel=4,
        )
