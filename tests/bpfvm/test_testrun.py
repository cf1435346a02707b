"""Input and output of test-runs. The kernel's answers here were seen on Linux 6.18."""

from __future__ import annotations

import struct

import pytest

import bpfvm
from bpfvm.context import PROG_TYPES
from bpfvm.errors import BpfError
from bpfvm.memory import AddressSpace, RegionKind
from bpfvm.program import Program
from bpfvm.proto import Registry
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES, Machine
from bpfvm.testrun import DEFAULT_PACKET, PreparedRun, prepare
from bpfvm.xlated import Xlated

MACHINE = Machine(AddressSpace(), [], Registry([]))
ETH = bytes.fromhex("ffffffffffff0102030405060800") + bytes(range(1, 51))


def start(
    prog_type: str,
    *,
    ctx: bytes | None = None,
    data: bytes | None = None,
    verified: bool = True,
    max_ctx_offset: int = 0,
) -> PreparedRun:
    program = Program("p", (), prog_type, sleepable=prog_type == "syscall")
    xlated = Xlated(program, (), (), verified, max_ctx_offset=max_ctx_offset)
    return prepare(MACHINE, xlated, ctx=ctx, data=data)


def load(run: PreparedRun, off: int, size: int = 4) -> int:
    """Read the context as the program does, through the table of its type."""
    prog_type = PROG_TYPES[run.run.program.prog_type]
    access = prog_type.ctx_access(off, size, write=False)
    assert access is not None
    data = MACHINE.space.read(run.r1 + access.off, access.size)
    assert data is not None
    return int.from_bytes(data, "little")


def store(run: PreparedRun, off: int, value: int, size: int = 4) -> None:
    access = PROG_TYPES[run.run.program.prog_type].ctx_access(off, size, write=True)
    assert access is not None
    data = value.to_bytes(8, "little")[: access.size]
    assert MACHINE.space.write(run.r1 + access.off, data)


def skb(**fields: int) -> bytes:
    data = bytearray(192)
    for name, value in fields.items():
        f = next(f for f in PROG_TYPES["sched_cls"].fields or () if f.name == name)
        data[f.off : f.off + f.size] = value.to_bytes(f.size, "little")
    return bytes(data)


def md(*fields: int) -> bytes:
    return struct.pack("<6I", *fields)


def test_every_run_has_a_stack() -> None:
    with start("xdp") as a, start("xdp") as b:
        assert a.run.stack_top != b.run.stack_top
        assert not a.run.sleepable
        size = MAX_FRAMES * FRAME_SIZE
        region = MACHINE.space.find(a.run.stack_top - size, size, write=True)
        assert region is not None
        assert region.kind is RegionKind.STACK
        assert MACHINE.space.read(a.run.stack_top, 1) is None


def test_runs_are_counted_and_reuse_memory() -> None:
    with start("sched_cls") as a:
        assert MACHINE.space.runs_in_flight == 1
        first = a.r1, a.run.stack_top
    a.close()
    assert MACHINE.space.runs_in_flight == 0
    generation = MACHINE.space.generation
    with start("sched_cls", ctx=skb(mark=3)) as b:
        assert (b.r1, b.run.stack_top) == first
        assert load(b, 8) == 3
    with start("sched_cls") as c:
        assert load(c, 8) == 0
    assert MACHINE.space.generation == generation
    with pytest.raises(BpfError):
        start("xdp", data=b"")
    assert MACHINE.space.runs_in_flight == 0


# -- packets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prog_type", ["xdp", "sched_cls"])
def test_packet_pointers_span_the_packet(prog_type: str) -> None:
    at = {f.name: f.off for f in PROG_TYPES[prog_type].fields or ()}
    with start(prog_type, data=ETH) as run:
        data, end = load(run, at["data"]), load(run, at["data_end"])
        assert end - data == len(ETH)
        assert load(run, at["data_meta"]) == data
        assert MACHINE.space.read(data, len(ETH)) == ETH
        assert MACHINE.space.read(data - 1, 1) is None
        assert MACHINE.space.read(end, 1) is None
        assert MACHINE.space.write(data + 3, b"\xaa")
        assert run.finish().data == ETH[:3] + b"\xaa" + ETH[4:]


@pytest.mark.parametrize("prog_type", ["xdp", "sched_cls"])
def test_the_sandbox_sees_the_user_visible_context(prog_type: str) -> None:
    row = PROG_TYPES[prog_type]
    at = {f.name: f.off for f in row.fields or ()}
    with start(prog_type, data=ETH, verified=False) as run:
        ctx = MACHINE.space.read(run.r1, row.ctx_size)
        assert ctx is not None
        assert MACHINE.space.read(run.r1, row.ctx_size + 1) is None
        data, end = (int.from_bytes(ctx[at[n] : at[n] + 4], "little") for n in ("data", "data_end"))
        assert MACHINE.space.read(data, end - data) == ETH


def test_the_sandbox_refuses_where_there_is_no_low_memory() -> None:
    space = AddressSpace()
    space.low_window = None
    xlated = Xlated(Program("p", (), "xdp"), (), (), verified=False)
    with pytest.raises(BpfError, match="below 4 GiB"):
        prepare(Machine(space, [], Registry([])), xlated)
    assert space.runs_in_flight == 0
    verified = Xlated(Program("p", (), "xdp"), (), (), verified=True)
    with prepare(Machine(space, [], Registry([])), verified) as run:
        assert run.finish().data == DEFAULT_PACKET


def test_a_type_that_takes_a_packet_has_one() -> None:
    for prog_type in ("xdp", "sched_cls", "socket_filter"):
        with start(prog_type) as run:
            assert run.finish().data == bytes(64)


@pytest.mark.parametrize("prog_type", ["xdp", "sched_cls", "socket_filter"])
def test_a_packet_has_an_ethernet_header(prog_type: str) -> None:
    with pytest.raises(BpfError, match=r"packet of 13 bytes.*invalid argument"):
        start(prog_type, data=bytes(13))
    with start(prog_type, data=bytes(14)) as run:
        assert run.finish().data == bytes(14)


def test_packets_of_skbs_fit_in_a_page() -> None:
    with start("sched_cls", data=bytes(3712)) as run:
        assert load(run, 0) == 3712
    with pytest.raises(BpfError, match="packet of 3713 bytes"):
        start("sched_cls", data=bytes(3713))


# -- __sk_buff -----------------------------------------------------------------------------------


def test_skb_fields_that_the_kernel_sets() -> None:
    with start("sched_cls", data=ETH) as run:
        assert (load(run, 0), load(run, 160), load(run, 40)) == (64, 64, 1)
        assert (load(run, 4), load(run, 16)) == (2, 0x0008)
    with start("socket_filter", data=ETH) as run:
        assert (load(run, 0), load(run, 40)) == (50, 1)


@pytest.mark.parametrize(
    ("header", "pkt_type", "protocol"),
    [
        (bytes(14), 0, 0x0400),
        (bytes.fromhex("ffffffffffff0102030405060800"), 2, 0x0008),
        (bytes.fromhex("0100000000010102030405060800"), 2, 0x0008),
        (bytes.fromhex("0200000000010102030405068100"), 3, 0x0081),
        (bytes.fromhex("000000000000010203040506002effff"), 0, 0x0100),
    ],
)
def test_skb_packet_type_and_protocol(header: bytes, pkt_type: int, protocol: int) -> None:
    with start("socket_filter", data=header.ljust(64, b"\0")) as run:
        assert (load(run, 4), load(run, 16)) == (pkt_type, protocol)


def test_skb_context_in_and_out() -> None:
    ctx = skb(mark=7, priority=8, ingress_ifindex=9, ifindex=1, tstamp=0x123456789AB, wire_len=100)
    ctx = ctx[:164] + skb(gso_segs=3, gso_size=11, hwtstamp=77)[164:]
    with start("sched_cls", ctx=ctx, data=ETH) as run:
        seen = [load(run, off) for off in (8, 32, 36, 40, 160, 164, 176)]
        assert seen == [7, 8, 9, 1, 100, 3, 11]
        assert (load(run, 152, 8), load(run, 184, 8)) == (0x123456789AB, 77)
        assert run.finish().ctx == ctx


def test_skb_writes_come_back_as_the_kernel_keeps_them() -> None:
    with start("sched_cls", data=ETH) as run:
        for off in (44, 72, 8, 32, 52):
            store(run, off, 0x12345)
        store(run, 152, 0x12345, 8)
        assert (load(run, 44), load(run, 72), load(run, 8)) == (0x2345, 0x2345, 0x12345)
        out = run.finish().ctx
    want = bytearray(skb(mark=0x12345, priority=0x12345, ifindex=1, tstamp=0x12345, wire_len=64))
    want[52:56] = (0x12345).to_bytes(4, "little")
    assert out == bytes(want)


def test_a_socket_filters_packet_comes_back_without_its_header() -> None:
    with start("socket_filter", data=ETH) as run:
        out = run.finish()
    assert out.data == bytes(14) + ETH[14:]
    assert out.ctx == skb(ifindex=1, wire_len=50)


@pytest.mark.parametrize("prog_type", ["cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit"])
def test_packets_behind_the_ethernet_header(prog_type: str) -> None:
    with start(prog_type, data=ETH) as run:
        assert run.r1
        out = run.finish()
    assert out.data == bytes(14) + ETH[14:]
    assert out.ctx == skb(ifindex=1, wire_len=50)


def test_what_an_lwt_program_writes_comes_back() -> None:
    text = """.prog main type=lwt_xmit
r2 = *(u32 *)(r1 + 76)
r3 = *(u32 *)(r1 + 80)
r4 = r2
r4 += 50
r0 = 0
if r4 > r3 goto +2
*(u8 *)(r2 + 49) = 7
r0 = *(u8 *)(r2 + 0)
exit"""
    (prog,) = bpfvm.assemble(text).programs.values()
    for engine in ("interp", "jit"):
        result = prog.run(engine=engine, data=ETH)
        assert (result.r0, result.data) == (ETH[14], bytes(14) + ETH[14:-1] + b"\7")


@pytest.mark.parametrize(
    ("ctx", "errno"),
    [
        (skb(len=1), "invalid argument"),
        (skb(tc_index=1), "invalid argument"),
        (skb(hash=1), "invalid argument"),
        (skb(data_end=64), "invalid argument"),
        (skb(tstamp_type=1), "invalid argument"),
        (skb(wire_len=63), "invalid argument"),
        (skb(wire_len=65537), "invalid argument"),
        (skb(gso_segs=65536), "invalid argument"),
        (skb(ifindex=99), "no such device"),
        (skb() + b"\0\1", "argument list too long"),
    ],
)
def test_skb_contexts_that_are_refused(ctx: bytes, errno: str) -> None:
    with pytest.raises(BpfError, match=errno) as e:
        start("sched_cls", ctx=ctx)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("prog_type", ["socket_filter", "sched_cls"])
@pytest.mark.parametrize(("ethertype", "least"), [("0800", 34), ("86dd", 54), ("0806", 14)])
def test_an_ip_packet_holds_its_header(prog_type: str, ethertype: str, least: int) -> None:
    data = (bytes(12) + bytes.fromhex(ethertype)).ljust(least, b"\0")
    with start(prog_type, ctx=skb(), data=data) as run:
        assert len(run.finish().data) == least
    with pytest.raises(BpfError, match=f"at least {least}|{least} to"):
        start(prog_type, data=data[:-1])


def test_short_and_padded_contexts() -> None:
    for ctx in (b"", skb(mark=5)[:12], skb() + bytes(4)):
        with start("sched_cls", ctx=ctx) as run:
            assert load(run, 8) == (5 if len(ctx) == 12 else 0)


# -- xdp_md --------------------------------------------------------------------------------------


def test_xdp_context_without_and_with_metadata() -> None:
    with start("xdp", data=ETH) as run:
        assert (load(run, 12), load(run, 16)) == (1, 0)
        assert run.finish().ctx == md(0, 64, 0, 0, 0, 0)
    with start("xdp", data=ETH, ctx=md(8, 64, 0, 1, 0, 0)) as run:
        data, end, meta = load(run, 0), load(run, 4), load(run, 8)
        assert (end - data, data - meta) == (56, 8)
        assert MACHINE.space.write(data, b"\xaa")
        assert run.finish().ctx == md(8, 64, 0, 1, 0, 0)
        assert run.finish().data == ETH[:8] + b"\xaa" + ETH[9:]


def test_xdp_programs_do_not_see_fragments() -> None:
    with start("xdp", data=ETH, ctx=md(0, 20, 0, 0, 0, 0)) as run:
        assert load(run, 4) - load(run, 0) == 20
        assert run.finish().data == ETH
    with start("xdp", data=ETH, ctx=md(0, 0, 0, 0, 0, 0)) as run:
        assert load(run, 4) == load(run, 0)
    with start("xdp", data=bytes(5000)) as run:
        assert load(run, 4) - load(run, 0) == 3520
        assert len(run.finish().data) == 5000
    with pytest.raises(BpfError, match="cannot allocate memory"):
        start("xdp", data=bytes(100_000))


@pytest.mark.parametrize(
    ("ctx", "errno"),
    [
        (md(3, 64, 0, 0, 0, 0), "invalid argument"),
        (md(256, 264, 0, 0, 0, 0), "invalid argument"),
        (md(0, 65, 0, 0, 0, 0), "invalid argument"),
        (md(8, 4, 0, 0, 0, 0), "invalid argument"),
        (md(0, 64, 4, 0, 0, 0), "invalid argument"),
        (md(0, 64, 0, 0, 1, 0), "invalid argument"),
        (md(0, 64, 0, 0, 0, 1), "invalid argument"),
        (md(0, 64, 0, 99, 0, 0), "no such device"),
        (md(0, 64, 0, 0, 0, 0) + b"\1", "argument list too long"),
    ],
)
def test_xdp_contexts_that_are_refused(ctx: bytes, errno: str) -> None:
    with pytest.raises(BpfError, match=errno):
        start("xdp", data=ETH, ctx=ctx)


# -- syscall, raw_tp, mem -------------------------------------------------------------------------


def test_syscall_context_comes_back() -> None:
    with start("syscall", ctx=b"\1" * 17, max_ctx_offset=16) as run:
        assert run.run.sleepable
        assert MACHINE.space.write(run.r1, b"\7" * 8)
        assert MACHINE.space.read(run.r1, 18) is None
        assert run.finish().ctx == b"\7" * 8 + b"\1" * 9


def test_raw_tp_context_is_read_only() -> None:
    with start("raw_tp", ctx=b"\1" * 16, max_ctx_offset=16) as run:
        assert MACHINE.space.read(run.r1, 16) == b"\1" * 16
        assert not MACHINE.space.write(run.r1, b"x")
        assert run.finish().ctx == b""


@pytest.mark.parametrize(("prog_type", "limit"), [("syscall", 65535), ("raw_tp", 96)])
def test_plain_contexts_are_as_long_as_the_program_needs(prog_type: str, limit: int) -> None:
    for size in (0, 15):
        with pytest.raises(BpfError, match="but the program uses 16"):
            start(prog_type, ctx=bytes(size), max_ctx_offset=16)
    with start(prog_type, ctx=bytes(limit)) as run:
        assert run.r1
    with pytest.raises(BpfError, match=f"at most {limit}"):
        start(prog_type, ctx=bytes(limit + 1))
    with pytest.raises(BpfError, match="takes no packet"):
        start(prog_type, data=bytes(64))
    with start(prog_type, max_ctx_offset=24) as run:
        assert MACHINE.space.read(run.r1, 24) == bytes(24)
    with start(prog_type) as run:
        assert run.r1 == 0


def test_mem_entry_state() -> None:
    with start("mem", data=b"abc", verified=False) as run:
        assert run.r2 == 3
        assert MACHINE.space.read(run.r1, 3) == b"abc"
        assert MACHINE.space.write(run.r1 + 2, b"x")
        assert run.finish().data == b"abx"
    with start("mem", verified=False) as run:
        assert (run.r1, run.r2) == (0, 0)
        assert run.finish().data == b""
    with pytest.raises(BpfError, match="not a context"):
        start("mem", ctx=b"x", verified=False)


def test_other_types_are_refused() -> None:
    with pytest.raises(BpfError, match="not supported for program type kprobe"):
        start("kprobe")


@pytest.mark.parametrize("engine", ["interp", "jit"])
def test_a_sandboxed_program_gets_zeros_as_far_as_it_may_read(engine: str) -> None:
    code = "r0 = *(u32 *)(r1 + 40)\n*(u64 *)(r10 - 16) = 1\nexit"
    prog = bpfvm.assemble(f".prog p type=syscall sleepable\n{code}").programs["p"]
    result = prog.run(engine=engine, verify=False)
    assert (result.r0, result.ctx) == (0, bytes(44))
    inside = bpfvm.assemble(".prog p type=syscall sleepable\n*(u64 *)(r10 - 16) = 1\nr0 = r1\nexit")
    assert inside.programs["p"].run(engine=engine, verify=False).r0 == 0
