"""The special fields of a map's value, as BTF tells of them (kernel: btf_parse_fields)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from bpfvm.btf import Btf, BtfKind
from bpfvm.program import LocalType
from bpfvm.record import Contained, FieldKind, MapField

__all__ = ["local_types", "record_of", "record_of_section"]

_BY_NAME = {kind.label: kind for kind in FieldKind if not kind.is_pointer}
_ROOTS = (FieldKind.LIST_HEAD, FieldKind.RB_ROOT)
_BY_TAG = {
    "kptr": FieldKind.KPTR,
    "kptr_untrusted": FieldKind.KPTR,
    "percpu_kptr": FieldKind.PERCPU_KPTR,
    "uptr": FieldKind.UPTR,
}
#: kernel: MAX_RESOLVE_DEPTH of nested fields, BTF_FIELDS_MAX
_MAX_DEPTH = 4
_MAX_FIELDS = 11
#: Bits of a member's offset that are one, whatever the struct's kind_flag.
_OFFSET_MASK = (1 << 24) - 1


def record_of(btf: Btf, type_id: int) -> tuple[MapField, ...]:
    """Return the special fields of a value of type *type_id*, by offset."""
    return tuple(sorted(_fields(btf, type_id, 0, 0), key=lambda field: field.off))


def record_of_section(btf: Btf, name: str) -> tuple[MapField, ...] | None:
    """Return those of the variables in data section *name*, None where BTF tells nothing of it."""
    section = next((t for t in btf.types if t.kind is BtfKind.DATASEC and t.name == name), None)
    if section is None:
        return None
    found: list[MapField] = []
    for var_id, offset, _size in section.extra:
        var = btf.type(var_id)
        if var.kind is BtfKind.VAR:
            found += _fields(btf, var.ref, offset, 0, btf.contains(var_id, -1))
    return tuple(sorted(found, key=lambda field: field.off))


def local_types(btf: Btf, asked: frozenset[int]) -> tuple[LocalType, ...]:
    """Return the structs that have special fields, and those of the numbers *asked*."""
    found = []
    for struct in btf.types:
        if struct.kind is BtfKind.STRUCT and struct.name not in _BY_NAME:
            fields = record_of(btf, struct.id)
            if fields or struct.id in asked:
                found.append(LocalType(struct.id, struct.name, struct.ref, fields))
    return tuple(found)


def _contained(btf: Btf, text: str | None) -> Contained | None:
    """Return what "STRUCT:NODE" names, None where there is no such node."""
    name, _, node = (text or "").partition(":")
    for struct in btf.types:
        if struct.kind is BtfKind.STRUCT and struct.name == name:
            for member_off, _type_id, bits in struct.extra:
                if btf.string(member_off) == node:
                    return Contained(name, (bits & _OFFSET_MASK) // 8)
    return None


def _fields(
    btf: Btf, type_id: int, off: int, depth: int, contains: str | None = None
) -> Iterator[MapField]:
    found = btf.resolve(type_id)
    if found.kind is BtfKind.PTR:
        for tag in btf.tags(type_id) & _BY_TAG.keys():
            yield MapField(_BY_TAG[tag], off)
    elif found.kind is BtfKind.ARRAY:
        element, _index, count = found.extra[0]
        if not count:
            return
        first = list(_fields(btf, element, off, depth + 1))
        size = btf.size_of(element) if first else 0
        for i in range(min(count, _MAX_FIELDS) if first else 0):
            yield from (replace(field, off=field.off + i * size) for field in first)
    elif found.kind is BtfKind.STRUCT:
        kind = _BY_NAME.get(found.name)
        if kind in _ROOTS:
            yield MapField(kind, off, _contained(btf, contains))
        elif kind is not None:
            yield MapField(kind, off)
        elif depth < _MAX_DEPTH:
            for i, (_name, member, bits) in enumerate(found.extra):
                at = off + (bits & _OFFSET_MASK) // 8
                yield from _fields(btf, member, at, depth + 1, btf.contains(found.id, i))
