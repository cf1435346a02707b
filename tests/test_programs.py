"""Whole programs in C as arena authors write them (tests/programs), verified and run.

The objects are committed, so no compiler is needed; where one is at hand the sources are compiled
anew, for either CPU version, and must behave the same.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import bpfvm
from bpfvm.compile import compile_c, find_compiler
from bpfvm.disasm import disassemble
from bpfvm.errors import BpfError
from bpfvm.loader import load_elf
from bpfvm.vm import ENGINES, HELPER_IDS, Object

HERE = Path(__file__).resolve().parent / "programs"
SOURCES = sorted(HERE.glob("*.bpf.c"))

#: Programs that must not load, with the kernel's last word.
REJECTED = {
    "mixed_add": "same insn cannot be used with and without arena pointer",
    "mixed_atomic": "same insn cannot be used with different pointers",
    "unchecked": "R1 min value is outside of the allowed memory range",
}

IP = struct.pack(">BBHHHBBHII", 0x45, 0, 60, 1, 0, 64, 6, 0, 0x0A000001, 0x0A000002)
TCP = struct.pack(">HHIIBBHHH", 1234, 80, 1, 0, 0xA0, 2, 1000, 0, 0)
OPTIONS = bytes([1, 2, 4, 5, 0xB4, 3, 3, 7, 0, 0, *bytes(10)])
PACKET = bytes(range(12)) + b"\x08\x00" + IP + TCP + OPTIONS


def stem(path: Path) -> str:
    return path.name.split(".")[0]


def committed(source: Path) -> Path:
    return source.with_suffix(".o")


def compiled(source: Path, cpu: str) -> Object:
    try:
        compiler = find_compiler()
    except BpfError as err:
        pytest.skip(str(err))
    return Object(load_elf(compile_c(source, compiler=(*compiler, f"-mcpu={cpu}")), source.name))


def number(obj: Object, name: str) -> int:
    return int.from_bytes(obj.globals[name], "little")


def check_programs(obj: Object, engine: str) -> None:
    """Every program is rejected as it must be, or finds nothing wrong with what it did."""
    for name, prog in obj.programs.items():
        verdict = prog.verify()
        if name in REJECTED:
            assert (verdict.ok, verdict.last) == (False, REJECTED[name])
        elif prog.program.prog_type not in ("xdp", "sched_cls"):
            assert verdict.ok, f"{name}: {verdict.last}"
            assert prog.run(engine=engine).r0 == 0, name


@pytest.mark.parametrize("source", SOURCES, ids=stem)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_committed_object(engine: str, source: Path) -> None:
    check_programs(bpfvm.open(committed(source)), engine)


@pytest.mark.parametrize("cpu", ["v3", "v4"])
@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_compiled_anew(source: Path, cpu: str) -> None:
    obj = compiled(source, cpu)
    assert list(obj.programs) == list(bpfvm.open(committed(source)).programs)
    check_programs(obj, "jit")


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_as_text_it_is_the_same(source: Path) -> None:
    obj = bpfvm.open(committed(source))
    again = bpfvm.assemble(disassemble(obj.file, HELPER_IDS))
    assert list(again.programs) == list(obj.programs)
    for name, prog in obj.programs.items():
        assert again.programs[name].program.insns == prog.program.insns, name


@pytest.mark.parametrize("source", SOURCES, ids=stem)
def test_the_object_holds_no_path(source: Path) -> None:
    assert not re.search(rb"/(?:home|root|tmp|usr|work)/", committed(source).read_bytes())


def flow_records(obj: Object) -> Iterator[tuple[int, ...]]:
    at = number(obj, "records")
    while at:
        at, *flow = struct.unpack("<QIIHHB7x", obj.arena.view(at, 28))
        yield tuple(flow)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_flow_is_counted_in_a_map_and_kept_in_the_arena(engine: str) -> None:
    obj = bpfvm.open(HERE / "packets.bpf.o")
    count = obj.programs["count_flow"]
    for ttl in (63, 63):
        result = count.run(engine=engine, data=PACKET)
        assert (result.r0, result.data[22]) == (3, ttl)
    (value,) = obj.maps["flows"].values()
    assert struct.unpack("<QQII", value) == (2, 2 * len(PACKET), 1460, 2)
    (record,) = flow_records(obj)
    assert record[1:3] == (struct.unpack("<I", PACKET[30:34])[0], 1234 << 8 & 0xFF00 | 1234 >> 8)
    assert count.run(engine=engine, data=PACKET[:54]).r0 == 1, "options that are not there"
    assert count.run(engine=engine, data=bytes(64)).r0 == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_contexts_come_back(engine: str) -> None:
    obj = bpfvm.open(HERE / "packets.bpf.o")
    result = obj.programs["sum_bytes"].run(engine=engine, data=PACKET)
    assert result.r0 == sum(PACKET)
    assert struct.unpack_from("<I", result.ctx, 8) == (len(PACKET) + 7,)
    assert struct.unpack_from("<I", result.ctx, 64) == (0x1234,)
    request = struct.pack("<QIHBxi4x", 50, 6, 7, 8, 0)
    answer = obj.programs["answer"].run(engine=engine, ctx=request).ctx
    assert struct.unpack_from("<i", answer, 16) == (50 + 12 + 7 - 8,)


@pytest.mark.parametrize("kernel", ["6.18", "7.3"])
def test_only_the_newer_kernel_allocates_without_sleeping(kernel: str) -> None:
    verdict = bpfvm.open(HERE / "edge.bpf.o").programs["nonsleepable"].verify(kernel=kernel)
    assert verdict.ok == (kernel == "7.3")
    if not verdict.ok:
        said = "program must be sleepable to call sleepable kfunc bpf_arena_alloc_pages"
        assert verdict.last == said


@pytest.mark.parametrize("engine", ENGINES)
def test_absent_neighbours_are_reported(engine: str) -> None:
    result = bpfvm.open(HERE / "edge.bpf.o").programs["neighbours"].run(engine=engine)
    base = (1 << 44) + (1 << 32) - 8192
    assert [(f.write, f.addr) for f in result.faults[:2]] == [
        (True, base + 8192),
        (True, base - 4096),
    ]
    assert len(result.faults) == 6
    assert f"ERROR: Arena WRITE access at unmapped address {base + 8192:#x}\n".encode() in (
        result.stderr
    )
