"""Arrays of programs, for tail calls. None can be put in yet, so every tail call falls through."""

from __future__ import annotations

from collections.abc import Iterator
from errno import EOPNOTSUPP

from bpfvm.maps.base import Map, MapFlags, MapTraits
from bpfvm.program import MapDef

__all__ = ["ProgArrayMap"]

_FLAGS = MapFlags.NUMA_NODE | MapFlags.RDONLY | MapFlags.WRONLY


class ProgArrayMap(Map):
    """A prog_array map (kernel: prog_array_map_ops)."""

    traits = MapTraits("bpf_array", helpers=frozenset({"bpf_tail_call"}))

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: fd_array_map_alloc_check."""
        cls.check_attrs(
            defn,
            _FLAGS,
            holds=defn.key_size == 4 and defn.value_size == 4 and defn.max_entries > 0,
        )

    def lookup_elem(self, key: bytes) -> int:
        """Return 0: no slot holds a program."""
        return 0

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Refuse: programs have no file descriptors here."""
        return -EOPNOTSUPP

    def delete_elem(self, key: bytes) -> int:
        """Refuse, as `update_elem` does."""
        return -EOPNOTSUPP

    def keys_in_order(self) -> Iterator[bytes]:
        """Yield nothing: every slot is empty."""
        return iter(())
