"""Variables of an object's source, read and written from Python."""

from __future__ import annotations

import pytest

from bpfvm.maps.array import ArrayMap
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.memory import AddressSpace
from bpfvm.program import GlobalVar, MapDef
from bpfvm.variables import Variables


@pytest.fixture
def maps() -> list[ArrayMap]:
    space = AddressSpace()
    data = MapDef("x.data", MapType.ARRAY, 4, 12, 1, image=bytes(range(12)))
    rodata = MapDef(
        "x.rodata", MapType.ARRAY, 4, 4, 1, MapFlags.RDONLY_PROG, image=b"\1\2\3\4", frozen=True
    )
    return [ArrayMap(data, space), ArrayMap(rodata, space)]


@pytest.fixture
def variables(maps: list[ArrayMap]) -> Variables:
    symbols = {
        "count": GlobalVar(0, 4, 4),
        "limit": GlobalVar(1, 0, 4),
        "none": GlobalVar(0, 12, 0),
    }
    return Variables(symbols, lambda: maps)


def test_a_variable_is_the_maps_own_memory(maps: list[ArrayMap], variables: Variables) -> None:
    count = variables["count"]
    assert bytes(count) == bytes((4, 5, 6, 7))
    count.cast("I")[0] = 77
    assert maps[0][0][4:8] == (77).to_bytes(4, "little")
    assert maps[0][0][:4] == bytes((0, 1, 2, 3))
    maps[0][0] = bytes(12)
    assert count.cast("I")[0] == 0


def test_constants_are_read_only(variables: Variables) -> None:
    assert bytes(variables["limit"]) == b"\1\2\3\4"
    with pytest.raises(TypeError):
        variables["limit"][0] = 9


def test_it_is_a_mapping(variables: Variables) -> None:
    assert sorted(variables) == ["count", "limit", "none"]
    assert len(variables) == 3
    assert len(variables["none"]) == 0
    with pytest.raises(KeyError):
        variables["absent"]


def test_a_view_keeps_its_memory(variables: Variables, maps: list[ArrayMap]) -> None:
    count = variables["count"]
    maps.clear()
    assert bytes(count) == bytes((4, 5, 6, 7))
