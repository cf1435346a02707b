"""BPF_MAP_TYPE_HASH: keys in a dict, values in one piece of memory.

A value keeps its address for the life of its element. As in the kernel, an update of an existing
key makes a new element: who still holds the old value's address reads the old bytes. Slots of
elements that are gone are used again when no run is in flight; before that only where a full
map leaves no other, oldest first.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from errno import E2BIG, EEXIST, EINVAL, ENOENT, EPERM

from bpfvm.errors import MapError
from bpfvm.maps.base import (
    BPF_EXIST,
    BPF_F_LOCK,
    BPF_NOEXIST,
    ELEM_HELPERS,
    FOR_EACH_HELPER,
    Map,
    MapFlags,
    MapTraits,
)
from bpfvm.memory import AddressSpace
from bpfvm.program import MapDef
from bpfvm.record import overwrite

__all__ = ["HashMap"]

_FLAGS = (
    MapFlags.NO_PREALLOC
    | MapFlags.NUMA_NODE
    | MapFlags.RDONLY
    | MapFlags.WRONLY
    | MapFlags.ZERO_SEED
    | MapFlags.RDONLY_PROG
    | MapFlags.WRONLY_PROG
)
#: Kernel: KMALLOC_MAX_SIZE less the size of struct htab_elem.
_MAX_ELEM = (4 << 20) - 48
#: The most entries whose bucket table fits in 4 GiB (16 bytes each, a power of two).
_MAX_ENTRIES = 1 << 27
#: Slots beyond max_entries, so that replaced and deleted elements can rest for a while.
_SPARE = 64


class HashMap(Map):
    """A hash map. Keys are iterated in the order of their insertion."""

    traits = MapTraits("bpf_htab", helpers=ELEM_HELPERS | FOR_EACH_HELPER)

    def __init__(self, defn: MapDef, space: AddressSpace) -> None:
        super().__init__(defn, space)
        self.region = self.alloc_values(defn.max_entries + _SPARE)
        self._slots: dict[bytes, int] = {}
        self._fresh = 0
        self._free: list[int] = []
        self._resting: deque[int] = deque()
        self._lock = threading.Lock()

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: htab_map_alloc_check."""
        cls.check_attrs(
            defn,
            _FLAGS,
            holds=defn.key_size > 0 and defn.value_size > 0 and defn.max_entries > 0,
        )
        if defn.key_size + defn.value_size >= _MAX_ELEM or defn.max_entries > _MAX_ENTRIES:
            raise MapError(
                f"map {defn.name}: {defn.max_entries} elements of"
                f" {defn.key_size} + {defn.value_size} bytes are too large",
                E2BIG,
            )

    def lookup_elem(self, key: bytes) -> int:
        """Kernel: htab_map_lookup_elem."""
        slot = self._slots.get(key)
        return 0 if slot is None else self.region.base + slot * self.region.stride

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Kernel: htab_map_update_elem."""
        if flags & ~BPF_F_LOCK > BPF_EXIST or (flags & BPF_F_LOCK and not self.has_lock):
            return -EINVAL
        with self._lock:
            old = self._slots.get(key)
            if old is not None and flags & BPF_NOEXIST:
                return -EEXIST
            if old is None and flags & BPF_EXIST:
                return -ENOENT
            if old is None and len(self._slots) >= self.defn.max_entries:
                return -E2BIG
            if self.defn.frozen:
                return -EPERM
            if old is not None and flags & BPF_F_LOCK:
                self._store(old, overwrite(self.defn.record or (), self._value(old), value))
                return 0
            slot = self._take_slot()
            self._store(slot, overwrite(self.defn.record or (), None, value))
            self._slots[key] = slot
            if old is not None:
                self._retire(old)
        return 0

    def _retire(self, slot: int) -> None:
        """Let the element in *slot* go, and what its special fields hold (kernel:
        check_and_free_fields)."""
        if self.defn.record:
            self._store(slot, overwrite(self.defn.record, None, self._value(slot)))
        self._resting.append(slot)

    def _value(self, slot: int) -> bytes:
        at = slot * self.region.stride
        return bytes(self.region.view[at : at + self.defn.value_size])

    def _store(self, slot: int, value: bytes) -> None:
        at = slot * self.region.stride
        self.region.view[at : at + self.defn.value_size] = value

    def delete_elem(self, key: bytes) -> int:
        """Kernel: htab_map_delete_elem."""
        if self.defn.frozen:
            return -EPERM
        with self._lock:
            slot = self._slots.pop(key, None)
            if slot is None:
                return -ENOENT
            self._retire(slot)
        return 0

    def keys_in_order(self) -> Iterator[bytes]:
        """Yield a copy of the keys, so that elements may come and go meanwhile."""
        return iter(tuple(self._slots))

    def __len__(self) -> int:
        return len(self._slots)

    # At most max_entries slots are in use when this is called, and there are _SPARE more, so one
    # of the three sources always has one.
    def _take_slot(self) -> int:
        if not self.space.runs_in_flight and self._resting:
            self._free.extend(self._resting)
            self._resting.clear()
        if self._free:
            return self._free.pop()
        if self._fresh < self.defn.max_entries + _SPARE:
            self._fresh += 1
            return self._fresh - 1
        return self._resting.popleft()
