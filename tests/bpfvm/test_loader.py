"""The loader: objects of clang and Zig, other kinds of files, and what it says of wrong ones."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from elf_kit import COMPILERS, EXAMPLES, LICENSE, build, clang, load, patch, section_bytes

import bpfvm
from bpfvm import isa
from bpfvm.errors import AsmError, LoadError
from bpfvm.insn import Insn
from bpfvm.isa import CallKind, Kind, LdKind
from bpfvm.loader import MAX_FILE_SIZE, load_elf, load_path
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.program import GlobalVar, Linkage, ObjectFile, Program
from bpfvm.vm import REGISTRY, Object

ARENA = """
struct {
	__uint(type, BPF_MAP_TYPE_ARENA);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 10);
} arena SEC(".maps");
"""


def rows(program: Program) -> Iterator[tuple[int, Insn, isa.InsnDef]]:
    slot = 0
    while slot < len(program.insns):
        row = isa.lookup(program.insns[slot])
        assert row is not None
        yield slot, program.insns[slot], row
        slot += 2 if row.kind is Kind.LDIMM64 else 1


def loads(program: Program, kind: LdKind) -> list[tuple[int, int]]:
    """The two immediates of each ldimm64 of a kind."""
    return [
        (insn.imm, program.insns[slot + 1].imm)
        for slot, insn, row in rows(program)
        if row.kind is Kind.LDIMM64 and row.op is kind
    ]


# -- the committed objects, with no compiler needed ---------------------------------------------


def test_arena_list_loads() -> None:
    obj = load_path(EXAMPLES / "arena_list.bpf.o")
    assert list(obj.programs) == ["arena_list_add", "arena_list_del"]
    assert obj.broken == {}
    for program in obj.programs.values():
        assert (program.prog_type, program.sleepable, program.license) == ("syscall", True, "GPL")
    arena, data, bss = obj.maps
    assert (arena.name, arena.map_type, arena.max_entries) == ("arena", MapType.ARENA, 100)
    assert (arena.flags, arena.map_extra) == (MapFlags.MMAPABLE, 1 << 44)
    assert arena.image == bytes(24)
    assert (bss.name, bss.map_type, bss.key_size, bss.max_entries) == (
        "arena_li.bss",
        MapType.ARRAY,
        4,
        1,
    )
    assert bss.image is None
    assert not bss.frozen
    assert (data.name, data.image) == ("arena_li.data", (10).to_bytes(4, "little"))


def test_arena_globals_lie_in_the_last_pages() -> None:
    obj = load_path(EXAMPLES / "arena_list.bpf.o")
    head = obj.symbols["head"]
    assert (head.map_idx, head.size) == (0, 8)
    assert head.off // 4096 == 99
    assert (0, head.off) in loads(obj.programs["arena_list_del"], LdKind.MAP_IDX_VALUE)
    assert obj.symbols["cnt"] == GlobalVar(1, 0, 4)


def test_offsets_beyond_31_bits_keep_their_bits() -> None:
    obj = load_path(EXAMPLES / "arena_heap.bpf.o")
    root = obj.symbols["root"]
    assert root.off >= 0xFFFFF000
    assert (0, root.off - (1 << 32)) in loads(obj.programs["heap_insert"], LdKind.MAP_IDX_VALUE)


def test_kfuncs_are_named_and_indexed_by_program() -> None:
    obj = load_path(EXAMPLES / "arena_list.bpf.o")
    for name, kfunc in (("add", "bpf_arena_alloc_pages"), ("del", "bpf_arena_free_pages")):
        program = obj.programs[f"arena_list_{name}"]
        assert program.kfuncs == (kfunc,)
        assert program.weak_kfuncs == {kfunc}
        calls = [i for _, i, r in rows(program) if r.kind is Kind.CALL]
        assert calls == [Insn(calls[0].opcode, 0, CallKind.KFUNC.value, 0, 0)]


def test_a_static_subprog_is_linked_behind_its_caller() -> None:
    program = load_path(EXAMPLES / "arena_heap.bpf.o").programs["heap_insert"]
    main, sub = program.subprogs
    assert (main.name, main.start, main.linkage) == ("heap_insert", 0, Linkage.GLOBAL)
    assert (sub.name, sub.start, sub.end) == ("new_node", main.end, len(program.insns))
    assert sub.linkage is Linkage.STATIC
    assert sub.params == ()
    assert sub.ret is not None
    assert sub.ret.ctype == "struct node *"
    (call,) = [(s, i) for s, i, r in rows(program) if r.op is CallKind.LOCAL]
    assert call[0] + 1 + call[1].imm == sub.start


def test_line_info_has_the_source() -> None:
    program = load_path(EXAMPLES / "rejected.bpf.o").programs["count_lengths"]
    offs = [line.insn_off for line in program.line_info]
    assert offs == sorted(set(offs))
    assert offs[0] == 0
    source = (EXAMPLES / "rejected.bpf.c").read_text().splitlines()
    for line in program.line_info:
        assert line.file == "./rejected.bpf.c"
        assert line.source == source[line.line - 1]
    assert any("*count += 1" in line.source for line in program.line_info)


@pytest.mark.parametrize(
    ("at", "value", "said"),
    [
        (0, 8, "nonzero insn_off 1 for the first func info record"),
        (4, 1, "invalid type id 1 in func info"),
        (4, 1 << 20, "invalid type id 1048576 in func info"),
    ],
)
def test_damaged_func_info_is_refused_as_the_kernel_does(
    tmp_path: Path, at: int, value: int, said: str
) -> None:
    data = build(tmp_path, LICENSE + 'SEC("xdp") int f(void *ctx) { return 2; }\n')
    ext, _ = section_bytes(data, ".BTF.ext")
    # Behind the header: size of a record, section name, count; then the first record.
    path = tmp_path / "damaged.bpf.o"
    path.write_bytes(patch(data, ext + 32 + 12 + at, struct.pack("<I", value)))
    assert bpfvm.open(path).programs["f"].verify().last == said


# -- what both compilers make -------------------------------------------------------------------

EVERYTHING = (
    ARENA
    + LICENSE
    + """
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 7);
	__uint(key_size, 4);
	__type(value, struct { u64 a; u64 b; });
} table SEC(".maps");

const volatile u32 limit = 5;
u32 start = 3;
u64 counter;
static u32 hidden_counter;
u32 __arena first = 11, second = 22;
static u32 lookup_table[4] = { 9, 8, 7, 6 };

struct point { u32 x, y; };

#define __arg_arena __attribute__((btf_decl_tag("arg:arena")))

__noinline int global_sum(struct point *p, u32 n, void *q __arg_arena)
{
	return p ? p->x + p->y + n : 0;
}

static __noinline int inner(u32 n)
{
	hidden_counter += n;
	return hidden_counter;
}

static __noinline int outer(u32 n)
{
	return inner(n) + inner(n + 1);
}

static int on_each(u32 index, void *ctx)
{
	counter += lookup_table[index & 3];
	return inner(index) & 0;
}

static long (*const bpf_loop)(u32 cnt, void *fn, void *ctx, u64 flags) = (void *)181;

SEC("xdp")
int first_prog(struct xdp_md *ctx)
{
	struct point p = { 1, 2 };

	counter++;
	return outer(start) + global_sum(&p, limit, NULL);
}

SEC("xdp")
int second_prog(struct xdp_md *ctx)
{
	return inner(1);
}

SEC("socket")
int with_callback(struct __sk_buff *skb)
{
	return bpf_loop(10, on_each, NULL, 0);
}

SEC("?tc")
int arena_sum(struct __sk_buff *skb)
{
	return first + second;
}

SEC("xdp.frags")
int with_frags(struct xdp_md *ctx)
{
	return XDP_PASS;
}

SEC("raw_tp/sys_enter")
int tracer(void *ctx)
{
	u32 key = 1;
	u64 *value = bpf_map_lookup_elem(&table, &key);

	return value ? value[1] : 0;
}
"""
)


@pytest.fixture(scope="module", params=COMPILERS)
def everything(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> ObjectFile:
    compiler = COMPILERS[request.param]()
    return load(tmp_path_factory.mktemp(request.param), EVERYTHING, compiler)


def test_sections_give_types_and_flags(everything: ObjectFile) -> None:
    assert everything.broken == {}
    found = {n: (p.prog_type, p.sleepable, p.flags) for n, p in everything.programs.items()}
    assert found == {
        "first_prog": ("xdp", False, 0),
        "second_prog": ("xdp", False, 0),
        "with_callback": ("socket_filter", False, 0),
        "arena_sum": ("sched_cls", False, 0),
        "with_frags": ("xdp", False, 1 << 5),
        "tracer": ("raw_tp", False, 0),
    }


def test_each_program_gets_the_subprogs_it_needs(everything: ObjectFile) -> None:
    names = {n: [s.name for s in p.subprogs] for n, p in everything.programs.items()}
    assert names["first_prog"] == ["first_prog", "outer", "inner", "global_sum"]
    assert names["second_prog"] == ["second_prog", "inner"]
    assert names["with_callback"] == ["with_callback", "on_each", "inner"]
    assert names["tracer"] == ["tracer"]
    for program in everything.programs.values():
        bounds = [(s.start, s.end) for s in program.subprogs]
        assert bounds[0][0] == 0
        assert bounds[-1][1] == len(program.insns)
        assert all(a[1] == b[0] for a, b in pairwise(bounds))


def test_calls_lead_to_the_subprogs(everything: ObjectFile) -> None:
    program = everything.programs["first_prog"]
    at = {s.start: s for s in program.subprogs}
    called = [at[s + 1 + i.imm].name for s, i, r in rows(program) if r.op is CallKind.LOCAL]
    assert called == ["outer", "global_sum", "inner", "inner"]


def test_a_callback_is_loaded_by_its_slot(everything: ObjectFile) -> None:
    program = everything.programs["with_callback"]
    (target,) = [s + 1 + i.imm for s, i, r in rows(program) if r.op is LdKind.FUNC]
    assert target == program.subprogs[1].start


def test_subprogs_have_linkage_and_params(everything: ObjectFile) -> None:
    subs = {s.name: s for s in everything.programs["first_prog"].subprogs}
    assert subs["outer"].linkage is Linkage.STATIC
    found = subs["global_sum"]
    assert found.linkage is Linkage.GLOBAL
    assert found.params is not None
    point, number, arena = found.params
    assert (point.ctype, point.is_pointer, point.pointee_size) == ("struct point *", True, 8)
    assert (number.name, number.ctype, number.size, number.is_pointer) == ("n", "u32", 4, False)
    assert (arena.ctype, arena.pointee_size) == ("void *", 0)
    assert arena.tags == {"arg:arena"}
    assert found.ret is not None
    assert found.ret.ctype == "int"


def test_maps_come_first_then_data_sections(everything: ObjectFile) -> None:
    maps = {m.name: m for m in everything.maps}
    assert {m.name for m in everything.maps[:2]} == {"arena", "table"}
    table = maps["table"]
    assert (table.map_type, table.key_size, table.value_size, table.max_entries) == (1, 4, 16, 7)
    rodata = maps["unit.rodata"]
    assert rodata.frozen
    assert rodata.flags == MapFlags.RDONLY_PROG | MapFlags.MMAPABLE
    assert rodata.image is not None
    assert maps["unit.data"].flags == MapFlags.MMAPABLE
    assert maps["arena"].image == (11).to_bytes(4, "little") + (22).to_bytes(4, "little")


def test_variables_are_where_their_bytes_are(everything: ObjectFile) -> None:
    def initial(name: str) -> int:
        var = everything.symbols[name]
        image = everything.maps[var.map_idx].image
        assert image is not None
        base = 9 * 4096 if everything.maps[var.map_idx].name == "arena" else 0
        return int.from_bytes(image[var.off - base : var.off - base + var.size], "little")

    assert {n: initial(n) for n in ("limit", "start", "first", "second")} == {
        "limit": 5,
        "start": 3,
        "first": 11,
        "second": 22,
    }
    bss = everything.symbols["counter"].map_idx
    assert everything.maps[bss].name == "unit.bss"
    assert everything.symbols["hidden_counter"].map_idx == bss


def test_addresses_of_data_become_map_values(everything: ObjectFile) -> None:
    names = [m.name for m in everything.maps]
    first, second = (everything.symbols[n].off for n in ("first", "second"))
    found = loads(everything.programs["arena_sum"], LdKind.MAP_IDX_VALUE)
    arena = names.index("arena")
    assert sorted(found) == [(arena, first), (arena, second)]
    assert loads(everything.programs["tracer"], LdKind.MAP_IDX) == [(names.index("table"), 0)]
    var = everything.symbols["lookup_table"]
    assert (var.map_idx, var.off) in loads(
        everything.programs["with_callback"], LdKind.MAP_IDX_VALUE
    )


# -- one program's problem is its own -----------------------------------------------------------


def test_a_broken_program_does_not_keep_others_from_loading(tmp_path: Path) -> None:
    obj = load(
        tmp_path,
        LICENSE
        + """
struct far { int pad, field; } __attribute__((preserve_access_index));
extern int a_kernel_var __ksym;
int elsewhere(int);

SEC("lsmod/whatever") int odd_section(void *ctx) { return 0; }
SEC("raw_tp") int relocated(struct far *ctx) { return ctx->field; }
SEC("raw_tp") int of_kernel_var(void *ctx) { return a_kernel_var; }
SEC("raw_tp") int of_nothing(void *ctx) { return elsewhere(1); }
SEC("xdp") int fine(struct xdp_md *ctx) { return XDP_PASS; }
""",
    )
    assert list(obj.programs) == ["relocated", "fine"]
    errors = {name: str(err).removeprefix("unit.bpf.o: ") for name, err in obj.broken.items()}
    assert errors == {
        "odd_section": "program 'odd_section': section 'lsmod/whatever': no program type that we "
        "support has this name",
        "of_kernel_var": "program 'of_kernel_var': insn 0: not supported yet: address of extern "
        "'a_kernel_var'",
        "of_nothing": "program 'of_nothing': insn 1: extern 'elsewhere': not a function of "
        "section '.ksyms'",
    }


def test_programs_may_ask_whether_there_is_a_kfunc(tmp_path: Path) -> None:
    data = build(
        tmp_path,
        LICENSE
        + """
extern int bpf_unheard_of(int) __ksym __weak;

SEC("syscall") int ask(void *ctx)
{
	if (bpf_unheard_of)
		return bpf_unheard_of(1);
	return bpf_arena_free_pages ? 2 : 3;
}
""",
    )
    for kfuncs, r0 in (((), 3), (REGISTRY.kfuncs, 2)):
        prog = Object(load_elf(data, "unit.bpf.o", kfuncs)).programs["ask"]
        assert prog.run(engine="interp").r0 == r0
    assert bpfvm.open(tmp_path / "unit.bpf.c").programs["ask"].run(engine="interp").r0 == 2


def test_without_a_license_section_there_is_no_license(tmp_path: Path) -> None:
    obj = load(tmp_path, 'SEC("xdp") int fine(struct xdp_md *ctx) { return XDP_PASS; }')
    assert obj.programs["fine"].license == ""
    assert not obj.programs["fine"].is_gpl


def without_debug_info(tmp_path: Path, source: str) -> bytes:
    build(tmp_path, source)
    command = [*clang(), "-O2", "-mcpu=v3", "-c", "unit.bpf.c", "-o", "bare.o"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return (tmp_path / "bare.o").read_bytes()


def test_programs_without_btf_load(tmp_path: Path) -> None:
    source = """
static __noinline int twice(int n) { return n * 2; }
SEC("xdp") int fine(struct xdp_md *ctx) { return twice(ctx->data); }
"""
    obj = load_elf(without_debug_info(tmp_path, LICENSE + source), "bare.o")
    program = obj.programs["fine"]
    assert [(s.name, s.linkage, s.params) for s in program.subprogs] == [
        ("fine", Linkage.STATIC, None),
        ("twice", Linkage.STATIC, None),
    ]
    assert program.line_info == ()


def test_maps_and_kfuncs_need_btf(tmp_path: Path) -> None:
    kfunc = """
extern void bpf_rcu_read_lock(void) __ksym;
SEC("xdp") int fine(struct xdp_md *ctx) { bpf_rcu_read_lock(); return XDP_PASS; }
"""
    obj = load_elf(without_debug_info(tmp_path, LICENSE + kfunc), "bare.o")
    assert str(obj.broken["fine"]) == (
        "bare.o: program 'fine': insn 0: extern 'bpf_rcu_read_lock': kfuncs need BTF: "
        "compile with -g"
    )
    data = without_debug_info(tmp_path, LICENSE + ARENA)
    with pytest.raises(LoadError, match=r"section '\.maps': map definitions need BTF"):
        load_elf(data, "bare.o")


def test_a_kfunc_that_is_not_weak_is_needed(tmp_path: Path) -> None:
    obj = load(
        tmp_path,
        LICENSE
        + """
extern void bpf_rcu_read_lock(void) __ksym;
SEC("xdp") int fine(struct xdp_md *ctx) { bpf_rcu_read_lock(); return XDP_PASS; }
""",
    )
    assert obj.programs["fine"].kfuncs == ("bpf_rcu_read_lock",)
    assert obj.programs["fine"].weak_kfuncs == frozenset()


# -- errors of the whole file -------------------------------------------------------------------

PROG = 'SEC("xdp") int fine(struct xdp_md *ctx) { return XDP_PASS; }\n' + LICENSE


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            'struct { __uint(type, 1); __uint(colour, 2); } m SEC(".maps");',
            "map 'm': unknown field 'colour'",
        ),
        (
            'struct { __uint(type, 1); __type(key, u32); __uint(key_size, 8); } m SEC(".maps");',
            "map 'm': conflicting key_size 8 != 4",
        ),
        ('struct { __uint(max_entries, 1); } m SEC(".maps");', "map 'm': map type isn't specified"),
        (
            'struct { u32 type; } m SEC(".maps");',
            "map 'm': field 'type': its type is INT, expected PTR",
        ),
        ('u32 m SEC(".maps") = 1;', "map 'm': its type is VOID, expected STRUCT"),
        (
            ARENA + ARENA.replace("arena SEC", "other SEC"),
            "map 'other': only single ARENA map is supported (map 'arena' is also ARENA)",
        ),
        (
            "u32 __arena x = 1;",
            "elf: sec '.addr_space.1': to use global __arena variables the ARENA map should be "
            'explicitly declared in SEC(".maps")',
        ),
        (
            ARENA + "u8 __arena x[40961] = { 1 };",
            "declared ARENA map size (40960) is too small to hold global __arena variables of "
            "size 40961",
        ),
    ],
)
def test_a_wrong_definition_is_named(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(LoadError) as caught:
        load(tmp_path, PROG + source)
    assert str(caught.value) == f"unit.bpf.o: {message}"


def test_an_object_without_programs_says_so(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"no programs: no function in a section such as 'xdp'$"):
        load(tmp_path, "int f(void) { return 1; }")


# -- files that are not objects -----------------------------------------------------------------


def test_raw_insns_are_one_program(tmp_path: Path) -> None:
    path = tmp_path / "two.bin"
    path.write_bytes(bytes.fromhex("b7000000070000009500000000000000"))
    obj = load_path(path)
    assert list(obj.programs) == ["two"]
    assert obj.programs["two"].insns[0].imm == 7
    assert obj.programs["two"].subprogs[0].name == "two"


@pytest.mark.parametrize("name", ["x.s", "x.S", "x.asm"])
def test_text_is_assembled(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("r0 = 7\nexit\n")
    (program,) = load_path(path).programs.values()
    assert program.insns[0].imm == 7


def test_wrong_text_names_the_place(tmp_path: Path) -> None:
    path = tmp_path / "x.s"
    path.write_text("r0 = 7\nr77 = 1\nexit\n")
    with pytest.raises(AsmError, match=r"x\.s:2:1: "):
        load_path(path)


def test_an_object_is_known_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "object.bin"
    path.write_bytes((EXAMPLES / "repaired.bpf.o").read_bytes())
    assert list(load_path(path).programs) == ["count_lengths"]


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.o", b"", "empty file"),
        ("x.bin", b"", "empty file"),
        ("x.s", b"", "empty file"),
        ("x.o", b"garbage", "not an ELF file: it starts with 67 61 72 62"),
        ("x.bin", bytes(9), "9 bytes are not a whole number of 8-byte insns"),
        ("x.s", b"r0 = \xff", "not text: bad UTF-8 at byte 5"),
        ("x.txt", b"garbage", r"not an ELF object, and the name does not tell what it is"),
        ("garbage", bytes(64), r"not an ELF object, and the name does not tell what it is"),
        ("x.o", b"\x7fELF", r"truncated ELF header: 4 of 64 bytes"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = write(tmp_path / name, data)
    with pytest.raises(LoadError, match=message) as caught:
        load_path(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_places_that_are_no_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.o")
    for path, message in (
        (tmp_path, "is a directory"),
        (tmp_path / "absent.o", "No such file or directory"),
        (tmp_path / "pipe.o", "not a regular file"),
        (tmp_path / "nul\0.o", "embedded null"),
    ):
        with pytest.raises(LoadError, match=message) as caught:
            load_path(path)
        assert "\n" not in str(caught.value)


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.o"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_SIZE + 1)
    with pytest.raises(LoadError, match=f"{MAX_FILE_SIZE + 1} bytes, more than {MAX_FILE_SIZE}"):
        load_path(path)


def test_names_of_data_maps_are_libbpfs(tmp_path: Path) -> None:
    data = (EXAMPLES / "arena_kv.bpf.o").read_bytes()
    for name, expected in (
        ("a.o", "a.bss"),
        ("very_long_name.bpf.o", "very_lon.bss"),
        ("odd-name.o", "odd_name.bss"),
    ):
        obj = load_path(write(tmp_path / name, data))
        assert expected in [m.name for m in obj.maps]


MAPS_IN_MAPS = """
struct inner { __uint(type, 2); __type(key, u32); __type(value, u64); __uint(max_entries, 3); };
struct inner first SEC(".maps"), second SEC(".maps");
struct {
    __uint(type, 12); __type(key, u32); __uint(max_entries, 4); __array(values, struct inner);
} outer SEC(".maps") = { .values = { [1] = &second, [3] = &first } };
int callee(struct xdp_md *ctx);
struct {
    __uint(type, 3); __uint(key_size, 4); __uint(max_entries, 2); __array(values, int (void *));
} programs SEC(".maps") = { .values = { [1] = (void *)&callee } };
SEC("xdp") int callee(struct xdp_md *ctx) { return 1; }
SEC("xdp") int uses(struct xdp_md *ctx) { u32 k = 0; return bpf_map_lookup_elem(&outer, &k) != 0; }
"""
_ARRAY = "#define __array(name, val) typeof(val) *name[]\n" + LICENSE


def test_maps_of_maps_and_of_programs(tmp_path: Path) -> None:
    obj = load(tmp_path, _ARRAY + MAPS_IN_MAPS)
    maps = {m.name: m for m in obj.maps}
    inner = maps["outer"].inner
    assert inner is not None
    assert (inner.name, inner.value_size, inner.max_entries) == ("outer.inner", 8, 3)
    assert (maps["outer"].value_size, maps["outer"].slots) == (4, ((1, "second"), (3, "first")))
    assert (maps["programs"].inner, maps["programs"].slots) == (None, ((1, "callee"),))
    assert (maps["first"].inner, maps["first"].slots) == (None, ())


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("int *values", "field 'values': its type is PTR, expected ARRAY"),
        ("int values[1]", "field 'values': its elements are INT, expected PTR"),
        ("int *values[1]", "its type is INT, expected STRUCT"),
        ("struct { __array(values, struct inner); } *values[1]", "multi-level inner maps"),
    ],
)
def test_what_no_elements_can_be(tmp_path: Path, values: str, complaint: str) -> None:
    source = MAPS_IN_MAPS.replace("__array(values, struct inner)", values)
    source = source.replace(" = { .values = { [1] = &second, [3] = &first } }", "")
    with pytest.raises(LoadError, match=re.escape(complaint)):
        load(tmp_path, _ARRAY + source)
