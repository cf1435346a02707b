"""Map types that programs can name and not yet use: what the verifier has to know of them.

They can be created, as the kernel would, and hold nothing: lookups find nothing, user space can't
put anything in. Helpers that would give more than that can't be executed yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from errno import EOPNOTSUPP
from typing import ClassVar

from bpfvm.maps.base import Lookup, Map, MapFlags, MapTraits, MapType
from bpfvm.program import MapDef

__all__ = ["OPAQUE"]

_PAGE = 4096
_COMMON = MapFlags.NUMA_NODE | MapFlags.RDONLY | MapFlags.WRONLY
_PROG = MapFlags.RDONLY_PROG | MapFlags.WRONLY_PROG
_LOOKUP = "bpf_map_lookup_elem"
_UPDATES = ("bpf_map_update_elem", "bpf_map_delete_elem")


@dataclass(frozen=True, slots=True)
class _Row:
    """A map type: number, the kernel's struct, helpers, what sizes it may have, flags."""

    map_type: MapType
    kernel_struct: str
    helpers: tuple[str, ...]
    holds: Callable[[MapDef], bool]
    flags: MapFlags = _COMMON
    needed: int = 0
    lookup: Lookup = Lookup.VALUE


def _keys(defn: MapDef, *value_sizes: int) -> bool:
    return defn.key_size == 4 and defn.value_size in value_sizes and defn.max_entries > 0


def _is_storage(defn: MapDef) -> bool:
    """Kernel: bpf_local_storage_map_alloc_check."""
    return defn.key_size == 4 and defn.value_size > 0 and defn.max_entries == 0


def _is_cgroup_storage(defn: MapDef) -> bool:
    """Kernel: cgroup_storage_map_alloc."""
    return defn.key_size in (8, 16) and 0 < defn.value_size <= _PAGE and defn.max_entries == 0


def _storage(map_type: MapType, name: str) -> _Row:
    return _Row(
        map_type,
        "bpf_local_storage_map",
        (f"bpf_{name}_storage_get", f"bpf_{name}_storage_delete"),
        _is_storage,
        MapFlags.NO_PREALLOC | MapFlags.CLONE,
        MapFlags.NO_PREALLOC,
    )


def _in_cgroup(map_type: MapType) -> _Row:
    return _Row(
        map_type,
        "bpf_cgroup_storage_map",
        ("bpf_get_local_storage",),
        _is_cgroup_storage,
        _COMMON | _PROG,
    )


_ROWS = (
    _Row(
        MapType.PERF_EVENT_ARRAY,
        "bpf_array",
        (
            "bpf_perf_event_read",
            "bpf_perf_event_output",
            "bpf_perf_event_read_value",
            "bpf_skb_output",
            "bpf_xdp_output",
        ),
        lambda d: _keys(d, 4),
        _COMMON | MapFlags.PRESERVE_ELEMS,
    ),
    _Row(
        MapType.STACK_TRACE,
        "bpf_stack_map",
        ("bpf_get_stackid",),
        lambda d: d.key_size == 4 and d.value_size >= 8 and not d.value_size % 8,
        _COMMON | MapFlags.STACK_BUILD_ID,
    ),
    _Row(
        MapType.CGROUP_ARRAY,
        "bpf_array",
        ("bpf_skb_under_cgroup", "bpf_current_task_under_cgroup"),
        lambda d: _keys(d, 4),
    ),
    _Row(MapType.DEVMAP, "bpf_dtab", ("bpf_redirect_map", _LOOKUP), lambda d: _keys(d, 4, 8)),
    _Row(MapType.DEVMAP_HASH, "bpf_dtab", ("bpf_redirect_map", _LOOKUP), lambda d: _keys(d, 4, 8)),
    _Row(
        MapType.SOCKMAP,
        "bpf_stab",
        (
            "bpf_sk_redirect_map",
            "bpf_sock_map_update",
            "bpf_msg_redirect_map",
            "bpf_sk_select_reuseport",
            _LOOKUP,
            *_UPDATES,
        ),
        lambda d: _keys(d, 4, 8),
        lookup=Lookup.SOCKET,
    ),
    _Row(MapType.CPUMAP, "bpf_cpu_map", ("bpf_redirect_map",), lambda d: _keys(d, 4, 8)),
    _Row(
        MapType.XSKMAP,
        "xsk_map",
        ("bpf_redirect_map", _LOOKUP),
        lambda d: _keys(d, 4),
        lookup=Lookup.XDP_SOCK,
    ),
    _Row(
        MapType.SOCKHASH,
        "bpf_shtab",
        (
            "bpf_sk_redirect_hash",
            "bpf_sock_hash_update",
            "bpf_msg_redirect_hash",
            "bpf_sk_select_reuseport",
            _LOOKUP,
            *_UPDATES,
        ),
        lambda d: d.key_size > 0 and d.value_size in (4, 8) and d.max_entries > 0,
        lookup=Lookup.SOCKET,
    ),
    _in_cgroup(MapType.CGROUP_STORAGE),
    _in_cgroup(MapType.PERCPU_CGROUP_STORAGE),
    _Row(
        MapType.REUSEPORT_SOCKARRAY,
        "reuseport_array",
        ("bpf_sk_select_reuseport",),
        lambda d: _keys(d, 4, 8),
    ),
    _storage(MapType.SK_STORAGE, "sk"),
    _storage(MapType.INODE_STORAGE, "inode"),
    _storage(MapType.TASK_STORAGE, "task"),
    _storage(MapType.CGRP_STORAGE, "cgrp"),
    _Row(
        MapType.BLOOM_FILTER,
        "bpf_bloom_filter",
        ("bpf_map_push_elem", "bpf_map_peek_elem"),
        lambda d: not d.key_size and d.value_size > 0 and d.max_entries > 0,
        _COMMON | _PROG | MapFlags.ZERO_SEED,
    ),
    _Row(
        MapType.ARRAY_OF_MAPS,
        "bpf_array",
        (_LOOKUP,),
        lambda d: _keys(d, 4) and d.inner is not None,
        _COMMON,
        lookup=Lookup.MAP,
    ),
    _Row(
        MapType.HASH_OF_MAPS,
        "bpf_htab",
        (_LOOKUP,),
        lambda d: d.key_size > 0 and d.value_size == 4 and d.inner is not None,
        _COMMON | MapFlags.NO_PREALLOC | MapFlags.ZERO_SEED,
        lookup=Lookup.MAP,
    ),
)


class _OpaqueMap(Map):
    """A map of one of `_ROWS`."""

    row: ClassVar[_Row]

    @classmethod
    def check(cls, defn: MapDef) -> None:
        """Kernel: the type's map_alloc_check."""
        row = cls.row
        holds = row.holds(defn) and defn.flags & row.needed == row.needed
        cls.check_attrs(defn, row.flags, holds=holds)

    def lookup_elem(self, key: bytes) -> int:
        """Return 0: there is nothing."""
        return 0

    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Refuse: not supported yet."""
        return -EOPNOTSUPP

    def delete_elem(self, key: bytes) -> int:
        """Refuse, as `update_elem` does."""
        return -EOPNOTSUPP

    def keys_in_order(self) -> Iterator[bytes]:
        """Yield nothing."""
        return iter(())


def _class_of(row: _Row) -> type[Map]:
    traits = MapTraits(row.kernel_struct, helpers=frozenset(row.helpers), lookup=row.lookup)
    name = f"_{row.map_type.name.title().replace('_', '')}Map"
    return type(name, (_OpaqueMap,), {"row": row, "traits": traits})


#: The classes by type.
OPAQUE: dict[MapType, type[Map]] = {row.map_type: _class_of(row) for row in _ROWS}
