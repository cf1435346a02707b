"""The maps of an ELF object: `.maps` as its BTF tells, data sections, and an arena's globals.

Names, flags and placement are libbpf's, so that the same object behaves the same in the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from bpfvm.bits import u32, u64
from bpfvm.btf import Btf, BtfKind, VarInfo
from bpfvm.btfrecord import record_of, record_of_section
from bpfvm.elf import Elf, Section, Symbol
from bpfvm.errors import LoadError
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import GlobalVar, MapDef
from bpfvm.record import MapField

__all__ = ["ObjectMaps", "read_maps"]

ARENA_SECTION = ".addr_space.1"
_PAGE_SIZE = 4096
_POINTER_SIZE = 8
#: Elements of maps that hold programs or maps are file descriptors to user space.
_FD_SIZE = 4
_MAPS_OF_MAPS = (MapType.ARRAY_OF_MAPS, MapType.HASH_OF_MAPS)
#: kernel: BPF_OBJ_NAME_LEN with its NUL, which libbpf's names of data maps respect.
_OBJ_NAME_LEN = 16
#: The largest power of two that a u32 holds.
_MAX_RING = 1 << 31
#: kernel: array_map_alloc_check.
_MAX_VALUE_SIZE = (1 << 31) - 1
#: The fields of a `.maps` definition whose value is a plain number.
_NUMBERS = ("type", "max_entries", "map_flags", "numa_node", "key_size", "value_size", "pinning")


@dataclass(slots=True)
class ObjectMaps:
    """The maps of an object and where its sections refer to them.

    Attributes:
        defs: by map index.
        by_place: map index by (section index, offset) in `.maps`.
        data: (map index, value offset of the section's first byte) by data section index.
        symbols: variables by name.
    """

    defs: list[MapDef] = field(default_factory=list)
    by_place: dict[tuple[int, int], int] = field(default_factory=dict)
    data: dict[int, tuple[int, int]] = field(default_factory=dict)
    symbols: dict[str, GlobalVar] = field(default_factory=dict)


def read_maps(elf: Elf, btf: Btf | None) -> ObjectMaps:
    """Return the maps that *elf* defines.

    Raises:
        LoadError: a definition is wrong; the text names the map and the field.
    """
    maps = ObjectMaps()
    _read_defined(elf, btf, maps)
    for section in elf.sections:
        if section.size and _is_data(section):
            maps.data[section.index] = (len(maps.defs), 0)
            maps.defs.append(_data_map(elf, btf, section))
    _place_arena_globals(elf, maps)
    for symbol in elf.symbols:
        _note_variable(elf, symbol, maps)
    return maps


def _read_defined(elf: Elf, btf: Btf | None, maps: ObjectMaps) -> None:
    section = elf.section(".maps")
    if section is None or not section.size:
        return
    if btf is None:
        raise elf.error("section '.maps': map definitions need BTF: compile with -g")
    places = {
        s.name: s
        for s in elf.symbols
        if s.section is section and s.type == Symbol.OBJECT and s.name
    }
    found: list[tuple[Symbol, VarInfo]] = []
    for var in btf.datasecs.get(".maps", ()):
        place = places.get(var.name)
        if place is None and var.linkage == VarInfo.EXTERN:
            continue  # what refers to it can't be linked
        if place is None:
            raise elf.error(f"map '{var.name}': no symbol in section '.maps'")
        if place.value + place.size > section.size:
            raise elf.error(
                f"map '{var.name}': {place.size} bytes at {place.value:#x} end past section '.maps'"
            )
        found.append((place, var))
    names = {place.value: var.name for place, var in found}
    for place, var in sorted(found, key=lambda f: f[0].value):
        defn = _defined_map(elf, btf, var.name, var.type_id, is_inner=False)
        slots = tuple(_slots(elf, btf, place, var.type_id, names))
        maps.by_place[section.index, place.value] = len(maps.defs)
        maps.defs.append(replace(defn, slots=slots))
    arenas = [d.name for d in maps.defs if d.map_type == MapType.ARENA]
    if len(arenas) > 1:
        raise elf.error(
            f"map '{arenas[1]}': only single ARENA map is supported (map '{arenas[0]}' "
            "is also ARENA)"
        )


def _defined_map(elf: Elf, btf: Btf, name: str, type_id: int, *, is_inner: bool) -> MapDef:
    """Return the map *name* that the members of the struct *type_id* describe (libbpf:
    parse_btf_map_def)."""

    def error(message: str) -> LoadError:
        return elf.error(f"map '{map_name}': {message}")

    map_name = name
    struct = btf.resolve(type_id)
    if struct.kind is not BtfKind.STRUCT:
        raise error(f"its type is {struct.kind.name}, expected STRUCT")
    values: dict[str, int] = {}
    sizes: dict[str, int] = {}
    inner: MapDef | None = None
    record: tuple[MapField, ...] | None = None
    for name_off, type_id, _offset in struct.extra:
        name = btf.string(name_off)
        if name in values:
            raise error(f"field '{name}' is there twice")
        if name in _NUMBERS:
            values[name] = _number(btf, type_id, name, error)
        elif name == "map_extra":
            values[name] = _long(btf, type_id, name, error)
        elif name in ("key", "value"):
            pointer = btf.resolve(type_id)
            if pointer.kind is not BtfKind.PTR:
                raise error(f"field '{name}': its type is {pointer.kind.name}, expected PTR")
            sizes[f"{name}_size"] = btf.size_of(pointer.ref)
            if name == "value":
                record = record_of(btf, pointer.ref)
        elif name == "values":
            if is_inner:
                raise error("multi-level inner maps not supported")
            inner = _inner_map(elf, btf, map_name, type_id, error)
        else:
            raise error(f"unknown field '{name}'")
    for name, size in sizes.items():
        if values.setdefault(name, size) != size:
            raise error(f"conflicting {name} {values[name]} != {size}")
    if "type" not in values:
        raise error("map type isn't specified")
    holds_others = values["type"] in (MapType.PROG_ARRAY, *_MAPS_OF_MAPS)
    return MapDef(
        map_name,
        values["type"],
        u32(values.get("key_size", 0)),
        u32(values.get("value_size", _FD_SIZE if holds_others else 0)),
        _entries(values["type"], values.get("max_entries", 0)),
        values.get("map_flags", 0),
        values.get("map_extra", 0),
        inner=inner,
        record=record,
    )


def _entries(map_type: int, count: int) -> int:
    """Return max_entries as libbpf asks for it: a ring's size is rounded up (adjust_ringbuf_sz)."""
    is_ring = map_type in (MapType.RINGBUF, MapType.USER_RINGBUF)
    if not is_ring or not 0 < count <= _MAX_RING:
        return count
    return max(_PAGE_SIZE, 1 << (count - 1).bit_length())


def _inner_map(
    elf: Elf, btf: Btf, name: str, type_id: int, error: Callable[[str], LoadError]
) -> MapDef | None:
    """Return what `__array(values, ...)` says of the elements; None for programs."""
    array = btf.resolve(type_id)
    if array.kind is not BtfKind.ARRAY:
        raise error(f"field 'values': its type is {array.kind.name}, expected ARRAY")
    pointer = btf.resolve(array.extra[0][0])
    if pointer.kind is not BtfKind.PTR:
        raise error(f"field 'values': its elements are {pointer.kind.name}, expected PTR")
    found = btf.resolve(pointer.ref)
    if found.kind is BtfKind.FUNC_PROTO:
        return None
    return _defined_map(elf, btf, f"{name}.inner", found.id, is_inner=True)


def _slots(
    elf: Elf, btf: Btf, place: Symbol, type_id: int, names: Mapping[int, str]
) -> Iterator[tuple[int, str]]:
    """Yield the elements that `.values = {...}` names (libbpf: bpf_object__collect_map_relos);
    *names* are those of maps by their offsets in the section."""
    fields = (m[2] for m in btf.resolve(type_id).extra if btf.string(m[0]) == "values")
    start = next((offset // 8 for offset in fields), None)
    if start is None or place.section is None:
        return
    first, end = place.value + start, place.value + place.size
    for offset, reloc in sorted(elf.relocs(place.section).items()):
        if first <= offset < end:
            symbol = elf.symbol_of(reloc)
            is_map = symbol.section is place.section
            name = names.get(symbol.value) if is_map else symbol.name
            if name:
                yield (offset - first) // _POINTER_SIZE, name


def _number(btf: Btf, type_id: int, name: str, error: Callable[[str], LoadError]) -> int:
    """Return what `__uint(name, value)` states: a pointer to an array of that many elements."""
    pointer = btf.resolve(type_id)
    if pointer.kind is not BtfKind.PTR:
        raise error(f"field '{name}': its type is {pointer.kind.name}, expected PTR")
    array = btf.resolve(pointer.ref)
    if array.kind is not BtfKind.ARRAY:
        raise error(f"field '{name}': its type points to {array.kind.name}, expected ARRAY")
    return array.extra[0][2]


def _long(btf: Btf, type_id: int, name: str, error: Callable[[str], LoadError]) -> int:
    """Return what `__ulong(name, value)` states: an enum with that one value."""
    found = btf.resolve(type_id)
    if found.kind is BtfKind.PTR:
        return _number(btf, type_id, name, error)
    if found.kind not in (BtfKind.ENUM, BtfKind.ENUM64):
        raise error(f"field '{name}': its type is {found.kind.name}, expected ENUM or ENUM64")
    if len(found.extra) != 1:
        raise error(f"field '{name}': an enum of {len(found.extra)} values, expected one")
    _name_off, low, *high = found.extra[0]
    return u64(low | high[0] << 32 if high else low)


# -- data sections ----------------------------------------------------------------------------


def _is_named(section: Section, stem: str) -> bool:
    return section.name == stem or section.name.startswith(stem + ".")


def _is_data(section: Section) -> bool:
    if section.type == "SHT_NOBITS":
        return _is_named(section, ".bss")
    return (
        section.type == "SHT_PROGBITS"
        and not section.is_code
        and (_is_named(section, ".data") or _is_named(section, ".rodata"))
    )


def _data_map(elf: Elf, btf: Btf | None, section: Section) -> MapDef:
    if section.size > _MAX_VALUE_SIZE:
        raise elf.error(
            f"section '{section.name}': {section.size} bytes, more than the {_MAX_VALUE_SIZE} "
            "that a map value may have"
        )
    frozen = _is_named(section, ".rodata")
    flags = MapFlags.RDONLY_PROG if frozen else MapFlags(0)
    variables = btf.datasecs.get(section.name, ()) if btf else ()
    if any(v.linkage != VarInfo.STATIC for v in variables):
        flags |= MapFlags.MMAPABLE
    return MapDef(
        _data_map_name(elf.origin, section.name),
        MapType.ARRAY,
        4,
        section.size,
        1,
        int(flags),
        image=bytes(section.data) if section.data else None,  # .bss: zeros need no image
        frozen=frozen,
        record=record_of_section(btf, section.name) if btf else None,
    )


def _data_map_name(origin: str, section: str) -> str:
    """Return the name that libbpf gives the map of a data section (internal_map_name)."""
    suffix = section[: _OBJ_NAME_LEN - 1]
    room = 0 if "." in section[1:] else _OBJ_NAME_LEN - 1 - max(7, len(suffix))
    name = os.path.basename(origin).split(".", 1)[0][: max(room, 0)] + suffix
    return "".join(c if (c.isascii() and c.isalnum()) or c in "_." else "_" for c in name)


# -- arena globals and symbols ----------------------------------------------------------------


def _place_arena_globals(elf: Elf, maps: ObjectMaps) -> None:
    section = elf.section(ARENA_SECTION)
    if section is None or not section.size:
        return
    if section.type != "SHT_PROGBITS":
        raise elf.error(f"section '{ARENA_SECTION}': {section.type}, expected SHT_PROGBITS")
    i = next((i for i, d in enumerate(maps.defs) if d.map_type == MapType.ARENA), None)
    if i is None:
        raise elf.error(
            f"elf: sec '{ARENA_SECTION}': to use global __arena variables the ARENA map should "
            'be explicitly declared in SEC(".maps")'
        )
    defn = maps.defs[i]
    size = defn.max_entries * _PAGE_SIZE
    room = -(-section.size // _PAGE_SIZE) * _PAGE_SIZE
    if room > size:
        raise elf.error(
            f"declared ARENA map size ({size}) is too small to hold global __arena variables of "
            f"size {section.size}"
        )
    maps.defs[i] = replace(defn, image=bytes(section.data))
    maps.data[section.index] = (i, size - room)


def _note_variable(elf: Elf, symbol: Symbol, maps: ObjectMaps) -> None:
    section = symbol.section
    if section is None or symbol.type != Symbol.OBJECT or section.index not in maps.data:
        return
    if symbol.value + symbol.size > section.size:
        raise elf.error(
            f"symbol '{symbol.name}': {symbol.size} bytes at {symbol.value:#x} end past section "
            f"'{section.name}'"
        )
    map_idx, base = maps.data[section.index]
    var = GlobalVar(map_idx, base + symbol.value, symbol.size)
    if symbol.bind == Symbol.LOCAL:
        maps.symbols.setdefault(symbol.name, var)
    else:
        maps.symbols[symbol.name] = var
