"""BTF for what is loaded into a kernel: what subprogs take and give, their source lines, special
fields of map values.

The kernel wants it for global subprogs and callbacks, and for maps with locks or timers. Types are
as coarse as `Param` knows them: numbers by their size, pointers to void, or to bytes of a known
size.
"""

from __future__ import annotations

import struct

from bpfvm.btf import BtfKind
from bpfvm.program import Linkage, MapDef, Param, Program, Subprog

__all__ = ["map_btf", "prog_btf"]

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


#: No string table is as long.
_NO_STRING = 0x7FFF_FFFF


def prog_btf(program: Program) -> tuple[bytes, bytes, bytes]:
    """Return the BTF that tells of the functions and lines of *program*, its func_info and its
    line_info (records as BPF_PROG_LOAD takes them)."""
    writer = _Writer()
    told = any(sub.params is not None for sub in program.subprogs)
    funcs = [(sub.start, writer.func(sub)) for sub in program.subprogs] if told else []
    if program.func_info is not None and told:
        # The types of a damaged object are gone: any function stands for one.
        types = dict(funcs)
        funcs = [
            (record.insn_off, types.get(record.insn_off, funcs[0][1]) if record.is_func else 0)
            for record in program.func_info
        ]
    info = b"".join(struct.pack("<II", *func) for func in funcs)
    lines = b"".join(
        struct.pack(
            "<IIII",
            line.insn_off,
            writer.text(line.file) if line.is_named else _NO_STRING,
            writer.text(line.source),
            line.line << 10 | line.col,
        )
        for line in program.line_info
    )
    writer.number(4, signed=True)  # BTF without any type is refused
    return writer.blob(), info, lines


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
        self._texts: dict[str, int] = {"": 0}

    def blob(self) -> bytes:
        head = struct.pack("<HBBI", _MAGIC, _VERSION, 0, 24)
        tables = struct.pack("<IIII", 0, len(self.types), len(self.types), len(self.strings))
        return head + tables + bytes(self.types) + bytes(self.strings)

    def text(self, name: str) -> int:
        if name not in self._texts:
            self._texts[name] = len(self.strings)
            self.strings += name.encode() + b"\0"
        return self._texts[name]

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
