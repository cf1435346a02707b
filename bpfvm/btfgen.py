"""BTF for what is loaded into a kernel: what subprogs take and give, special fields of map values.

The kernel wants it for global subprogs and callbacks, and for maps with locks or timers. Types are
as coarse as `Param` knows them: numbers by their size, pointers to void, or to bytes of a known
size.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from bpfvm.btf import BtfKind
from bpfvm.program import Linkage, MapDef, Param, Subprog

__all__ = ["func_btf", "map_btf"]

_MAGIC, _VERSION = 0xEB9F, 1
_LINKAGE = {Linkage.STATIC: 0, Linkage.GLOBAL: 1}
_SIGNED = 1 << 24  # BTF_INT_SIGNED, in the word behind an INT
_INTS = {
    (1, False): "unsigned char",
    (2, False): "unsigned short",
    (4, False): "unsigned int",
    (8, False): "unsigned long long",
    (4, True): "int",
    (8, True): "long long",
}


def func_btf(subprogs: Sequence[Subprog]) -> tuple[bytes, bytes]:
    """Return the BTF that tells of *subprogs*, and its func_info (records of insn and FUNC id)."""
    writer = _Writer()
    info = b"".join(struct.pack("<II", sub.start, writer.func(sub)) for sub in subprogs)
    return writer.blob(), info


def map_btf(defn: MapDef) -> tuple[bytes, int, int]:
    """Return the BTF that tells of a map's special fields, and the ids of its key and value."""
    writer = _Writer()
    if (defn.key_size, False) in _INTS:
        key = writer.number(defn.key_size, signed=False)
    else:
        key = writer.add(BtfKind.STRUCT, "key", defn.key_size)
    members = b""
    for field in defn.record or ():
        type_id = writer.once(BtfKind.STRUCT, field.kind.label, field.kind.size)
        name = writer.text(f"f{field.off}")
        members += struct.pack("<III", name, type_id, field.off * 8)
    count = len(defn.record or ())
    value = writer.add(BtfKind.STRUCT, "value", defn.value_size, count, members)
    return writer.blob(), key, value


class _Writer:
    def __init__(self) -> None:
        self.strings, self.types, self.count = bytearray(b"\0"), bytearray(), 0
        self._known: dict[tuple[object, ...], int] = {}

    def blob(self) -> bytes:
        head = struct.pack("<HBBI", _MAGIC, _VERSION, 0, 24)
        tables = struct.pack("<IIII", 0, len(self.types), len(self.types), len(self.strings))
        return head + tables + bytes(self.types) + bytes(self.strings)

    def text(self, name: str) -> int:
        if not name:
            return 0
        at = len(self.strings)
        self.strings += name.encode() + b"\0"
        return at

    def add(self, kind: BtfKind, name: str, ref: int, vlen: int = 0, extra: bytes = b"") -> int:
        self.types += struct.pack("<III", self.text(name), kind << 24 | vlen, ref) + extra
        self.count += 1
        return self.count

    def once(self, kind: BtfKind, name: str, ref: int, extra: bytes = b"") -> int:
        key = (kind, name, ref, extra)
        if key not in self._known:
            self._known[key] = self.add(kind, name, ref, extra=extra)
        return self._known[key]

    def number(self, size: int, *, signed: bool) -> int:
        name = _INTS.get((size, signed)) or _INTS.get((size, False)) or _INTS[8, False]
        encoding = (_SIGNED if signed else 0) | size * 8
        return self.once(BtfKind.INT, name, size, struct.pack("<I", encoding))

    def param(self, param: Param) -> int:
        if not param.is_pointer:
            return self.number(param.size, signed=param.ctype in ("int", "long", "long long"))
        if param.pointee_kind in ("STRUCT", "UNION", "FWD"):
            # A context is known by its struct's name.
            kind = BtfKind.FWD if param.pointee_kind == "FWD" else BtfKind.STRUCT
            pointee = self.once(kind, param.pointee_name, param.pointee_size)
        elif (param.pointee_size, False) in _INTS:
            pointee = self.number(param.pointee_size, signed=False)
        elif param.pointee_size:
            pointee = self.once(BtfKind.STRUCT, "mem", param.pointee_size)
        else:
            pointee = 0
        return self.once(BtfKind.PTR, "", pointee)

    def func(self, sub: Subprog) -> int:
        params = sub.params or ()
        ret = self.param(sub.ret) if sub.ret is not None else 0
        members = b"".join(struct.pack("<II", self.text(p.name), self.param(p)) for p in params)
        proto = self.add(BtfKind.FUNC_PROTO, "", ret, len(params), members)
        func = self.add(BtfKind.FUNC, sub.name, proto, _LINKAGE[sub.linkage])
        for i, param in enumerate(params):
            for tag in sorted(param.tags):
                if tag.startswith("arg:"):
                    self.add(BtfKind.DECL_TAG, tag, func, extra=struct.pack("<i", i))
        return func
