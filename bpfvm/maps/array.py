"""BPF_MAP_TYPE_ARRAY: max_entries values in one piece of memory, all of them always there."""

from __future__ import annotations

from collections.abc import Iterator
from errno import E2BIG, EEXIST, EINVAL, EPERM

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
    u32_key,
)
from bpfvm.memory import AddressSpace
from bpfvm.program import MapDef, MapFacts
from bpfvm.record import overwrite

__all__ = ["ArrayMap"]

_FLAGS = (
    MapFlags.NUMA_NODE
    | MapFlags.RDONLY
    | MapFlags.WRONLY
    | MapFlags.RDONLY_PROG
    | MapFlags.WRONLY_PROG
    | MapFlags.MMAPABLE
    | MapFlags.INNER_MAP
)
_INT_MAX = (1 << 31) - 1


class ArrayMap(Map):
    """An array map. Value i lies at `region.base + i * region.stride`."""

    traits = MapTraits(
        "bpf_array",
        direct_value=True,
        constant_key_elision=True,
        helpers=ELEM_HELPERS | FOR_EACH_HELPER,
    )

    def __init__(self, defn: MapDef, space: AddressSpace) -> None:
        super().__init__(defn, space)
        self.region = self.alloc_values(defn.max_entries)
        if defn.image is not None:
            self.region.view[: len(defn.image)] = defn.image

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: array_map_alloc_check."""
        cls.check_attrs(
            defn,
            _FLAGS,
            holds=defn.key_size == 4 and defn.value_size > 0 and defn.max_entries > 0,
        )
        if defn.value_size > _INT_MAX:
            raise MapError(f"map {defn.name}: value_size {defn.value_size} is too large", E2BIG)
        if defn.image is not None and (defn.max_entries != 1 or len(defn.image) > defn.value_size):
            raise MapError(
                f"map {defn.name}: initial value of {len(defn.image)} bytes for"
                f" {defn.max_entries} values of {defn.value_size}",
                EINVAL,
            )

    def lookup_elem(self, key: bytes) -> int:
        """Kernel: array_map_lookup_elem."""
        index = u32_key(key)
        return self.region.base + index * self.region.stride if index < len(self) else 0

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Kernel: array_map_update_elem."""
        index = u32_key(key)
        if flags & ~BPF_F_LOCK > BPF_EXIST:
            return -EINVAL
        if index >= len(self):
            return -E2BIG
        if flags & BPF_NOEXIST:
            return -EEXIST
        if flags & BPF_F_LOCK and not self.has_lock:
            return -EINVAL
        if self.defn.frozen:
            return -EPERM
        at = index * self.region.stride
        end = at + self.defn.value_size
        if record := self.defn.record:
            value = overwrite(record, bytes(self.region.view[at:end]), value)
        self.region.view[at:end] = value
        return 0

    def delete_elem(self, key: bytes) -> int:
        """Kernel: array_map_delete_elem; elements are never gone."""
        return -EINVAL

    def keys_in_order(self) -> Iterator[bytes]:
        """Kernel: array_map_get_next_key."""
        return (i.to_bytes(4, "little") for i in range(len(self)))

    def __len__(self) -> int:
        return self.defn.max_entries

    def facts(self) -> MapFacts:
        """Add the value where it is constant (kernel: bpf_map_is_rdonly)."""
        constant = self.defn.frozen and self.defn.flags & MapFlags.RDONLY_PROG
        if not constant or self.defn.max_entries != 1:
            return MapFacts(self.defn)
        return MapFacts(self.defn, contents=bytes(self.region.view[: self.defn.value_size]))
