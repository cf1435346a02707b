"""Map types beside arrays and hashes: values per CPU, LRU, queues, those that are only named."""

from __future__ import annotations

from dataclasses import replace
from errno import E2BIG, EINVAL, ENOENT

import pytest

from bpfvm.errors import MapError
from bpfvm.maps.base import BPF_ANY, BPF_EXIST, MapFlags
from bpfvm.maps.base import MapType as T
from bpfvm.maps.opaque import OPAQUE
from bpfvm.maps.queue import QueueMap
from bpfvm.memory import AddressSpace
from bpfvm.program import MapDef
from bpfvm.vm import MAP_TYPES, assemble


@pytest.fixture
def space() -> AddressSpace:
    return AddressSpace()


def key(n: int) -> bytes:
    return n.to_bytes(4, "little")


@pytest.mark.parametrize("kind", [T.PERCPU_ARRAY, T.PERCPU_HASH, T.LRU_HASH, T.LRU_PERCPU_HASH])
def test_values_are_kept(kind: T, space: AddressSpace) -> None:
    m = MAP_TYPES.create(MapDef("m", kind, 4, 8, 2), space)
    m[1] = 7
    assert space.read(m.lookup_elem(key(1)), 8) == m[1] == (7).to_bytes(8, "little")


def test_the_least_recently_used_element_makes_room(space: AddressSpace) -> None:
    m = MAP_TYPES.create(MapDef("m", T.LRU_HASH, 4, 8, 2), space)
    m[1], m[2] = 1, 2
    assert m.lookup_elem(key(1))
    m[3] = 3
    assert sorted(m) == [key(1), key(3)]


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (T.PERCPU_ARRAY, MapFlags.MMAPABLE),
        (T.PERCPU_HASH, MapFlags.NUMA_NODE),
        (T.LRU_HASH, MapFlags.NO_PREALLOC),
    ],
)
def test_flags_that_the_kernel_refuses(kind: T, flags: MapFlags, space: AddressSpace) -> None:
    with pytest.raises(MapError, match="can't have flags"):
        MAP_TYPES.create(MapDef("m", kind, 4, 8, 2, int(flags)), space)


@pytest.mark.parametrize(("kind", "order"), [(T.QUEUE, [1, 2]), (T.STACK, [2, 1])])
def test_queues_and_stacks(kind: T, order: list[int], space: AddressSpace) -> None:
    m = MAP_TYPES.create(MapDef("m", kind, 0, 4, 2), space)
    assert isinstance(m, QueueMap)
    assert m.pop_elem() == m.peek_elem() == -ENOENT
    assert [m.push_elem(key(n), BPF_ANY) for n in (1, 2, 3)] == [0, 0, -E2BIG]
    assert m.peek_elem() == key(order[0])
    assert [m.pop_elem(), m.pop_elem(), m.pop_elem()] == [*map(key, order), -ENOENT]


def test_a_full_queue_forgets_its_oldest_value_if_asked(space: AddressSpace) -> None:
    m = MAP_TYPES.create(MapDef("m", T.QUEUE, 0, 4, 1), space)
    assert isinstance(m, QueueMap)
    assert m.push_elem(key(1), BPF_EXIST) == m.push_elem(key(2), BPF_EXIST) == 0
    assert m.pop_elem() == key(2)
    assert m.push_elem(key(1), 1) == m.push_elem(key(1), 3) == -EINVAL


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_programs_push_and_pop(engine: str) -> None:
    obj = assemble(
        """
        .map q type=queue value=8 entries=4
        *(u64 *)(r10 - 8) = 42
        r1 = map(q)
        r2 = r10
        r2 += -8
        r3 = 0
        call bpf_map_push_elem
        r1 = map(q)
        r2 = r10
        r2 += -16
        call bpf_map_pop_elem
        r0 = *(u64 *)(r10 - 16)
        exit
        """
    )
    assert obj.programs["main"].run(engine=engine).r0 == 42


#: A definition that each type takes.
_FITS = {
    **{kind: MapDef("m", kind, 4, 4, 1) for kind in OPAQUE},
    T.STACK_TRACE: MapDef("m", T.STACK_TRACE, 4, 8, 1),
    T.BLOOM_FILTER: MapDef("m", T.BLOOM_FILTER, 0, 8, 1),
    **{kind: MapDef("m", kind, 16, 8, 0) for kind in (T.CGROUP_STORAGE, T.PERCPU_CGROUP_STORAGE)},
    **{
        kind: MapDef("m", kind, 4, 8, 0, int(MapFlags.NO_PREALLOC))
        for kind in (T.SK_STORAGE, T.INODE_STORAGE, T.TASK_STORAGE, T.CGRP_STORAGE)
    },
    **{
        kind: MapDef("m", kind, 4, 4, 1, inner=MapDef("i", T.ARRAY, 4, 4, 1))
        for kind in (T.ARRAY_OF_MAPS, T.HASH_OF_MAPS)
    },
}


@pytest.mark.parametrize("kind", OPAQUE)
def test_maps_that_are_only_named_hold_nothing(kind: T, space: AddressSpace) -> None:
    m = MAP_TYPES.create(_FITS[kind], space)
    assert list(m) == []
    assert m.lookup_elem(bytes(m.defn.key_size)) == 0
    with pytest.raises(MapError):
        m[bytes(m.defn.key_size)] = bytes(m.defn.value_size)


@pytest.mark.parametrize("kind", OPAQUE)
def test_their_sizes_are_checked(kind: T, space: AddressSpace) -> None:
    with pytest.raises(MapError, match="can't have"):
        MAP_TYPES.create(replace(_FITS[kind], value_size=3, key_size=3), space)
