"""Hooks and structs of a kernel, by its BTF: a small one, made here."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import pytest
from elf_kit import BtfBuilder

import bpfvm
import verifier
from bpfvm import vm
from bpfvm.btf import BtfKind
from bpfvm.errors import LoadError
from bpfvm.kernel_btf import KernelTypes
from bpfvm.program import MapFacts
from bpfvm.rules import KernelRules
from bpfvm.xlated import Verdict

_LSM, _LSM_CGROUP, _RAW_TP, _FEXIT = 27, 43, 23, 25


def _members(builder: BtfBuilder, *members: tuple[str, int, int]) -> bytes:
    """Return members of (name, type, byte)."""
    return b"".join(struct.pack("<III", builder.string(n), t, at * 8) for n, t, at in members)


def _kernel() -> bytes:
    b = BtfBuilder()

    def composite(name: str, size: int, *members: tuple[str, int, int]) -> int:
        extra = _members(b, *members)
        return b.add(BtfKind.STRUCT, name, size, len(members), extra)

    def pointer(target: int) -> int:
        return b.add(BtfKind.PTR, ref=target)

    def func(name: str, ret: int, *params: int) -> None:
        extra = b"".join(struct.pack("<II", b.string("x"), param) for param in params)
        proto = b.add(BtfKind.FUNC_PROTO, ref=ret, vlen=len(params), extra=extra)
        b.add(BtfKind.FUNC, name, proto)

    u32 = b.add(BtfKind.INT, "unsigned int", 4, extra=struct.pack("<I", 32))
    u64 = b.add(BtfKind.INT, "unsigned long long", 8, extra=struct.pack("<I", 64))
    inode = composite("inode", 16, ("i_ino", u64, 0), ("i_mode", u32, 8))
    file = composite(
        "file", 32, ("f_inode", pointer(inode), 0), ("f_flags", u32, 8), ("f_path", pointer(0), 16)
    )
    composite("file__safe_trusted", 8, ("f_inode", pointer(inode), 0))
    b_map = composite(
        "bpf_map", 24, ("ops", pointer(0), 0), ("key_size", u32, 8), ("value_size", u32, 12),
        ("max_entries", u32, 16),
    )  # fmt: skip
    composite("bpf_array", 32, ("map", b_map, 0), ("elem_size", u32, 24))
    task = composite("task_struct", 32, ("pid", u32, 4), ("file", pointer(file), 8))
    for name, ret in (
        *(("file_open", u32), ("inode_xattr_skipcap", u32), ("task_free", 0)),
        *(("ismaclabel", u32), ("file_mprotect", u32), ("file_alloc_security", u32)),
    ):
        func(f"bpf_lsm_{name}", ret, pointer(file), u32)
    func("do_nothing", u64, pointer(task), u32, pointer(u64))
    extra = b"".join(struct.pack("<II", 0, param) for param in (pointer(0), pointer(task)))
    proto = b.add(BtfKind.FUNC_PROTO, vlen=2, extra=extra)
    for name in ("btf_trace_task_newtask", "btf_trace_sched_process_wait"):
        b.add(BtfKind.TYPEDEF, name, pointer(proto))
    return bytes(b.bytes())


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> KernelTypes:
    path = tmp_path_factory.mktemp("kernel") / "vmlinux"
    path.write_bytes(_kernel())
    return KernelTypes(path)


def judge(
    types: KernelTypes | None,
    text: str,
    hook: str = "",
    *,
    prog_type: str = "lsm",
    attach: int = _LSM,
    maps: str = "",
    sleepable: bool = False,
    kernel: str = "7.3",
) -> Verdict:
    lines = text.replace("; ", "\n")
    source = f"{maps}\n.prog main type={prog_type} attach={attach}\n{lines}\n"
    program = bpfvm.assemble(source).file.programs["main"]
    return verifier.verify(
        replace(program, attach_to=hook, sleepable=sleepable),
        [MapFacts(defn) for defn in program.maps],
        vm.REGISTRY,
        map_types=vm.MAP_TYPES,
        rules=KernelRules.of(kernel),
        log_level=2,
        kernel_types=types,
    )


@pytest.mark.parametrize(
    ("hook", "attach", "r0", "range_"),
    [
        ("file_open", _LSM, 0, None),
        ("file_open", _LSM, -4095, None),
        ("file_open", _LSM, 1, "[-4095, 0]"),
        ("inode_xattr_skipcap", _LSM, 1, None),
        ("inode_xattr_skipcap", _LSM, -1, "[0, 1]"),
        ("task_free", _LSM, 42, None),
        ("file_open", _LSM_CGROUP, 1, None),
        ("file_open", _LSM_CGROUP, -1, "[0, 1]"),
        ("task_free", _LSM_CGROUP, 0, "[1, 1]"),
    ],
)
def test_what_an_lsm_program_returns(
    types: KernelTypes, hook: str, attach: int, r0: int, range_: str | None
) -> None:
    verdict = judge(types, f"r0 = {r0}; exit", hook, attach=attach)
    assert verdict.ok is (range_ is None), verdict.last
    assert range_ is None or verdict.last.endswith(f"should have been in {range_}")


def test_hooks_that_refuse(types: KernelTypes) -> None:
    assert "points to disabled hook bpf_lsm_ismaclabel" in judge(types, "exit", "ismaclabel").last
    assert judge(types, "r0 = 0; exit", "file_alloc_security", kernel="6.18").ok
    assert not judge(types, "r0 = 0; exit", "file_alloc_security").ok
    verdict = judge(types, "r0 = 0; exit", "file_mprotect", sleepable=True)
    assert verdict.last == "bpf_lsm_file_mprotect is not sleepable"
    assert judge(types, "r0 = 0; exit", "file_open", sleepable=True).ok
    verdict = judge(types, "r0 = 0; exit", "file_open", attach=_LSM_CGROUP, sleepable=True)
    assert verdict.last == "Program of this type cannot be sleepable"


def test_without_types_and_without_the_hook(types: KernelTypes) -> None:
    last = "not supported yet: the hooks of lsm programs, which need the kernel's BTF"
    assert judge(None, "r0 = 0; exit", "file_open").last == last
    last = "not supported yet: lsm programs at nowhere, which the BTF does not have"
    assert judge(types, "r0 = 0; exit", "nowhere").last == last


@pytest.mark.parametrize(
    ("load", "what"),
    [
        ("r2 = *(u64 *)(r1 + 0)", "R2=trusted_ptr_file()"),
        ("r2 = *(u64 *)(r1 + 8)", "R2=scalar()"),
        ("r2 = *(u64 *)(r1 + 16)", "R2=scalar(smin=smin32=-4095,smax=smax32=0)"),
        ("r2 = *(u64 *)(r1 + 0); r3 = *(u64 *)(r2 + 0)", "R3=trusted_ptr_inode()"),
        ("r2 = *(u64 *)(r1 + 0); r3 = *(u64 *)(r2 + 16)", "R3=rdonly_untrusted_mem(sz=0)"),
        ("r2 = *(u64 *)(r1 + 0); r3 = *(u32 *)(r2 + 8)", "R3=scalar("),
    ],
)
def test_arguments_and_members(types: KernelTypes, load: str, what: str) -> None:
    verdict = judge(types, f"{load}; r0 = 0; exit", "file_open")
    assert verdict.ok, verdict.last
    assert what in verdict.log


@pytest.mark.parametrize(
    ("load", "last"),
    [
        ("r2 = *(u64 *)(r1 + 24)", "invalid bpf_context access off=24 size=8"),
        ("r2 = *(u32 *)(r1 + 0)", "invalid bpf_context access off=0 size=4"),
        ("r2 = *(u32 *)(r1 + 4)", "invalid bpf_context access off=4 size=4"),
        ("*(u64 *)(r1 + 0) = 0", "invalid bpf_context access off=0 size=8"),
        (
            "r2 = *(u64 *)(r1 + 0); r3 = *(u64 *)(r2 + 28)",
            "access beyond struct file at off 28 size 8",
        ),
        (
            "r2 = *(u64 *)(r1 + 0); r3 = *(u32 *)(r2 + 12)",
            "struct file doesn't have field at offset 12",
        ),
        (
            "r2 = *(u64 *)(r1 + 0); r3 = *(u32 *)(r2 + 4)",
            "cannot access ptr member f_inode with moff 0 in struct file with off 4 size 4",
        ),
        (
            "r2 = *(u64 *)(r1 + 0); r3 = *(u64 *)(r2 + 8)",
            "access beyond the end of member f_flags (mend:12) in struct file with off 8 size 8",
        ),
        ("r2 = *(u64 *)(r1 + 0); *(u32 *)(r2 + 8) = 0", "only read is supported"),
    ],
)
def test_what_is_not_there(types: KernelTypes, load: str, last: str) -> None:
    assert judge(types, f"{load}; r0 = 0; exit", "file_open").last == last


def test_tracing_programs(types: KernelTypes) -> None:
    def arg(text: str, hook: str, attach: int) -> Verdict:
        return judge(types, f"{text}; r0 = 0; exit", hook, prog_type="tracing", attach=attach)

    # What tracepoints give may be relied on, what functions are called with not.
    text = "r2 = *(u64 *)(r1 + 0); r3 = *(u64 *)(r2 + 8); r4 = *(u64 *)(r3 + 0)"
    log = arg(text, "task_newtask", _RAW_TP).log
    assert "R2=trusted_ptr_task_struct()" in log
    assert "R3=ptr_file()" in log
    assert "R4=ptr_inode()" in log
    assert "R2=ptr_task_struct()" in arg(text, "do_nothing", _FEXIT).log
    # This one's argument may be missing.
    last = arg(text, "sched_process_wait", _RAW_TP).last
    assert last == "R2 invalid mem access 'trusted_ptr_or_null_'"
    # The function's result comes behind its arguments.
    assert arg("r2 = *(u64 *)(r1 + 24)", "do_nothing", _FEXIT).ok
    assert arg("r2 = *(u64 *)(r1 + 16)", "do_nothing", _FEXIT).ok
    verdict = arg("r2 = *(u64 *)(r1 + 8)", "task_newtask", _RAW_TP)
    assert "func 'task_newtask' doesn't have 2-th argument" in verdict.log


MAP = ".map array type=array key=4 value=6 entries=3"


@pytest.mark.parametrize(
    ("off", "size", "value"), [(8, 32, 4), (12, 32, 6), (16, 32, 3), (24, 32, 8), (16, 16, 3)]
)
def test_a_map_through_its_pointer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, off: int, size: int, value: int
) -> None:
    path = tmp_path / "vmlinux"
    path.write_bytes(_kernel())
    monkeypatch.setattr(vm, "_kernel_types", [KernelTypes(path)])
    text = f"{MAP}\n.prog main\nr1 = map(array)\nr0 = *(u{size} *)(r1 + {off})\nexit\n"
    prog = bpfvm.assemble(text).programs["main"]
    assert [prog.run(engine=engine).r0 for engine in vm.ENGINES] == [value, value]


@pytest.mark.parametrize(
    ("access", "last"),
    [
        ("*(u32 *)(r1 + 8) = 0", "only read from bpf_array is supported"),
        ("r2 = *(u64 *)(r1 + 32)", "access beyond struct bpf_array at off 32 size 8"),
        (
            "r2 = *(u32 *)(r1 + 1)",
            "cannot access ptr member ops with moff 0 in struct bpf_map with off 1 size 4",
        ),
    ],
)
def test_what_a_map_does_not_give(types: KernelTypes, access: str, last: str) -> None:
    text = f"r1 = map(array); {access}; r0 = 0; exit"
    verdict = judge(types, text, prog_type="socket_filter", attach=0, maps=MAP)
    assert verdict.last == last


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="no such file"):
        _ = KernelTypes(tmp_path / "vmlinux").btf
    (tmp_path / "damaged").write_bytes(_kernel()[:-40])
    with pytest.raises(LoadError):
        _ = KernelTypes(tmp_path / "damaged").btf
    assert KernelTypes(None).btf is None
