"""The types of a kernel, from its own BTF: megabytes, of which a program needs a few types.

They are found by name after one pass over the headers, and decoded when they are asked for.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from bpfvm.btf import Btf, BtfKind, BtfType, header_sizes
from bpfvm.errors import LoadError

__all__ = ["VMLINUX", "KernelBtf", "KernelTypes", "Member"]

#: Where the running kernel shows its types.
VMLINUX = Path("/sys/kernel/btf/vmlinux")
_HEAD = struct.Struct("<III")
_NAMED = frozenset({BtfKind.FUNC, BtfKind.STRUCT, BtfKind.UNION, BtfKind.TYPEDEF})
_COMPOSITE = (BtfKind.STRUCT, BtfKind.UNION)
_KIND_FLAG = 1 << 31


class Member(NamedTuple):
    """A member of a struct: at bit *bit*, and *bits* wide where it is a bitfield, else 0."""

    name: str
    type_id: int
    bit: int
    bits: int


class KernelBtf(Btf):
    """The types in raw BTF.

    Raises:
        LoadError: it is damaged.
    """

    def __init__(self, data: bytes, origin: str) -> None:
        self.origin = origin
        self._data, self._strings = self._split(memoryview(data))
        self._cache: dict[int, BtfType] = {}
        self._offsets = array("L", [0])
        self._names: dict[tuple[int, int], int] = {}
        self._index()

    def _index(self) -> None:
        data, offsets, names, at = self._data, self._offsets, self._names, 0
        once, each = header_sizes()
        size = len(data)
        while at + _HEAD.size <= size:
            name_off, info, _ = _HEAD.unpack_from(data, at)
            kind = info >> 24 & 0x1F
            if kind in _NAMED and name_off:
                names.setdefault((name_off, kind), len(offsets))
            offsets.append(at)
            at += _HEAD.size + once.get(kind, 0) + each.get(kind, 0) * (info & 0xFFFF)
        if at != size:
            raise self._error("truncated types")
        offsets.append(at)
        self._string_bytes = bytes(self._strings)

    def type(self, type_id: int) -> BtfType:
        """Return type *type_id*.

        Raises:
            LoadError: there is none.
        """
        found = self._cache.get(type_id)
        if found is None:
            if not 0 <= type_id < len(self._offsets) - 1:
                raise self._error(f"type {type_id} of {len(self._offsets) - 1}")
            if not type_id:
                found = BtfType(0, BtfKind.VOID, "void", 0, 0)
            else:
                piece = self._data[self._offsets[type_id] : self._offsets[type_id + 1]]
                found = replace(next(self._types(piece)), id=type_id)
            self._cache[type_id] = found
        return found

    def find(self, name: str, *kinds: BtfKind) -> BtfType | None:
        """Return the first type of that name and of one of *kinds*, or None."""
        wanted = b"\0" + name.encode() + b"\0"
        at = self._string_bytes.find(wanted)
        while at >= 0:
            for kind in kinds:
                found = self._names.get((at + 1, kind))
                if found is not None:
                    return self.type(found)
            at = self._string_bytes.find(wanted, at + 1)
        return None

    def composite(self, name: str) -> BtfType | None:
        """Return the struct or union called *name*."""
        return self.find(name, *_COMPOSITE)

    def func_proto(self, name: str) -> BtfType | None:
        """Return the prototype of the function *name*."""
        func = self.find(name, BtfKind.FUNC)
        return None if func is None else self.type(func.ref)

    def members(self, composite: BtfType) -> Iterator[Member]:
        """Yield the members of a struct or union."""
        _, info, _ = _HEAD.unpack_from(self._data, self._offsets[composite.id])
        for name_off, type_id, place in composite.extra:
            if info & _KIND_FLAG:
                yield Member(self.string(name_off), type_id, place & 0xFFFFFF, place >> 24)
            else:
                yield Member(self.string(name_off), type_id, place, 0)

    def pointee(self, pointer: BtfType) -> tuple[BtfType, frozenset[str]]:
        """Return what *pointer* points to behind modifiers, and the type tags on the way."""
        chain = list(self._chain(pointer.ref))
        return chain[-1], frozenset(t.name for t in chain if t.kind is BtfKind.TYPE_TAG)

    def param_name(self, proto: BtfType, index: int) -> str:
        """Return the name of a prototype's parameter."""
        return self.string(proto.extra[index][0])


class KernelTypes:
    """The types of the kernel that programs are verified for, read when they are first needed.

    *path* names a file of raw BTF; None: there are none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._btf: KernelBtf | None = None

    @property
    def btf(self) -> KernelBtf | None:
        """The types, or None where there are none.

        Raises:
            LoadError: the file is damaged, or can't be read.
        """
        if self._btf is None and self._path is not None:
            try:
                data = self._path.read_bytes()
            except FileNotFoundError:
                if self._path != VMLINUX:
                    raise LoadError(f"{self._path}: no such file") from None
                self._path = None
                return None
            except OSError as error:
                raise LoadError(f"{self._path}: {error.strerror}") from None
            self._btf = KernelBtf(data, str(self._path))
        return self._btf
