"""BTF and BTF.ext: the types, function and line info that clang puts into an object.

The parser is strict and bounded: every offset, id and count is checked, chains of types have an
end, and no work depends on more than the bytes that are there. Formats: Linux
Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, unique
from functools import cached_property
from typing import Generic, TypeVar

from bpfvm.elf import text_at
from bpfvm.errors import LoadError
from bpfvm.program import Linkage, Param

__all__ = [
    "Btf",
    "BtfExt",
    "BtfKind",
    "BtfType",
    "CoreReloc",
    "FuncInfo",
    "LineRecord",
    "Records",
    "VarInfo",
    "func_ids",
    "header_sizes",
]

_MAGIC, _VERSION = 0xEB9F, 1
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_VLEN_MASK = 0xFFFF
_POINTER_SIZE = 8
#: How many modifiers, typedefs, pointers and array levels may follow one another (as in libbpf).
_MAX_DEPTH = 32
#: Decl tag of a list's head and a tree's root.
_CONTAINS = "contains:"
#: Source lines are shown cut off there.
_MAX_LINE = 1024


@unique
class BtfKind(IntEnum):
    """BTF_KIND_*."""

    VOID = 0
    INT = 1
    PTR = 2
    ARRAY = 3
    STRUCT = 4
    UNION = 5
    ENUM = 6
    FWD = 7
    TYPEDEF = 8
    VOLATILE = 9
    CONST = 10
    RESTRICT = 11
    FUNC = 12
    FUNC_PROTO = 13
    VAR = 14
    DATASEC = 15
    FLOAT = 16
    DECL_TAG = 17
    TYPE_TAG = 18
    ENUM64 = 19


#: What follows the three words of a type: one record, or one for each of its vlen members.
_ONE = {
    BtfKind.INT: struct.Struct("<I"),
    BtfKind.ARRAY: struct.Struct("<III"),  # element type, index type, element count
    BtfKind.VAR: struct.Struct("<I"),  # linkage
    BtfKind.DECL_TAG: struct.Struct("<i"),  # component index
}
_EACH = {
    BtfKind.STRUCT: struct.Struct("<III"),  # name, type, offset
    BtfKind.UNION: struct.Struct("<III"),
    BtfKind.ENUM: struct.Struct("<Ii"),  # name, value
    BtfKind.FUNC_PROTO: struct.Struct("<II"),  # name, type
    BtfKind.DATASEC: struct.Struct("<III"),  # type, offset, size
    BtfKind.ENUM64: struct.Struct("<III"),  # name, low half, high half
}
#: Types that only qualify the type they refer to.
_MODIFIERS = frozenset(
    {BtfKind.TYPEDEF, BtfKind.VOLATILE, BtfKind.CONST, BtfKind.RESTRICT, BtfKind.TYPE_TAG}
)
_SIZED = frozenset(
    {
        BtfKind.INT,
        BtfKind.STRUCT,
        BtfKind.UNION,
        BtfKind.ENUM,
        BtfKind.FLOAT,
        BtfKind.DATASEC,
        BtfKind.ENUM64,
    }
)
_C_TAG = {
    BtfKind.STRUCT: "struct",
    BtfKind.UNION: "union",
    BtfKind.ENUM: "enum",
    BtfKind.ENUM64: "enum",
    BtfKind.FWD: "struct",
}
_C_QUALIFIER = {
    BtfKind.VOLATILE: "volatile",
    BtfKind.CONST: "const",
    BtfKind.RESTRICT: "restrict",
}


@dataclass(frozen=True, slots=True)
class BtfType:
    """One type: *ref* is its size or the id it refers to, *extra* the records behind it."""

    id: int
    kind: BtfKind
    name: str
    vlen: int
    ref: int
    extra: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class VarInfo:
    """A variable or function of a DATASEC."""

    name: str
    kind: BtfKind
    type_id: int
    linkage: int

    STATIC, GLOBAL, EXTERN = 0, 1, 2


def _read_header(
    data: memoryview, error: Callable[[str], LoadError]
) -> tuple[int, int, int, int, int]:
    """Return the length of the header that both sections begin with, and the offset and length
    of the two tables that it tells of."""
    if len(data) < _HEADER.size:
        raise error(f"truncated header: {len(data)} of {_HEADER.size} bytes")
    magic, version, _flags, hdr_len, *tables = _HEADER.unpack_from(data)
    if magic != _MAGIC or version != _VERSION:
        raise error(f"bad magic {magic:#06x} or version {version}")
    if not _HEADER.size <= hdr_len <= len(data):
        raise error(f"bad header length {hdr_len:#x}")
    first_off, first_len, second_off, second_len = tables
    return hdr_len, first_off, first_len, second_off, second_len


class Btf:
    """The types of one `.BTF` section.

    Raises:
        LoadError: the section is damaged.
    """

    def __init__(self, data: memoryview, origin: str) -> None:
        self.origin = f"{origin}: .BTF"
        types, self._strings = self._split(data)
        self.types = (BtfType(0, BtfKind.VOID, "void", 0, 0), *self._types(types))

    def _split(self, data: memoryview) -> tuple[memoryview, memoryview]:
        hdr_len, type_off, type_len, str_off, str_len = _read_header(data, self._error)
        body = data[hdr_len:]
        for what, off, size in (("types", type_off, type_len), ("strings", str_off, str_len)):
            if off + size > len(body):
                raise self._error(
                    f"{what}: {size:#x} bytes at {off:#x} end past {len(body):#x} bytes"
                )
        strings = body[str_off : str_off + str_len]
        if not strings or strings[0] or strings[-1]:
            raise self._error("string section does not start and end with NUL")
        return body[type_off : type_off + type_len], strings

    def _types(self, data: memoryview) -> Iterator[BtfType]:
        at, type_id = 0, 1
        while at < len(data):
            if at + _TYPE.size > len(data):
                raise self._error(f"type {type_id}: truncated")
            name_off, info, ref = _TYPE.unpack_from(data, at)
            at += _TYPE.size
            number, vlen = info >> 24 & 0x1F, info & _VLEN_MASK
            try:
                kind = BtfKind(number)
            except ValueError:
                raise self._error(f"type {type_id}: unknown kind {number}") from None
            if kind is BtfKind.VOID:
                raise self._error(f"type {type_id}: unknown kind 0")
            record, count = (_ONE[kind], 1) if kind in _ONE else (_EACH.get(kind), vlen)
            extra: tuple[tuple[int, ...], ...] = ()
            if record is not None:
                size = record.size * count
                if at + size > len(data):
                    raise self._error(f"type {type_id}: {vlen} members end past the types")
                extra = tuple(record.iter_unpack(data[at : at + size]))
                at += size
            yield BtfType(type_id, kind, self.string(name_off), vlen, ref, extra)
            type_id += 1

    def _error(self, message: str) -> LoadError:
        return LoadError(f"{self.origin}: {message}")

    def string(self, offset: int) -> str:
        """Return the name at *offset* of the string section."""
        name = text_at(self._strings, offset)
        if name is None:
            raise self._error(f"bad string offset {offset:#x}")
        return name

    def line_text(self, offset: int) -> str | None:
        """Return the text at *offset* of the string section, cut off if it is very long, or None
        where there is none."""
        if not 0 <= offset < len(self._strings):
            return None
        window = bytes(self._strings[offset : offset + _MAX_LINE])
        return window.split(b"\0", 1)[0].decode("utf-8", "replace")

    # -- following types ----------------------------------------------------------------------

    def type(self, type_id: int) -> BtfType:
        """Return type *type_id*.

        Raises:
            LoadError: there is none.
        """
        if not 0 <= type_id < len(self.types):
            raise self._error(f"type {type_id} of {len(self.types)}")
        return self.types[type_id]

    def _chain(self, type_id: int) -> Iterator[BtfType]:
        """Yield the type and what its modifiers refer to, down to the first that is none."""
        for _ in range(_MAX_DEPTH):
            found = self.type(type_id)
            yield found
            if found.kind not in _MODIFIERS:
                return
            type_id = found.ref
        raise self._error(f"type {type_id}: types refer to one another without end")

    def resolve(self, type_id: int) -> BtfType:
        """Return the type behind typedefs, qualifiers and type tags."""
        return list(self._chain(type_id))[-1]

    def tags(self, type_id: int) -> frozenset[str]:
        """Return the type tags on the type and, of a pointer, on what it points to."""
        tags: set[str] = set()
        last = None
        for last in self._chain(type_id):
            if last.kind is BtfKind.TYPE_TAG:
                tags.add(last.name)
        if last is not None and last.kind is BtfKind.PTR:
            tags.update(t.name for t in self._chain(last.ref) if t.kind is BtfKind.TYPE_TAG)
        return frozenset(tags)

    def size_of(self, type_id: int) -> int:
        """Return the size of a value of the type in bytes.

        Raises:
            LoadError: it has none (void, a function), or the types are damaged.
        """
        count = 1
        for _ in range(_MAX_DEPTH):
            found = self.resolve(type_id)
            if found.kind is BtfKind.PTR:
                return count * _POINTER_SIZE
            if found.kind in _SIZED:
                return count * found.ref
            if found.kind is not BtfKind.ARRAY:
                break
            type_id, _index, nelems = found.extra[0]
            count *= nelems
        raise self._error(f"type {type_id}: it has no size")

    def spelling(self, type_id: int) -> str:
        """Return the type as C spells it, about."""
        stars = ""
        words: list[str] = []
        for _ in range(_MAX_DEPTH):
            found = self.type(type_id)
            if found.kind is BtfKind.PTR:
                stars = "*" + "".join(f"{w} " for w in words) + stars
                words = []
            elif found.kind in _C_QUALIFIER:
                words.append(_C_QUALIFIER[found.kind])
            elif found.kind is not BtfKind.TYPE_TAG:
                tag = _C_TAG.get(found.kind)
                name = f"{tag} {found.name or '(anon)'}" if tag else found.name or "?"
                return " ".join([*words, name]) + (f" {stars.rstrip()}" if stars else "")
            type_id = found.ref
        raise self._error(f"type {type_id}: types refer to one another without end")

    # -- what the loader asks -----------------------------------------------------------------

    @cached_property
    def datasecs(self) -> Mapping[str, tuple[VarInfo, ...]]:
        """The variables and functions of each section, by section name."""
        return {t.name: tuple(self._vars(t)) for t in self.types if t.kind is BtfKind.DATASEC}

    def _vars(self, datasec: BtfType) -> Iterator[VarInfo]:
        for type_id, _offset, _size in datasec.extra:
            var = self.type(type_id)
            if var.kind is BtfKind.VAR:
                yield VarInfo(var.name, var.kind, var.ref, var.extra[0][0])
            elif var.kind is BtfKind.FUNC:
                yield VarInfo(var.name, var.kind, var.ref, var.vlen)
            else:
                raise self._error(f"type {type_id}: {var.kind.name} in section {datasec.name}")

    @cached_property
    def _decl_tags(self) -> Mapping[tuple[int, int], frozenset[str]]:
        tags: dict[tuple[int, int], set[str]] = {}
        for t in self.types:
            if t.kind is BtfKind.DECL_TAG:
                tags.setdefault((t.ref, t.extra[0][0]), set()).add(t.name)
        return {key: frozenset(names) for key, names in tags.items()}

    @cached_property
    def func_tags(self) -> Mapping[str, tuple[str, ...]]:
        """The decl tags of each function itself, not of its parameters, by the function's name."""
        tags: dict[str, list[str]] = {}
        for t in self.types:
            if t.kind is BtfKind.DECL_TAG and t.extra[0][0] == -1:
                target = self.type(t.ref)
                if target.kind is BtfKind.FUNC:
                    tags.setdefault(target.name, []).append(t.name)
        return {name: tuple(found) for name, found in tags.items()}

    def tags_of_func(self, func: BtfType) -> frozenset[str]:
        """Return the decl tags on a FUNC itself."""
        return self._decl_tags.get((func.id, -1), frozenset())

    def contains(self, type_id: int, member: int) -> str | None:
        """Return what the decl tag `contains:` says of a struct's member, or a variable (-1)."""
        found = self._decl_tags.get((type_id, member), frozenset())
        tags = sorted(tag for tag in found if tag.startswith(_CONTAINS))
        return tags[0].removeprefix(_CONTAINS) if tags else None

    def func_linkage(self, func: BtfType) -> Linkage:
        """Return the linkage of a FUNC."""
        return Linkage.GLOBAL if func.vlen == VarInfo.GLOBAL else Linkage.STATIC

    def is_func(self, type_id: int) -> bool:
        """Say whether *type_id* is a FUNC."""
        return type_id < len(self.types) and self.types[type_id].kind is BtfKind.FUNC

    def func(self, type_id: int) -> BtfType:
        """Return the FUNC *type_id*.

        Raises:
            LoadError: it is none.
        """
        func = self.type(type_id)
        if func.kind is not BtfKind.FUNC:
            raise self._error(f"type {type_id}: {func.kind.name} where FUNC was expected")
        return func

    def signature(self, func: BtfType) -> tuple[tuple[Param, ...], Param | None]:
        """Return the parameters of a FUNC and its return value (None: void)."""
        proto = self.type(func.ref)
        if proto.kind is not BtfKind.FUNC_PROTO:
            raise self._error(f"type {func.id}: function {func.name} without a prototype")
        params = tuple(
            self._param(self.string(name_off), type_id, self._decl_tags.get((func.id, i)))
            for i, (name_off, type_id) in enumerate(proto.extra)
        )
        if self.resolve(proto.ref).kind is BtfKind.VOID:
            return params, None
        return params, self._param("", proto.ref, None)

    def _param(self, name: str, type_id: int, decl_tags: frozenset[str] | None) -> Param:
        found = self.resolve(type_id)
        if found.kind is BtfKind.VOID:  # the "..." of a variadic function
            return Param(name, "...", kind=_kind_name(found))
        is_pointer = found.kind is BtfKind.PTR
        chain = list(self._chain(found.ref)) if is_pointer else []
        pointee = chain[-1] if chain else None
        return Param(
            name,
            self.spelling(type_id),
            self.size_of(type_id),
            is_pointer,
            self.tags(type_id) | (decl_tags or frozenset()),
            self.size_of(pointee.id) if pointee and self._has_size(pointee) else 0,
            _kind_name(found),
            _kind_name(pointee) if pointee else "UNKNOWN",
            pointee.name if pointee and pointee.id else "",
            next((t.name for t in chain if t.kind is BtfKind.TYPEDEF), ""),
        )

    def _has_size(self, found: BtfType) -> bool:
        return found.kind in _SIZED or found.kind in (BtfKind.PTR, BtfKind.ARRAY)


def _kind_name(found: BtfType) -> str:
    """Return what the kernel calls the type's kind (btf_type_str)."""
    return "UNKNOWN" if found.kind is BtfKind.VOID else found.kind.name


def header_sizes() -> tuple[Mapping[int, int], Mapping[int, int]]:
    """Return how many bytes follow the three words of a type, by kind: once, and per member."""
    return (
        {int(kind): record.size for kind, record in _ONE.items()},
        {int(kind): record.size for kind, record in _EACH.items()},
    )


def func_ids(data: bytes, origin: str) -> Mapping[str, int]:
    """Return the id of each FUNC of raw BTF by its name, as of a kernel's own BTF; the first of
    several counts. Nothing else of the types is looked at, so that megabytes take no time.

    Raises:
        LoadError: the BTF is damaged.
    """

    def damaged(message: str) -> LoadError:
        return LoadError(f"{origin}: {message}")

    hdr_len, type_off, type_len, str_off, str_len = _read_header(memoryview(data), damaged)
    types = data[hdr_len + type_off : hdr_len + type_off + type_len]
    strings = data[hdr_len + str_off : hdr_len + str_off + str_len]
    once, each = header_sizes()
    found: dict[str, int] = {}
    at, type_id = 0, 1
    while at + _TYPE.size <= len(types):
        name_off, info, _ = _TYPE.unpack_from(types, at)
        kind = info >> 24 & 0x1F
        if kind == BtfKind.FUNC:
            end = strings.find(b"\0", name_off)
            found.setdefault(strings[name_off:end].decode(errors="replace"), type_id)
        at += _TYPE.size + once.get(kind, 0) + each.get(kind, 0) * (info & _VLEN_MASK)
        type_id += 1
    if at != len(types):
        raise damaged("truncated types")
    return found


def _insn_off(record: tuple[int, ...]) -> int:
    return record[0]


@dataclass(frozen=True, slots=True)
class FuncInfo:
    """The FUNC *type_id* starts at byte *insn_off* of its section."""

    insn_off: int
    type_id: int


@dataclass(frozen=True, slots=True)
class LineRecord:
    """The source line of the insn at byte *insn_off*; file and text are string offsets."""

    insn_off: int
    file_off: int
    line_off: int
    line_col: int

    @property
    def line(self) -> int:
        """The line number."""
        return self.line_col >> 10

    @property
    def col(self) -> int:
        """The column."""
        return self.line_col & 0x3FF


@dataclass(frozen=True, slots=True)
class CoreReloc:
    """A CO-RE relocation of the insn at byte *insn_off*."""

    insn_off: int
    type_id: int
    access_off: int
    kind: int


_Record = TypeVar("_Record", FuncInfo, LineRecord, CoreReloc)


class Records(Generic[_Record]):
    """What `.BTF.ext` tells of one section's code, as it stands there."""

    def __init__(self, records: Iterable[_Record]) -> None:
        self._records: tuple[_Record, ...] = tuple(records)
        offsets = [record.insn_off for record in self._records]
        self._offsets: list[int] | None = offsets if offsets == sorted(offsets) else None

    def within(self, start: int, end: int) -> tuple[_Record, ...]:
        """Return the records from the first to the last for bytes [start, end), of those before
        the first one beyond (libbpf: adjust_prog_btf_ext_info)."""
        if self._offsets is not None:
            return self._records[
                bisect_left(self._offsets, start) : bisect_left(self._offsets, end)
            ]
        found: list[int] = []
        for i, record in enumerate(self._records):
            if record.insn_off >= end:
                break
            if record.insn_off >= start:
                found.append(i)
        return self._records[found[0] : found[-1] + 1] if found else ()


class BtfExt:
    """The info of one `.BTF.ext` section, each kind by section name; of a section that is there
    twice, the first.

    Raises:
        LoadError: the section is damaged.
    """

    def __init__(self, data: memoryview, btf: Btf, origin: str) -> None:
        self.origin = f"{origin}: .BTF.ext"
        self._btf = btf
        hdr_len, func_off, func_len, line_off, line_len = _read_header(data, self._error)
        core_off, core_len = 0, 0
        if hdr_len >= _HEADER.size + 8:
            core_off, core_len = struct.unpack_from("<II", data, _HEADER.size)
        body = data[hdr_len:]
        self.funcs: dict[str, Records[FuncInfo]] = {}
        for sec, records in self._info(body, "func_info", func_off, func_len, 2):
            self.funcs.setdefault(sec, Records(FuncInfo(*r) for r in records))
        self.lines: dict[str, Records[LineRecord]] = {}
        for sec, records in self._info(body, "line_info", line_off, line_len, 4):
            self.lines.setdefault(sec, Records(LineRecord(*r) for r in records))
        self.core: dict[str, Records[CoreReloc]] = {}
        for sec, records in self._info(body, "core_relo", core_off, core_len, 4):
            self.core[sec] = Records(CoreReloc(*r) for r in sorted(records, key=_insn_off))

    def _error(self, message: str) -> LoadError:
        return LoadError(f"{self.origin}: {message}")

    def _info(
        self, body: memoryview, what: str, off: int, size: int, words: int
    ) -> Iterator[tuple[str, list[tuple[int, ...]]]]:
        """Yield the records of one kind of info by section: their first *words* words."""
        if not size:
            return
        if off + size > len(body) or size < 4:
            raise self._error(f"{what}: {size:#x} bytes at {off:#x} end past {len(body):#x} bytes")
        data = body[off : off + size]
        (rec_size,) = struct.unpack_from("<I", data)
        if rec_size < 4 * words or rec_size % 4 or rec_size > size:
            raise self._error(f"{what}: records of {rec_size} bytes")
        record = struct.Struct(f"<{words}I{rec_size - 4 * words}x")
        at = 4
        while at < len(data):
            if at + 8 > len(data):
                raise self._error(f"{what}: truncated at {at:#x}")
            name_off, count = struct.unpack_from("<II", data, at)
            at += 8
            if not count or at + count * rec_size > len(data):
                raise self._error(f"{what}: {count} records at {at:#x} of {len(data):#x} bytes")
            yield (
                self._btf.string(name_off),
                list(record.iter_unpack(data[at : at + count * rec_size])),
            )
            at += count * rec_size
