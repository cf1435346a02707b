"""Arrays and hashes with one value per CPU, and hashes that forget the least recently used.

The machine has one CPU: a value per CPU is one value, for programs and for user space.
"""

from __future__ import annotations

from errno import EINVAL

from bpfvm.errors import MapError
from bpfvm.maps.array import ArrayMap
from bpfvm.maps.base import ELEM_HELPERS, FOR_EACH_HELPER, MapFlags, MapTraits
from bpfvm.maps.hash import HashMap
from bpfvm.program import MapDef

__all__ = ["LruHashMap", "LruPercpuHashMap", "PercpuArrayMap", "PercpuHashMap"]

#: kernel: PCPU_MIN_UNIT_SIZE
_PERCPU_MAX = 32 << 10
_PERCPU_HELPERS = ELEM_HELPERS | FOR_EACH_HELPER | {"bpf_map_lookup_percpu_elem"}


def _refuse(defn: MapDef, what: str) -> MapError:
    return MapError(f"map {defn.name}: {what}", EINVAL)


class PercpuArrayMap(ArrayMap):
    """A percpu_array map (kernel: percpu_array_map_ops)."""

    traits = MapTraits("bpf_array", constant_key_elision=True, helpers=_PERCPU_HELPERS)

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: array_map_alloc_check."""
        if defn.flags & (MapFlags.MMAPABLE | MapFlags.INNER_MAP | MapFlags.NUMA_NODE):
            raise _refuse(defn, f"percpu_array map can't have flags {defn.flags:#x}")
        super().check(defn)
        if defn.value_size > _PERCPU_MAX:
            raise _refuse(defn, f"value_size {defn.value_size} is too large")


class PercpuHashMap(HashMap):
    """A percpu_hash map (kernel: htab_percpu_map_ops)."""

    traits = MapTraits("bpf_htab", helpers=_PERCPU_HELPERS)

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: htab_map_alloc_check."""
        if defn.flags & MapFlags.NUMA_NODE:
            raise _refuse(defn, f"percpu_hash map can't have flags {defn.flags:#x}")
        super().check(defn)
        if defn.value_size > _PERCPU_MAX:
            raise _refuse(defn, f"value_size {defn.value_size} is too large")


class LruHashMap(HashMap):
    """An lru_hash map: a new element takes the place of the one that was longest not used.

    The kernel chooses by samples; which one goes is not promised.
    """

    traits = MapTraits("bpf_htab", helpers=ELEM_HELPERS | FOR_EACH_HELPER)

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: htab_map_alloc_check; LRU maps are always preallocated."""
        if defn.flags & MapFlags.NO_PREALLOC:
            raise _refuse(defn, f"lru_hash map can't have flags {defn.flags:#x}")
        super().check(defn)

    def lookup_elem(self, key: bytes) -> int:
        """Kernel: htab_lru_map_lookup_elem."""
        with self._lock:
            slot = self._slots.pop(key, None)
            if slot is not None:
                self._slots[key] = slot
        return super().lookup_elem(key)

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Kernel: htab_lru_map_update_elem."""
        with self._lock:
            is_full = len(self._slots) >= self.defn.max_entries
            if is_full and key not in self._slots and not flags:
                oldest = next(iter(self._slots))
                self._resting.append(self._slots.pop(oldest))
        return super().update_elem(key, value, flags)


class LruPercpuHashMap(LruHashMap):
    """An lru_percpu_hash map (kernel: htab_lru_percpu_map_ops)."""

    traits = MapTraits("bpf_htab", helpers=_PERCPU_HELPERS)
