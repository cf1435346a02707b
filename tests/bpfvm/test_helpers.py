"""Helpers and stream kfuncs: results, errnos, and what ends a sandbox run."""

from __future__ import annotations

import random
import struct
from errno import EINVAL, ENOENT, ENOMEM, ENOSPC

import pytest
from interp_kit import EXIT, U64, Bench, flat, lddw, op

from bpfvm import helpers, kfuncs
from bpfvm.errors import RunFault
from bpfvm.maps.array import ArrayMap
from bpfvm.maps.base import MapFlags, MapType
from bpfvm.maps.hash import HashMap
from bpfvm.memory import Region, RegionKind
from bpfvm.program import MapDef
from bpfvm.proto import ArgType, KfuncFlags, Registry, RetType
from bpfvm.runtime import RunContext, Stream

REGISTRY = Registry([helpers, kfuncs])
HASH = MapDef("counts", MapType.HASH, 4, 8, 2)
ARRAY = MapDef("table", MapType.ARRAY, 4, 8, 3)
READ_ONLY = MapDef("ro", MapType.ARRAY, 4, 8, 1, flags=int(MapFlags.RDONLY_PROG))


@pytest.fixture
def bench() -> Bench:
    return Bench(
        REGISTRY,
        maps=(
            lambda space: HashMap(HASH, space),
            lambda space: ArrayMap(ARRAY, space),
            lambda space: ArrayMap(READ_ONLY, space),
        ),
    )


@pytest.fixture
def run(bench: Bench) -> RunContext:
    return bench.context(bench.xlated((EXIT,)))


def memory(bench: Bench, data: bytes) -> int:
    region: Region = bench.space.add(len(data), RegionKind.MEM)
    region.view[:] = data
    return region.base


def test_prototypes_are_the_kernels() -> None:
    table = REGISTRY.helpers
    assert sorted(table) == [1, 2, 3, 5, 6, 7, 8]
    assert table[1].ret is RetType.MAP_VALUE_OR_NULL
    assert table[2].args == (
        ArgType.CONST_MAP_PTR,
        ArgType.MAP_KEY,
        ArgType.MAP_VALUE,
        ArgType.ANYTHING,
    )
    assert table[6].args == (ArgType.MEM_RDONLY, ArgType.CONST_SIZE)
    assert [n for n, proto in table.items() if proto.gpl_only] == [6]
    assert [n for n, proto in table.items() if proto.pkt_access] == [1, 2, 3]
    assert not any(proto.might_sleep for proto in table.values())
    for proto in REGISTRY.kfuncs.values():
        assert proto.flags == KfuncFlags.SPINLOCK_SAFE | KfuncFlags.PERFMON
        assert not proto.is_polymorphic


def test_map_helpers_on_a_hash(bench: Bench, run: RunContext) -> None:
    handle = bench.machine.map_handle(0)
    keys = [memory(bench, struct.pack("<I", n)) for n in range(3)]
    value = memory(bench, struct.pack("<Q", 77))
    assert helpers.bpf_map_lookup_elem(run, handle, keys[0]) == 0
    assert helpers.bpf_map_update_elem(run, handle, keys[0], value, 2) == -ENOENT
    assert helpers.bpf_map_update_elem(run, handle, keys[0], value, 0) == 0
    assert helpers.bpf_map_update_elem(run, handle, keys[1], value, 0) == 0
    assert helpers.bpf_map_update_elem(run, handle, keys[2], value, 0) < 0
    addr = helpers.bpf_map_lookup_elem(run, handle, keys[0])
    assert bench.space.read(addr, 8) == struct.pack("<Q", 77)
    assert helpers.bpf_map_delete_elem(run, handle, keys[0]) == 0
    assert helpers.bpf_map_delete_elem(run, handle, keys[0]) == -ENOENT


def test_a_program_counts_in_an_array(bench: Bench) -> None:
    insns = flat(
        op("stw", 10, off=-4, imm=1),
        lddw(1, 1, "lddw_map_idx"),
        op("mov_reg", 2, 10),
        op("add_imm", 2, imm=-4),
        op("call_helper", imm=1),
        op("jeq_imm", 0, off=3, imm=0),
        op("mov_imm", 1, imm=1),
        op("lock_fetch_add", 0, 1),
        op("mov_reg", 0, 1),
        EXIT,
    )
    xlated = bench.xlated(insns, maps=(HASH, ARRAY, READ_ONLY))
    assert [bench.run_xlated(xlated) for _ in range(3)] == [0, 1, 2]
    assert bench.machine.maps[1].read_int(1) == 3


def test_direct_map_values(bench: Bench) -> None:
    low, high = op("lddw_map_idx_value", 1, imm=1), op("lddw", imm=4)
    second = high._replace(opcode=0)
    assert bench.run(low, second, op("stw", 1, imm=9), op("mov_imm", 0)) == 0
    assert bench.machine.maps[1][0] == struct.pack("<II", 0, 9)


def test_what_is_no_map_ends_the_run(bench: Bench) -> None:
    call = (op("mov_imm", 2), op("call_helper", imm=1))
    with pytest.raises(RunFault) as error:
        bench.run(op("mov_imm", 1, imm=5), *call)
    assert (error.value.pc, error.value.reason) == (2, "0x5 is not a map")
    with pytest.raises(RunFault, match="helper may not read 4 bytes at 0x0"):
        bench.run(lddw(1, 0, "lddw_map_idx"), *call)


def test_read_only_maps_are_not_written(bench: Bench, run: RunContext) -> None:
    handle = bench.machine.map_handle(2)
    key = memory(bench, bytes(4))
    value = memory(bench, bytes(8))
    assert helpers.bpf_map_lookup_elem(run, handle, key) != 0
    with pytest.raises(RunFault, match="write into map forbidden"):
        helpers.bpf_map_update_elem(run, handle, key, value, 0)
    with pytest.raises(RunFault, match="write into map forbidden"):
        helpers.bpf_map_delete_elem(run, handle, key)


def test_a_map_handle_is_no_memory(bench: Bench) -> None:
    with pytest.raises(RunFault, match="invalid read"):
        bench.run(lddw(1, 0, "lddw_map_idx"), op("ldxb", 0, 1))


def test_small_helpers(bench: Bench) -> None:
    assert bench.run(op("call_helper", imm=8), cpu=3) == 3
    assert bench.run(op("call_helper", imm=5), clock=lambda: 12345) == 12345
    first = bench.run(op("call_helper", imm=5))
    assert 0 < first <= bench.run(op("call_helper", imm=5))
    expected = random.Random(7).getrandbits(32)
    assert bench.run(op("call_helper", imm=7), rng=random.Random(7)) == expected


def test_trace_printk(bench: Bench, run: RunContext) -> None:
    fmt = memory(bench, b"n=%d m=%lx\0junk")
    assert helpers.bpf_trace_printk(run, fmt, 11, U64 - 5, 255, 0) == 9
    done = memory(bench, b"line\n\0")
    assert helpers.bpf_trace_printk(run, done, 6, 0, 0, 0) == 5
    assert bytes(run.trace) == b"n=-5 m=ff\nline\n"
    assert helpers.bpf_trace_printk(run, fmt, 5, 0, 0, 0) == -EINVAL  # no NUL in 5 bytes
    four = memory(bench, b"%d%d%d%d\0")
    assert helpers.bpf_trace_printk(run, four, 9, 1, 2, 3) == -EINVAL
    long = memory(bench, b"%2000d\0")
    assert helpers.bpf_trace_printk(run, long, 7, 1, 2, 3) == 2000
    assert bytes(run.trace[15:]) == b" " * 1023 + b"\n"


def test_trace_printk_gets_r3_to_r5(bench: Bench) -> None:
    fmt = memory(bench, b"%d %d %d\0")
    sets = [op("mov_imm", n, imm=n) for n in (3, 4, 5)]
    assert bench.run(lddw(1, fmt), op("mov_imm", 2, imm=9), sets, op("call_helper", imm=6)) == 5
    assert bench.last is not None
    assert bytes(bench.last.trace) == b"3 4 5\n"


# -- streams -----------------------------------------------------------------------------------


def test_stream_vprintk(bench: Bench, run: RunContext) -> None:
    fmt = memory(bench, b"%d of %lu\0")
    args = memory(bench, struct.pack("<2Q", 1, 2))
    assert kfuncs.bpf_stream_vprintk(run, 1, fmt, args, 16) == 0
    assert kfuncs.bpf_stream_vprintk(run, 2, fmt, args, 16) == 0
    assert (bytes(run.stdout.data), bytes(run.stderr.data)) == (b"1 of 2", b"1 of 2")
    assert kfuncs.bpf_stream_vprintk(run, 1, memory(bench, b"!\0"), 0, 0) == 0
    assert bytes(run.stdout.data) == b"1 of 2!"


def test_stream_vprintk_errors(bench: Bench, run: RunContext) -> None:
    fmt = memory(bench, b"%d\0")
    args = memory(bench, bytes(104))
    for stream_id in (0, 3, U64 - 1):
        assert kfuncs.bpf_stream_vprintk(run, stream_id, fmt, args, 8) == -ENOENT
    for size in (7, 12, 104):
        assert kfuncs.bpf_stream_vprintk(run, 1, fmt, args, size) == -EINVAL
    assert kfuncs.bpf_stream_vprintk(run, 1, fmt, 0, 8) == -EINVAL
    assert kfuncs.bpf_stream_vprintk(run, 1, fmt, 0, 0) == -EINVAL  # asks for an argument
    assert kfuncs.bpf_stream_vprintk(run, 1, 0, args, 8) == -EINVAL
    for width, result in ((1023, 0), (1024, 0), (1025, -ENOMEM)):
        long = memory(bench, b"%" + str(width).encode() + b"d\0")
        assert kfuncs.bpf_stream_vprintk(run, 1, long, args, 8) == result
    assert run.stdout.data == b" " * 1022 + b"0" + b" " * 1023 + b"\0"
    with pytest.raises(RunFault, match="may not read 8 bytes at 0x10"):
        kfuncs.bpf_stream_vprintk(run, 1, fmt, 16, 8)


def test_a_full_stream_takes_nothing(bench: Bench, run: RunContext) -> None:
    text = memory(bench, b"x" * 54 + b"\0")
    while kfuncs.bpf_stream_vprintk(run, 1, text, 0, 0) == 0:
        pass
    assert len(run.stdout.data) == 99954
    assert kfuncs.bpf_stream_vprintk(run, 1, text, 0, 0) == -ENOSPC
    assert len(run.stdout.data) < Stream.CAPACITY


def test_stream_print_stack(bench: Bench) -> None:
    insns = flat(
        op("mov_imm", 1, imm=2),
        op("call_local", imm=1),
        EXIT,
        op("call_kfunc"),
        EXIT,
    )
    xlated = bench.xlated(insns, kfuncs=("bpf_stream_print_stack",))
    assert bench.run_xlated(xlated) == 0
    assert bench.last is not None
    text = bench.last.stderr.data.decode()
    assert text.startswith("CPU: 0 UID: ")
    assert text.endswith("Call trace:\nsubprog_3+0x0/0x10\nmain+0x8/0x18\n\n")


def test_a_streams_error_is_an_int(bench: Bench) -> None:
    insns = flat(op("mov_imm", 1, imm=9), op("call_kfunc"), EXIT)
    xlated = bench.xlated(insns, kfuncs=("bpf_stream_print_stack",))
    assert bench.run_xlated(xlated) == 2**32 - ENOENT
