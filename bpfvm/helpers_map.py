"""Helpers of maps without keys and of values per CPU (kernel/bpf/helpers.c)."""

from __future__ import annotations

from errno import EOPNOTSUPP

from bpfvm.maps.queue import QueueMap
from bpfvm.notation import prototype
from bpfvm.proto import implements
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_map_lookup_percpu_elem",
    "bpf_map_peek_elem",
    "bpf_map_pop_elem",
    "bpf_map_push_elem",
]


@implements(prototype(87, "map_push_elem", "map value any", flags="pkt writes"))
def bpf_map_push_elem(run: RunContext, handle: int, value: int, flags: int) -> int:
    """Put a value in; -E2BIG: the map is full, -EOPNOTSUPP: a bloom filter."""
    found = run.map_arg(handle)
    if not isinstance(found, QueueMap):
        return -EOPNOTSUPP
    return found.push_elem(run.read(value, found.defn.value_size), flags)


def _give(run: RunContext, handle: int, value: int, *, remove: bool) -> int:
    found = run.map_arg(handle)
    if not isinstance(found, QueueMap):
        return -EOPNOTSUPP
    taken = found.pop_elem() if remove else found.peek_elem()
    if isinstance(taken, int):
        run.write(value, bytes(found.defn.value_size))
        return taken
    run.write(value, taken)
    return 0


@implements(prototype(88, "map_pop_elem", "map outvalue", flags="writes"))
def bpf_map_pop_elem(run: RunContext, handle: int, value: int) -> int:
    """Take the next value out; -ENOENT: there is none, and zeros were written."""
    return _give(run, handle, value, remove=True)


@implements(prototype(89, "map_peek_elem", "map outvalue"))
def bpf_map_peek_elem(run: RunContext, handle: int, value: int) -> int:
    """Copy the next value; -ENOENT: there is none, and zeros were written."""
    return _give(run, handle, value, remove=False)


@implements(prototype(195, "map_lookup_percpu_elem", "map key any", "value?", "pkt"))
def bpf_map_lookup_percpu_elem(run: RunContext, handle: int, key: int, cpu: int) -> int:
    """Return the address of CPU *cpu*'s value, or 0; there is CPU 0 alone."""
    found = run.map_arg(handle)
    data = run.read(key, found.defn.key_size)
    return 0 if cpu & 0xFFFFFFFF else found.lookup_elem(data)
