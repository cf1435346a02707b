"""Special fields of map values: how BTF tells of them, and which maps may have them."""

from __future__ import annotations

import struct
from errno import E2BIG, EACCES, EINVAL

import pytest
from elf_kit import BtfBuilder

from bpfvm import vm
from bpfvm.btf import Btf
from bpfvm.btfrecord import record_of, record_of_section
from bpfvm.errors import MapError
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.memory import AddressSpace
from bpfvm.program import MapDef
from bpfvm.record import FieldKind, MapField, overwrite

#: BTF kinds, and the encoding of an unsigned int.
INT, PTR, ARRAY, STRUCT, VAR, DATASEC, TYPE_TAG = 1, 2, 3, 4, 14, 15, 18
U32 = struct.pack("<I", 32)


def member(type_id: int, off: int) -> bytes:
    return struct.pack("<III", 0, type_id, 8 * off)


def test_fields_are_found_by_the_names_of_their_structs() -> None:
    b = BtfBuilder()
    u32 = b.add(INT, "unsigned int", 4, extra=U32)
    lock = b.add(STRUCT, "bpf_spin_lock", 4, 1, member(u32, 0))
    timer = b.add(STRUCT, "bpf_timer", 16, 0)
    inner = b.add(STRUCT, "inner", 24, 2, member(u32, 0) + member(timer, 8))
    node = b.add(STRUCT, "node", 8, 0)
    tag = b.add(TYPE_TAG, "kptr", node)
    kptr = b.add(PTR, ref=tag)
    plain = b.add(PTR, ref=node)
    kptrs = b.add(ARRAY, extra=struct.pack("<III", kptr, u32, 2))
    members = [(u32, 0), (lock, 4), (inner, 8), (kptrs, 32), (plain, 48)]
    value = b.add(STRUCT, "value", 56, 5, b"".join(member(*m) for m in members))
    var = b.add(VAR, "global", value, extra=struct.pack("<I", 1))
    b.add(DATASEC, ".data.A", 64, 1, struct.pack("<III", var, 8, 56))
    btf = Btf(b.bytes(), "x.o")
    expected = (
        MapField(FieldKind.SPIN_LOCK, 4),
        MapField(FieldKind.TIMER, 16),
        MapField(FieldKind.KPTR, 32),
        MapField(FieldKind.KPTR, 40),
    )
    assert record_of(btf, value) == expected
    assert record_of(btf, node) == ()
    moved = tuple(MapField(f.kind, f.off + 8) for f in expected)
    assert record_of_section(btf, ".data.A") == moved
    assert record_of_section(btf, ".data") is None


def test_values_are_stored_around_their_fields() -> None:
    fields = (MapField(FieldKind.SPIN_LOCK, 2),)
    assert overwrite(fields, b"abcdefgh", b"ABCDEFGH") == b"ABcdefGH"
    assert overwrite(fields, None, b"ABCDEFGH") == b"AB\0\0\0\0GH"
    assert overwrite((), None, b"AB") == b"AB"


@pytest.mark.parametrize(
    ("offs", "flags", "errno"),
    [((0, 4), 0, E2BIG), ((0,), MapFlags.RDONLY_PROG, EACCES), ((14,), 0, EINVAL)],
)
def test_maps_that_can_not_be(offs: tuple[int, ...], flags: int, errno: int) -> None:
    record = tuple(MapField(FieldKind.SPIN_LOCK, off) for off in offs)
    defn = MapDef("m", MapType.ARRAY, 4, 16, 1, int(flags), record=record)
    with pytest.raises(MapError) as caught:
        vm.MAP_TYPES.create(defn, AddressSpace())
    assert caught.value.errno == errno
