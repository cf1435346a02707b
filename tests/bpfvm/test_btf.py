"""BTF and BTF.ext: what is read, and that damaged sections end in one clear error."""

from __future__ import annotations

import struct

import pytest
from elf_kit import BtfBuilder

from bpfvm.btf import Btf, BtfExt, BtfKind
from bpfvm.errors import LoadError
from bpfvm.program import Linkage, Param

INT, PTR, ARRAY, STRUCT, TYPEDEF, CONST = 1, 2, 3, 4, 8, 10
FUNC, FUNC_PROTO, VAR, DATASEC, DECL_TAG, TYPE_TAG = 12, 13, 14, 15, 17, 18
U32 = struct.pack("<I", 32)


def parse(builder: BtfBuilder) -> Btf:
    return Btf(builder.bytes(), "x.o")


def test_sizes_follow_typedefs_pointers_and_arrays() -> None:
    b = BtfBuilder()
    u32 = b.add(INT, "unsigned int", 4, extra=U32)
    alias = b.add(TYPEDEF, "u32", u32)
    pair = b.add(STRUCT, "pair", 8, 0)
    rows = b.add(ARRAY, extra=struct.pack("<III", alias, u32, 3))
    table = b.add(ARRAY, extra=struct.pack("<III", rows, u32, 5))
    pointer = b.add(PTR, ref=pair)
    btf = parse(b)
    assert [btf.size_of(t) for t in (u32, alias, pair, rows, table, pointer)] == [
        4,
        4,
        8,
        12,
        60,
        8,
    ]
    assert btf.resolve(alias).kind is BtfKind.INT


def test_types_are_spelled_as_in_c() -> None:
    b = BtfBuilder()
    u32 = b.add(INT, "unsigned int", 4, extra=U32)
    node = b.add(STRUCT, "node", 8, 0)
    const_node = b.add(CONST, ref=node)
    pointer = b.add(PTR, ref=const_node)
    const_pointer = b.add(CONST, ref=pointer)
    double = b.add(PTR, ref=pointer)
    tagged = b.add(TYPE_TAG, "arena", node)
    arena = b.add(PTR, ref=tagged)
    alias = b.add(TYPEDEF, "size", u32)
    btf = parse(b)
    assert btf.spelling(pointer) == "const struct node *"
    assert btf.spelling(const_pointer) == "const struct node *const"
    assert btf.spelling(double) == "const struct node **"
    assert btf.spelling(arena) == "struct node *"
    assert btf.spelling(alias) == "size"
    assert btf.spelling(0) == "void"
    assert btf.tags(arena) == {"arena"}


def test_a_function_has_params_with_tags_and_sizes() -> None:
    b = BtfBuilder()
    u32 = b.add(INT, "unsigned int", 4, extra=U32)
    pair = b.add(STRUCT, "pair", 24, 0)
    pointer = b.add(PTR, ref=pair)
    names = struct.pack("<IIII", b.string("p"), pointer, b.string("n"), u32)
    proto = b.add(FUNC_PROTO, ref=u32, vlen=2, extra=names)
    func = b.add(FUNC, "f", proto, vlen=1)
    b.add(DECL_TAG, "arg:arena", func, extra=struct.pack("<i", 0))
    b.add(DECL_TAG, "on the function", func, extra=struct.pack("<i", -1))
    btf = parse(b)
    found = btf.func(func)
    assert btf.func_linkage(found) is Linkage.GLOBAL
    params, ret = btf.signature(found)
    assert params == (
        Param(
            "p",
            "struct pair *",
            8,
            True,
            frozenset({"arg:arena"}),
            24,
            kind="PTR",
            pointee_kind="STRUCT",
            pointee_name="pair",
        ),
        Param("n", "unsigned int", 4),
    )
    assert ret == Param("", "unsigned int", 4)


def test_a_function_may_return_nothing() -> None:
    b = BtfBuilder()
    proto = b.add(FUNC_PROTO)
    func = b.add(FUNC, "f", proto)
    btf = parse(b)
    assert btf.signature(btf.func(func)) == ((), None)
    assert btf.func_linkage(btf.func(func)) is Linkage.STATIC


def test_a_data_section_lists_its_variables() -> None:
    b = BtfBuilder()
    u32 = b.add(INT, "unsigned int", 4, extra=U32)
    var = b.add(VAR, "count", u32, extra=struct.pack("<I", 1))
    b.add(DATASEC, ".bss", 4, 1, struct.pack("<III", var, 0, 4))
    (found,) = parse(b).datasecs[".bss"]
    assert (found.name, found.type_id, found.linkage) == ("count", u32, 1)


@pytest.mark.parametrize("kinds", [(TYPEDEF, TYPEDEF), (CONST, TYPEDEF), (TYPE_TAG, CONST)])
def test_a_cycle_of_types_has_an_end(kinds: tuple[int, int]) -> None:
    b = BtfBuilder()
    b.add(kinds[0], "a", 2)
    b.add(kinds[1], "b", 1)
    btf = parse(b)
    for follow in (btf.resolve, btf.size_of, btf.tags):
        with pytest.raises(LoadError, match=r"^x\.o: \.BTF: type \d: .* without end$"):
            follow(1)


def test_an_array_of_itself_has_no_size() -> None:
    b = BtfBuilder()
    b.add(ARRAY, extra=struct.pack("<III", 1, 1, 2))
    with pytest.raises(LoadError, match="it has no size"):
        parse(b).size_of(1)


def test_a_pointer_to_itself_is_not_spelled_for_ever() -> None:
    b = BtfBuilder()
    b.add(PTR, ref=1)
    with pytest.raises(LoadError, match="without end"):
        parse(b).spelling(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:10], "truncated header: 10 of 24 bytes"),
        (lambda d: b"\x9f\xea" + d[2:], "bad magic 0xea9f or version 1"),
        (lambda d: d[:4] + struct.pack("<I", 1 << 30) + d[8:], "bad header length 0x40000000"),
        (lambda d: d[:12] + struct.pack("<I", 1 << 31) + d[16:], "types: 0x80000000 bytes at 0x0"),
        (lambda d: d[:16] + struct.pack("<I", 1 << 20) + d[20:], "strings: .* at 0x100000 end"),
        (lambda d: d[:-1] + b"x", "does not start and end with NUL"),
        (lambda d: d[:27] + b"\x00\x00\x00\x00\x1f" + d[32:], "type 1: unknown kind 31"),
        (lambda d: d[:24] + struct.pack("<I", 999) + d[28:], "bad string offset 0x3e7"),
    ],
)
def test_damage_is_one_clear_error(change: object, message: str) -> None:
    b = BtfBuilder()
    b.add(STRUCT, "s", 8)
    assert callable(change)
    with pytest.raises(LoadError, match=message) as caught:
        Btf(memoryview(change(bytes(b.bytes()))), "x.o")
    assert "\n" not in str(caught.value)


def test_members_past_the_end_are_refused() -> None:
    b = BtfBuilder()
    b.add(STRUCT, "s", 8, vlen=0xFFFF)
    with pytest.raises(LoadError, match="type 1: 65535 members end past the types"):
        parse(b)


def test_ids_out_of_range_are_refused() -> None:
    b = BtfBuilder()
    b.add(PTR, ref=7)
    with pytest.raises(LoadError, match="type 7 of 2"):
        parse(b).spelling(1)
    with pytest.raises(LoadError, match="PTR where FUNC was expected"):
        parse(b).func(1)


def ext(func_info: bytes = b"", line_info: bytes = b"", core: bytes = b"") -> memoryview:
    parts = (func_info, line_info, core)
    offsets = [0, len(func_info), len(func_info) + len(line_info)]
    table = b"".join(struct.pack("<II", o, len(p)) for o, p in zip(offsets, parts, strict=True))
    return memoryview(struct.pack("<HBBI", 0xEB9F, 1, 0, 32) + table + b"".join(parts))


def test_longer_records_of_info_are_read() -> None:
    b = BtfBuilder()
    name = b.string("xdp")
    btf = parse(b)
    records = struct.pack("<III", 16, 2, 99) + struct.pack("<III", 0, 1, 99)
    lines = struct.pack("<IIIIIII", 16, name, 1, 8, 3, 4, 7 << 10 | 5)
    info = BtfExt(ext(struct.pack("<III", 12, name, 2) + records, lines), btf, "x.o")
    assert [(f.insn_off, f.type_id) for f in info.funcs["xdp"].within(0, 8)] == []
    assert [(f.insn_off, f.type_id) for f in info.funcs["xdp"].within(0, 24)] == [(16, 2), (0, 1)]
    (line,) = info.lines["xdp"].within(0, 24)
    assert (line.insn_off, line.line, line.col) == (8, 7, 5)
    assert info.core == {}


@pytest.mark.parametrize(
    ("info", "message"),
    [
        (struct.pack("<I", 4), "func_info: records of 4 bytes"),
        (struct.pack("<I", 1 << 30), "func_info: records of 1073741824 bytes"),
        (struct.pack("<IB", 8, 0) + b"\0\0\0", "func_info: records of 8 bytes|truncated at 0x4"),
        (struct.pack("<III", 8, 1, 0), "func_info: 0 records"),
        (struct.pack("<III", 8, 1, 1 << 31), "func_info: 2147483648 records"),
        (struct.pack("<IIIII", 8, 500, 1, 0, 0), "bad string offset 0x1f4"),
    ],
)
def test_damaged_info_is_one_clear_error(info: bytes, message: str) -> None:
    b = BtfBuilder()
    b.string("xdp")
    with pytest.raises(LoadError, match=message):
        BtfExt(ext(info), parse(b), "x.o")
