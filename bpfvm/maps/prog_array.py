"""Arrays of programs, for tail calls. Programs are put in by their definition alone."""

from __future__ import annotations

from collections.abc import Iterator
from errno import E2BIG, EOPNOTSUPP

from bpfvm.errors import MapError
from bpfvm.maps.base import Map, MapFlags, MapTraits
from bpfvm.memory import AddressSpace
from bpfvm.program import MapDef

__all__ = ["ProgArrayMap"]

_FLAGS = MapFlags.NUMA_NODE | MapFlags.RDONLY | MapFlags.WRONLY


class ProgArrayMap(Map):
    """A prog_array map (kernel: prog_array_map_ops).

    Attributes:
        programs: names of programs of the same object, by index.
    """

    traits = MapTraits("bpf_array", helpers=frozenset({"bpf_tail_call"}))

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: fd_array_map_alloc_check."""
        cls.check_attrs(
            defn,
            _FLAGS,
            holds=defn.key_size == 4 and defn.value_size == 4 and defn.max_entries > 0,
        )

    def __init__(self, defn: MapDef, space: AddressSpace) -> None:
        super().__init__(defn, space)
        self.programs: dict[int, str] = {}

    def put(self, index: int, name: str) -> None:
        """Put a program in (kernel: fd_array_map_update_elem).

        Raises:
            MapError: there is no such slot.
        """
        if index >= self.defn.max_entries:
            raise MapError(f"map {self.defn.name}: no slot {index}", E2BIG)
        self.programs[index] = name

    def lookup_elem(self, key: bytes) -> int:
        """Return 0: programs are no memory."""
        return 0

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Refuse: programs have no file descriptors here."""
        return -EOPNOTSUPP

    def delete_elem(self, key: bytes) -> int:
        """Refuse, as `update_elem` does."""
        return -EOPNOTSUPP

    def keys_in_order(self) -> Iterator[bytes]:
        """Yield nothing: there is nothing to read."""
        return iter(())
