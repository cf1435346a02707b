"""The variables of an object's source as user space sees them: by name, as memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from bpfvm.maps.base import Map
from bpfvm.memory import view_of
from bpfvm.program import GlobalVar

__all__ = ["Variables"]


class Variables(Mapping[str, memoryview]):
    """Global and static variables by name: views of the very bytes that programs use, writable
    but for `.rodata`. *live_maps* gives the maps that hold them, at the first access."""

    def __init__(
        self, symbols: Mapping[str, GlobalVar], live_maps: Callable[[], Sequence[Map]]
    ) -> None:
        self._symbols = symbols
        self._live_maps = live_maps

    def __getitem__(self, name: str) -> memoryview:
        var = self._symbols[name]
        holder = self._live_maps()[var.map_idx]
        view = view_of(holder.value_addr(var.off), var.size, owner=holder)
        return view.toreadonly() if holder.defn.frozen else view

    def __iter__(self) -> Iterator[str]:
        return iter(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)
