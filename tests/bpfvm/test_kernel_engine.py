"""The running kernel as an engine. What needs bpf(2) is skipped where that is closed."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

import bpfvm
from bpfvm import diff, kernel, sys_bpf
from bpfvm.btf import Btf, BtfKind, func_ids
from bpfvm.btfgen import prog_btf
from bpfvm.errors import BpfError
from bpfvm.json_api import answer
from bpfvm.kernel import KernelError, KernelObject, closing_line, request_of
from bpfvm.program import LineInfo, Linkage, MapDef, ObjectFile, Param, Program, Subprog

RETURN_7 = "b7000000070000009500000000000000"
COUNT = """
.map h type=hash key=4 value=8 entries=4
*(u32 *)(r10 - 4) = 7
*(u64 *)(r10 - 16) = 0x77
r1 = map(h)
r2 = r10
r2 += -4
r3 = r10
r3 += -16
r4 = 0
call bpf_map_update_elem
r0 = 5
exit
"""
ARENA = """
.map a type=arena entries=4 extra=0x100000000000
.prog main type=syscall

r1 = map(a)
r2 = 0
r3 = 1
r4 = -1
r5 = 0
call bpf_arena_alloc_pages
r0 = addr_space_cast(r0, 0, 1)
*(u64 *)(r0 + 8) = 0x55
r0 = 0
exit
"""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The running kernel, or a skip; returns where the last program is written."""
    why = kernel.refusal()
    if why is not None:
        pytest.skip(why)
    last = tmp_path / "last.json"
    monkeypatch.setenv("BPFVM_KERNEL_LAST", str(last))
    return last


def test_a_verdict(running: Path) -> None:
    good, bad = bpfvm.assemble(COUNT).file, bpfvm.assemble("r0 = r5\nexit").file
    (program,) = good.programs.values()
    with KernelObject(good) as obj:
        verdict = obj.load(program).verdict
    assert (verdict.ok, verdict.errno, verdict.last) == (True, 0, "")
    assert verdict.stats.processed == len(program.insns) - 1  # the ldimm64 counts once
    (program,) = bad.programs.values()
    with KernelObject(bad) as obj:
        prog = obj.load(program)
        assert (prog.verdict.errno, prog.verdict.last) == (13, "R5 !read_ok")
        with pytest.raises(KernelError, match="was rejected"):
            prog.run()


def test_a_run_and_what_it_leaves(running: Path) -> None:
    file = bpfvm.assemble(COUNT).file
    (program,) = file.programs.values()
    with KernelObject(file) as obj:
        ran = obj.load(program).run(data=bytes(range(64)))
        assert (ran.retval, ran.data) == (5, bytes(14) + bytes(range(14, 64)))
        assert obj.maps["h"].items() == [(struct.pack("<I", 7), struct.pack("<Q", 0x77))]


def test_the_context_comes_back(running: Path) -> None:
    file = bpfvm.assemble(".prog main type=syscall\n*(u64 *)(r1 + 8) = 9\nr0 = 0\nexit").file
    (program,) = file.programs.values()
    with KernelObject(file) as obj:
        prog = obj.load(program)
        assert prog.run(ctx=bytes(16)).ctx == struct.pack("<QQ", 0, 9)
        with pytest.raises(KernelError) as error:
            prog.run(ctx=bytes(8))
        assert error.value.errno == 22


def test_arena_pages_as_programs_see_them(running: Path) -> None:
    file = bpfvm.assemble(ARENA).file
    (program,) = file.programs.values()
    with KernelObject(file) as obj:
        arena = obj.maps["a"]
        assert arena.arena_page(0) is None
        obj.load(program).run()
        page = arena.arena_page(0)
        assert page == bytes(8) + struct.pack("<Q", 0x55) + bytes(4080)
        assert arena.arena_page(0x1000) is None
        assert arena.arena_bytes(8, 8) == struct.pack("<Q", 0x55)
        with pytest.raises(BpfError, match="not mapped"):
            arena.arena_bytes(0x4000, 1)


def test_globals_in_read_only_maps_and_arenas(running: Path) -> None:
    rodata = MapDef("ro", 2, 4, 8, 1, 1 << 7, image=b"\1\2\3", frozen=True)
    arena = MapDef("a", 33, 0, 0, 2, 1 << 10, image=b"\7" * 8)
    with KernelObject(ObjectFile("x", {}, (rodata, arena))) as obj:
        assert obj.maps["ro"][bytes(4)] == b"\1\2\3\0\0\0\0\0"
        with pytest.raises(KernelError):
            obj.maps["ro"][bytes(4)] = bytes(8)
        assert obj.maps["a"].arena_bytes(2 * 4096 - 8, 8) == b"\7" * 8


def test_a_global_subprog_by_generated_btf(running: Path) -> None:
    (prog,) = bpfvm.assemble("call +2\nr0 += 1\nexit\nr0 = r1\nexit").programs.values()
    u64 = Param("a", "unsigned long long")
    ctx = Param("ctx", "void *", is_pointer=True)
    subprogs = (
        Subprog(0, 3, "main", Linkage.GLOBAL, (ctx,), u64),
        Subprog(3, 5, "add", Linkage.GLOBAL, (u64,), u64),
    )
    named = replace(prog.program, subprogs=subprogs)
    with KernelObject(ObjectFile("x", {"main": named})) as obj:
        verdict = obj.load(named, log_level=1).verdict
    # r1 is a context where a number is wanted: the global subprog's prototype was read.
    assert not verdict.ok
    assert "Caller passes invalid args into func#1" in verdict.log


def test_each_program_is_on_disk_before_it_is_loaded(running: Path) -> None:
    file = bpfvm.assemble(COUNT).file
    (program,) = file.programs.values()
    with KernelObject(file) as obj:
        obj.load(program)
    written = json.loads(running.read_text())
    assert written == {"engine": "kernel", **request_of(program)}
    assert answer({**written, "run": {}})["ok"]


def test_json_by_the_kernel(running: Path) -> None:
    request = {
        "name": "n",
        "engine": "kernel",
        "insns": RETURN_7,
        "maps": {
            "m": {
                "type": "hash",
                "max_entries": 2,
                "init": [{"key": "02000000", "value": 16 * "1"}],
            }
        },
        "run": {"data_in": "00" * 14, "times": 3},
        "dump": {"m": True},
        "info": {"xlated": True},
    }
    by_kernel, ours = answer(request), answer({**request, "engine": "interp", "kernel": "6.18"})
    assert by_kernel["ok"], by_kernel
    assert by_kernel["stage"] == "run"
    for key in ("name", "stage", "maps", "dump", "info"):
        assert by_kernel[key] == ours[key]
    only_ours = {"reason"}, {"r0", "stdout", "stderr", "trace", "faults"}
    for key, extra in zip(("load", "run"), only_ours, strict=True):
        theirs, mine = by_kernel[key], ours[key]
        assert isinstance(theirs, dict)
        assert isinstance(mine, dict)
        assert set(mine) - extra == set(theirs)
    broken = answer({"engine": "kernel", "maps": {"m": {"type": "hash", "key_size": 0}}})
    assert (broken["stage"], broken["ok"]) == ("maps", False)


def test_diff_with_the_kernel(
    running: Path, examples_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engines = "interp,jit,kernel"
    assert diff.diff(str(examples_dir / "arena_list.bpf.o"), None, 0, engines=engines) == 0
    assert capsys.readouterr().out == "arena_list_add: same\narena_list_del: same\n"


def test_a_difference_from_the_kernel_is_told(running: Path) -> None:
    # Nothing else is known to differ: the number of processors' own clock must.
    file = bpfvm.assemble("call bpf_ktime_get_ns\nr0 |= 1\nexit").file
    (compared,) = diff.compare(file, diff.Input(), ("interp", "kernel"))
    assert compared.difference is not None
    assert str(compared.difference).startswith("r0: interp ")
    assert "kernel" in str(compared.difference)


def test_a_tainted_kernel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tainted = tmp_path / "tainted"
    tainted.write_text("512\n")
    monkeypatch.setattr(sys_bpf, "_TAINTED", tainted)
    why = kernel.refusal()
    assert why is not None
    assert "\n" not in why
    assert "tainted (0x200" in why or "not known" in why
    with pytest.raises(KernelError, match="tainted"):
        sys_bpf.prog_load(bytes.fromhex(RETURN_7), prog_type=1)
    told = answer({"engine": "kernel", "insns": RETURN_7})
    assert (told["stage"], told["ok"]) == ("request", False)
    with pytest.raises(BpfError, match="engines: kernel: "):
        diff.diff(None, 1, 0, engines="interp,kernel")


@pytest.mark.parametrize(
    ("extra", "words"),
    [({"verify": False}, "verified programs only"), ({"prog_type": "mem"}, "engine: kernel")],
)
def test_what_the_kernel_does_not_do(extra: dict[str, object], words: str) -> None:
    told = answer({"engine": "kernel", "insns": RETURN_7, **extra})
    assert (told["stage"], told["ok"]) == ("request", False)
    assert words in str(told["error"])


def test_unknown_engines_of_diff() -> None:
    for engines in ("interp", "interp,interp", "interp,cloud"):
        with pytest.raises(BpfError, match="engines"):
            diff.diff(None, 1, 0, engines=engines)


def test_generated_btf_is_btf() -> None:
    ctx = Param(
        "ctx",
        "struct xdp_md *",
        8,
        True,
        pointee_kind="STRUCT",
        pointee_name="xdp_md",
        pointee_size=24,
    )
    arena = Param("a", "void *", 8, True, frozenset({"arg:arena"}))
    number = Param("n", "int", 4)
    subprogs = (
        Subprog(0, 2, "main", Linkage.GLOBAL, (ctx,), number),
        Subprog(2, 4, "f", params=(arena,)),
    )
    line = LineInfo(2, "a.c", 3, 5, "int x;")
    program = Program("main", (), "xdp", subprogs, line_info=(line, replace(line, insn_off=3)))
    blob, info, lines = prog_btf(program)
    btf = Btf(memoryview(blob), "test")
    ids = func_ids(blob, "test")
    assert struct.unpack("<4I", info) == (0, ids["main"], 2, ids["f"])
    params, ret = btf.signature(btf.func(ids["main"]))
    assert (params[0].pointee_name, params[0].pointee_size) == ("xdp_md", 24)
    assert ret is not None
    assert ret.ctype == "int"
    params, ret = btf.signature(btf.func(ids["f"]))
    assert (params[0].tags, ret) == (frozenset({"arg:arena"}), None)
    assert btf.func_linkage(btf.func(ids["f"])) is Linkage.STATIC
    assert [t.kind for t in btf.types].count(BtfKind.PTR) == 2
    first, second = struct.iter_unpack("<4I", lines)
    assert (first[0], btf.line_text(first[1]), btf.line_text(first[2])) == (2, "a.c", "int x;")
    assert (first[3], second) == (3 << 10 | 5, (3, *first[1:]))


def test_the_closing_line() -> None:
    stats = "processed 3 insns (limit 1000000) max_states_per_insn 0\n"
    assert closing_line(f"0: (95) exit\nR0 !read_ok\n{stats}") == "R0 !read_ok"
    assert closing_line(f"no newline{stats}") == "no newline"
    assert closing_line(f"R0 !read_ok\nverification time 5 usec\nstack depth 0\n{stats}") == (
        "R0 !read_ok"
    )
    assert closing_line("") == ""


@pytest.mark.parametrize(
    ("release", "rules"),
    [("6.18.44-x", "6.18"), ("6.1.0", "6.18"), ("7.0.1", "6.18"), ("7.3.0", "7.3"), ("8", "7.3")],
)
def test_the_rules_of_a_release(monkeypatch: pytest.MonkeyPatch, release: str, rules: str) -> None:
    monkeypatch.setattr("platform.release", lambda: release + ".0")
    assert kernel.running_rules() == rules
