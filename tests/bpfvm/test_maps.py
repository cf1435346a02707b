"""The contract of all map types whose elements programs look up."""

from __future__ import annotations

from dataclasses import replace
from errno import E2BIG, EEXIST, EINVAL, ENOENT, ENOMEM, EPERM

import pytest

from bpfvm.errors import MapError
from bpfvm.maps.array import ArrayMap
from bpfvm.maps.base import BPF_ANY, BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST, Map, MapFlags, MapTypes
from bpfvm.maps.base import MapType as T
from bpfvm.maps.hash import HashMap
from bpfvm.memory import AddressSpace, RegionKind
from bpfvm.program import MapDef

TYPES = MapTypes({T.ARRAY: ArrayMap, T.HASH: HashMap})
ARRAY = MapDef("a", T.ARRAY, 4, 12, 4)
HASH = MapDef("h", T.HASH, 4, 12, 4)
BOTH = pytest.mark.parametrize("defn", [ARRAY, HASH], ids=["array", "hash"])


def key(n: int) -> bytes:
    return n.to_bytes(4, "little")


def value(n: int) -> bytes:
    return n.to_bytes(12, "little")


@pytest.fixture
def space() -> AddressSpace:
    return AddressSpace()


@BOTH
def test_what_is_written_is_read_by_programs_and_python(defn: MapDef, space: AddressSpace) -> None:
    m = TYPES.create(defn, space)
    assert m.update_elem(key(2), value(77), BPF_ANY) == 0
    addr = m.lookup_elem(key(2))
    assert space.read(addr, 12) == value(77) == m[2] == m[key(2)]
    assert space.write(addr, b"\x05")
    assert m.read_int(2) == 5
    m[2] = 9
    assert space.read(m.lookup_elem(key(2)), 12) == value(9)


@BOTH
def test_only_value_size_bytes_of_an_element_are_memory(defn: MapDef, space: AddressSpace) -> None:
    m = TYPES.create(defn, space)
    m[0] = m[1] = 1
    addr = m.lookup_elem(key(0))
    region = space.find(addr, 12, write=True)
    assert region is not None
    assert (region.kind, region.stride, region.elem_size) == (RegionKind.MAP_VALUE, 16, 12)
    assert space.find(addr, 13, write=False) is None
    assert space.find(addr + 12, 1, write=False) is None
    assert space.find(addr + 8, 8, write=False) is None
    assert addr % 8 == 0


@BOTH
def test_iteration_and_length(defn: MapDef, space: AddressSpace) -> None:
    m = TYPES.create(defn, space)
    for n in range(4):
        m[n] = n * 10
    assert list(m) == [key(n) for n in range(4)]
    assert len(m) == 4
    assert [int.from_bytes(v, "little") for v in m.values()] == [0, 10, 20, 30]


@BOTH
def test_a_key_that_is_not_there(defn: MapDef, space: AddressSpace) -> None:
    m = TYPES.create(defn, space)
    assert m.lookup_elem(key(4)) == 0
    assert 4 not in m
    with pytest.raises(KeyError):
        m[4]


@BOTH
def test_items_that_do_not_fit(defn: MapDef, space: AddressSpace) -> None:
    m = TYPES.create(defn, space)
    for k, v in ((b"abc", 0), (1 << 32, 0), (0, b"x"), (0, 1 << 96)):
        with pytest.raises(MapError, match=r"does not fit|expected") as e:
            m[k] = v
        assert e.value.errno == EINVAL
    m[0] = -1
    assert m[0] == b"\xff" * 12


@BOTH
def test_update_flags(defn: MapDef, space: AddressSpace) -> None:
    m = TYPES.create(defn, space)
    m[1] = 1
    assert m.update_elem(key(1), value(2), BPF_NOEXIST) == -EEXIST
    assert m.update_elem(key(1), value(2), BPF_EXIST) == 0
    assert m.update_elem(key(1), value(2), 3) == -EINVAL
    assert m.update_elem(key(1), value(2), BPF_F_LOCK) == -EINVAL
    assert m.update_elem(key(1), value(2), 1 << 40) == -EINVAL
    assert m.read_int(1) == 2


@BOTH
@pytest.mark.parametrize(
    ("change", "errno"),
    [
        ({"key_size": 0}, EINVAL),
        ({"value_size": 0}, EINVAL),
        ({"max_entries": 0}, EINVAL),
        ({"flags": 1 << 30}, EINVAL),
        ({"flags": MapFlags.RDONLY_PROG | MapFlags.WRONLY_PROG}, EINVAL),
        ({"flags": MapFlags.RDONLY | MapFlags.WRONLY}, EINVAL),
        ({"map_extra": 4096}, EINVAL),
        ({"value_size": (1 << 32) - 8}, E2BIG),
        ({"value_size": 1 << 21, "max_entries": 1 << 20}, ENOMEM),
    ],
)
def test_creation_is_refused(
    defn: MapDef, change: dict[str, int], errno: int, space: AddressSpace
) -> None:
    with pytest.raises(MapError) as e:
        TYPES.create(replace(defn, **change), space)  # type: ignore[arg-type]
    assert e.value.errno == errno
    assert "\n" not in str(e.value)


@BOTH
def test_user_access_flags(defn: MapDef, space: AddressSpace) -> None:
    locked = TYPES.create(replace(defn, flags=MapFlags.RDONLY), space)
    with pytest.raises(MapError, match="read-only") as e:
        locked[0] = 1
    assert e.value.errno == EPERM
    assert locked.update_elem(key(0), value(1), BPF_ANY) == 0
    assert locked.read_int(0) == 1
    hidden = TYPES.create(replace(defn, flags=MapFlags.WRONLY), space)
    hidden[0] = 1
    with pytest.raises(MapError, match="write-only"):
        hidden[0]


@BOTH
def test_rdonly_prog_values_are_read_only_memory(defn: MapDef, space: AddressSpace) -> None:
    m = TYPES.create(replace(defn, flags=MapFlags.RDONLY_PROG), space)
    m[0] = 3
    addr = m.lookup_elem(key(0))
    assert space.read(addr, 12) == value(3)
    assert not space.write(addr, b"x")


def test_unknown_types_are_refused_by_name(space: AddressSpace) -> None:
    for number, name in ((T.LPM_TRIE, "lpm_trie"), (77, "unknown")):
        with pytest.raises(MapError, match=name) as e:
            TYPES.create(MapDef("m", number, 4, 4, 1), space)
        assert e.value.errno == EINVAL


def test_array_specials(space: AddressSpace) -> None:
    m = TYPES.create(ARRAY, space)
    assert m.update_elem(key(4), value(0), BPF_ANY) == -E2BIG
    assert m.delete_elem(key(0)) == -EINVAL
    with pytest.raises(MapError):
        del m[0]
    with pytest.raises(MapError):
        TYPES.create(replace(ARRAY, key_size=8), space)
    with pytest.raises(MapError):
        TYPES.create(replace(ARRAY, flags=MapFlags.NO_PREALLOC), space)


def test_array_image_direct_value_and_facts(space: AddressSpace) -> None:
    rodata = MapDef(
        ".rodata", T.ARRAY, 4, 8, 1, MapFlags.RDONLY_PROG, image=b"abcdefgh", frozen=True
    )
    m = TYPES.create(rodata, space)
    assert space.read(m.value_addr(3), 2) == b"de"
    assert m.facts().contents == b"abcdefgh"
    assert m.update_elem(key(0), b"x" * 8, BPF_ANY) == -EPERM
    with pytest.raises(MapError, match="read-only"):
        m[0] = 1
    assert m[0] == b"abcdefgh"
    data = TYPES.create(replace(rodata, flags=0, frozen=False), space)
    assert data.facts().contents is None
    with pytest.raises(MapError, match="initial value"):
        TYPES.create(replace(rodata, image=b"too long for it"), space)


@pytest.fixture
def table(space: AddressSpace) -> Map:
    return TYPES.create(HASH, space)


def test_hash_add_delete_full(table: Map) -> None:
    assert table.update_elem(key(1), value(1), BPF_EXIST) == -ENOENT
    for n in range(4):
        assert table.update_elem(key(n), value(n), BPF_NOEXIST) == 0
    assert table.update_elem(key(9), value(9), BPF_ANY) == -E2BIG
    with pytest.raises(MapError, match="list"):
        table[9] = 1
    assert table.delete_elem(key(2)) == 0
    assert table.delete_elem(key(2)) == -ENOENT
    with pytest.raises(KeyError):
        del table[2]
    table[9] = 90
    assert [int.from_bytes(k, "little") for k in table] == [0, 1, 3, 9]


def test_hash_addresses_hold_while_a_run_is_in_flight(table: Map, space: AddressSpace) -> None:
    table[1] = 11
    table[2] = 22
    space.enter_run()
    gone, replaced = table.lookup_elem(key(1)), table.lookup_elem(key(2))
    del table[1]
    table[2] = 23
    table[3] = 33
    assert space.read(gone, 12) == value(11)
    assert space.read(replaced, 12) == value(22)
    assert table.read_int(2) == 23
    space.leave_run()
    table[4] = 44
    table[5] = 55
    assert {table.lookup_elem(key(4)), table.lookup_elem(key(5))} == {gone, replaced}


def test_hash_reuses_slots_within_a_run_rather_than_fail(table: Map, space: AddressSpace) -> None:
    space.enter_run()
    for n in range(1000):
        assert table.update_elem(key(n), value(n), BPF_ANY) == 0
        assert table.delete_elem(key(n)) == 0
        assert table.update_elem(key(5000), value(n), BPF_ANY) == 0
    assert len(table) == 1
    assert table.read_int(5000) == 999


def test_hash_keys_of_any_size(space: AddressSpace) -> None:
    m = TYPES.create(MapDef("h", T.HASH, 10, 1, 100, MapFlags.NO_PREALLOC), space)
    m[b"0123456789"] = 7
    assert m.read_int(b"0123456789") == 7
    m[255] = 1
    assert b"\xff" + bytes(9) in m


def test_hash_may_be_emptied_while_iterating(table: Map) -> None:
    table.update({key(1): value(1), key(2): value(2)})
    for k in table:
        del table[k]
    assert len(table) == 0
