"""What all map types share: traits for the verifier, operations for programs and user space."""

from __future__ import annotations

import os
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag, unique
from errno import E2BIG, EACCES, EEXIST, EINVAL, ENOENT, ENOMEM, EPERM
from itertools import pairwise

from bpfvm.errors import BpfError, MapError
from bpfvm.memory import AddressSpace, Region, RegionKind
from bpfvm.program import MapDef, MapFacts
from bpfvm.record import FieldKind, overwrite

__all__ = ["Lookup", "Map", "MapFlags", "MapTraits", "MapType", "MapTypes"]


class MapType(IntEnum):
    """Numbers of the kernel's enum bpf_map_type; those without a `Map` class are refused."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERF_EVENT_ARRAY = 4
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    STACK_TRACE = 7
    CGROUP_ARRAY = 8
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    DEVMAP = 14
    SOCKMAP = 15
    CPUMAP = 16
    XSKMAP = 17
    SOCKHASH = 18
    CGROUP_STORAGE = 19
    REUSEPORT_SOCKARRAY = 20
    PERCPU_CGROUP_STORAGE = 21
    QUEUE = 22
    STACK = 23
    SK_STORAGE = 24
    DEVMAP_HASH = 25
    STRUCT_OPS = 26
    RINGBUF = 27
    INODE_STORAGE = 28
    TASK_STORAGE = 29
    BLOOM_FILTER = 30
    USER_RINGBUF = 31
    CGRP_STORAGE = 32
    ARENA = 33


class MapFlags(IntFlag):
    """BPF_F_* flags of BPF_MAP_CREATE and of updates are separate; these are creation flags."""

    NO_PREALLOC = 1 << 0
    NO_COMMON_LRU = 1 << 1
    NUMA_NODE = 1 << 2
    RDONLY = 1 << 3
    WRONLY = 1 << 4
    STACK_BUILD_ID = 1 << 5
    ZERO_SEED = 1 << 6
    RDONLY_PROG = 1 << 7
    WRONLY_PROG = 1 << 8
    CLONE = 1 << 9
    MMAPABLE = 1 << 10
    PRESERVE_ELEMS = 1 << 11
    INNER_MAP = 1 << 12
    SEGV_ON_FAULT = 1 << 17
    NO_USER_CONV = 1 << 18


#: Flags of BPF_MAP_UPDATE_ELEM and bpf_map_update_elem.
BPF_ANY, BPF_NOEXIST, BPF_EXIST, BPF_F_LOCK = 0, 1, 2, 4

#: What the map helpers of array-like and hash-like maps are called.
#: Of maps whose elements can be gone through (kernel: map_for_each_callback).
FOR_EACH_HELPER = frozenset({"bpf_for_each_map_elem"})
ELEM_HELPERS = frozenset({"bpf_map_lookup_elem", "bpf_map_update_elem", "bpf_map_delete_elem"})


@unique
class Lookup(Enum):
    """What a program's lookup gives, if anything."""

    VALUE = "value"
    MAP = "map"
    SOCKET = "socket"  # a reference
    XDP_SOCK = "xdp_sock"


@dataclass(frozen=True, slots=True)
class MapTraits:
    """What the verifier knows of a map type as such.

    Attributes:
        kernel_struct: name of the kernel's struct, for messages ("bpf_array").
        direct_value: an ldimm64 may take the address of a value byte.
        constant_key_elision: lookup with a known key below max_entries gives a non-null value.
        lookup: what bpf_map_lookup_elem gives.
        helpers: names of the map helpers that accept it (bpf_map_lookup_elem, ...).
    """

    kernel_struct: str
    direct_value: bool = False
    constant_key_elision: bool = False
    helpers: frozenset[str] = frozenset()
    lookup: Lookup = Lookup.VALUE


class Map(ABC, MutableMapping[int | bytes, bytes]):
    """A live map. As a Python mapping it takes keys and values as bytes, or as ints that are
    packed little-endian; reads give bytes.

    Operations for programs work on bytes and addresses and return the kernel's results.
    """

    traits: MapTraits

    def __init__(self, defn: MapDef, space: AddressSpace) -> None:
        """Create the map.

        Raises:
            MapError: with the errno that BPF_MAP_CREATE gives for *defn*.
        """
        self.defn = defn
        self.space = space
        self.check(defn)

    @classmethod
    @abstractmethod
    def check(cls, defn: MapDef) -> None:
        """Raise `MapError` with the kernel's errno where *defn* can't be created."""

    @abstractmethod
    def lookup_elem(self, key: bytes) -> int:
        """Return the address of the value for *key*, or 0."""

    @abstractmethod
    def update_elem(self, key: bytes, value: bytes, flags: int) -> int:
        """Set *key* to *value*; return 0 or a negative errno."""

    @abstractmethod
    def delete_elem(self, key: bytes) -> int:
        """Remove *key*; return 0 or a negative errno."""

    @abstractmethod
    def keys_in_order(self) -> Iterator[bytes]:
        """Yield the keys in BPF_MAP_GET_NEXT_KEY's order."""

    @property
    def has_lock(self) -> bool:
        """Whether a value holds a bpf_spin_lock."""
        return any(field.kind is FieldKind.SPIN_LOCK for field in self.defn.record or ())

    def value_addr(self, off: int) -> int:
        """Return what an ldimm64 of kind MAP_IDX_VALUE gives (kernel: map_direct_value_addr)."""
        return self.lookup_elem(bytes(self.defn.key_size)) + off

    def facts(self) -> MapFacts:
        """Return what a verifier may know of this map."""
        return MapFacts(self.defn)

    # -- for the map types ------------------------------------------------------------------

    @staticmethod
    def check_attrs(defn: MapDef, allowed: MapFlags, *, holds: bool) -> None:
        """Refuse *defn* (EINVAL) unless *holds* and its flags are among *allowed*.

        Checks the rules that all types but the arena share, too (kernel: map_create and
        bpf_map_flags_access_ok).
        """
        flags = defn.flags
        if defn.record:
            MapTypes.check_record(defn)
        both_prog = MapFlags.RDONLY_PROG | MapFlags.WRONLY_PROG
        both_user = MapFlags.RDONLY | MapFlags.WRONLY
        if not holds:
            what = f"key_size {defn.key_size}, value_size {defn.value_size}"
            what += f", max_entries {defn.max_entries}"
        elif (
            flags & ~int(allowed)
            or flags & both_prog == both_prog
            or flags & both_user == both_user
        ):
            what = f"flags {defn.flags:#x}"
        elif defn.map_extra:
            what = f"map_extra {defn.map_extra:#x}"
        else:
            return
        name = MapType(defn.map_type).name.lower()
        raise MapError(f"map {defn.name}: {name} map can't have {what}", EINVAL)

    def alloc_values(self, count: int) -> Region:
        """Allocate zeroed memory for *count* values and make it a region.

        Raises:
            MapError: ENOMEM.
        """
        size, stride = self.defn.value_size, -(-self.defn.value_size // 8) * 8
        writable = not self.defn.flags & MapFlags.RDONLY_PROG
        try:
            return self.space.add(
                count * stride,
                RegionKind.MAP_VALUE,
                writable=writable,
                stride=stride,
                elem_size=size,
            )
        except BpfError as e:
            raise MapError(f"map {self.defn.name}: {e}", ENOMEM) from None

    # -- the mapping that user space sees ---------------------------------------------------

    def pack_key(self, key: int | bytes) -> bytes:
        """Return *key* as key_size bytes."""
        return self._pack(key, self.defn.key_size, "key")

    def pack_value(self, value: int | bytes) -> bytes:
        """Return *value* as value_size bytes."""
        return self._pack(value, self.defn.value_size, "value")

    def _pack(self, item: int | bytes, size: int, what: str) -> bytes:
        if isinstance(item, int):
            try:
                return item.to_bytes(size, "little", signed=item < 0)
            except OverflowError:
                raise MapError(
                    f"map {self.defn.name}: {what} {item} does not fit in {size} bytes", EINVAL
                ) from None
        data = bytes(item)
        if len(data) != size:
            raise MapError(
                f"map {self.defn.name}: {what} of {len(data)} bytes, expected {size}", EINVAL
            )
        return data

    def __getitem__(self, key: int | bytes) -> bytes:
        if self.defn.flags & MapFlags.WRONLY:
            raise MapError(f"map {self.defn.name}: write-only for user space", EPERM)
        addr = self.lookup_elem(self.pack_key(key))
        value = self.space.read(addr, self.defn.value_size) if addr else None
        if value is None:
            raise KeyError(key)
        return overwrite(self.defn.record or (), None, value)

    def __setitem__(self, key: int | bytes, value: int | bytes) -> None:
        self._check_writable()
        self._done(self.update_elem(self.pack_key(key), self.pack_value(value), BPF_ANY), key)

    def __delitem__(self, key: int | bytes) -> None:
        self._check_writable()
        self._done(self.delete_elem(self.pack_key(key)), key)

    def _check_writable(self) -> None:
        if self.defn.frozen or self.defn.flags & MapFlags.RDONLY:
            raise MapError(f"map {self.defn.name}: read-only for user space", EPERM)

    def _done(self, result: int, key: int | bytes) -> None:
        if result == -ENOENT:
            raise KeyError(key)
        if result:
            raise MapError(
                f"map {self.defn.name}: key {key!r}: {os.strerror(-result).lower()}", -result
            )

    def __iter__(self) -> Iterator[bytes]:
        return self.keys_in_order()

    def __len__(self) -> int:
        return sum(1 for _ in self.keys_in_order())

    def read_int(self, key: int | bytes) -> int:
        """Return the value of *key* as an unsigned little-endian int."""
        return int.from_bytes(self[key], "little")


#: Fields of which a value may have one (kernel: btf_find_struct_field, btf_parse_fields).
_ONCE = frozenset(
    {
        FieldKind.SPIN_LOCK,
        FieldKind.RES_SPIN_LOCK,
        FieldKind.TIMER,
        FieldKind.WORKQUEUE,
        FieldKind.TASK_WORK,
        FieldKind.REFCOUNT,
    }
)


class MapTypes:
    """The map types of a VM, by kernel number; built from an explicit list."""

    def __init__(self, types: dict[MapType, type[Map]]) -> None:
        self.types = types

    @staticmethod
    def check_record(defn: MapDef) -> None:
        """Refuse special fields that no map may have (kernel: btf_parse_fields, map_check_btf)."""
        record = defn.record or ()
        kinds = [field.kind for field in record]
        if any(kinds.count(kind) > 1 for kind in kinds if kind in _ONCE):
            raise MapError(f"map {defn.name}: a special field is there twice", E2BIG)
        if defn.flags & (MapFlags.RDONLY_PROG | MapFlags.WRONLY_PROG):
            raise MapError(
                f"map {defn.name}: special fields in a map of flags {defn.flags:#x}", EACCES
            )
        if any(field.end > defn.value_size for field in record):
            raise MapError(f"map {defn.name}: a special field behind the value", EINVAL)
        ordered = sorted(record, key=lambda field: field.off)
        if any(after.off < field.end for field, after in pairwise(ordered)):
            raise MapError(f"map {defn.name}: special fields that overlap", EEXIST)

    def create(self, defn: MapDef, space: AddressSpace) -> Map:
        """Create the map that *defn* tells of.

        Raises:
            MapError: the type is unknown or not supported, or its own checks fail.
        """
        return self._class_of(defn)(defn, space)

    def check(self, defn: MapDef) -> None:
        """Raise `MapError` where `create` would find fault with *defn*."""
        self._class_of(defn).check(defn)

    def _class_of(self, defn: MapDef) -> type[Map]:
        try:
            return self.types[MapType(defn.map_type)]
        except (KeyError, ValueError):
            try:
                name = MapType(defn.map_type).name.lower()
            except ValueError:
                name = "unknown"
            raise MapError(
                f"map {defn.name}: map type {defn.map_type} ({name}) is not supported", EINVAL
            ) from None

    def traits(self, defn: MapDef) -> MapTraits:
        """Return the traits of *defn*'s type."""
        return self.types[MapType(defn.map_type)].traits


def u32_key(key: bytes) -> int:
    """Return a 4-byte little-endian key as an int."""
    return int(struct.unpack("<I", key)[0])
