"""Ring buffers: room, order, and programs that fill them in both engines."""

from __future__ import annotations

from errno import E2BIG, EAGAIN, EINVAL, ENOSPC

import pytest

from bpfvm import vm
from bpfvm.errors import MapError, RunFault
from bpfvm.maps.base import MapType
from bpfvm.maps.ringbuf import RingbufMap
from bpfvm.maps.user_ringbuf import UserRingbufMap
from bpfvm.memory import AddressSpace
from bpfvm.program import MapDef

HEAD = ".map ring type=ringbuf entries=4096\n.prog p type=socket_filter license=GPL\n"
FILL = (
    HEAD
    + """
r1 = map(ring)
r2 = 16
r3 = 0
call bpf_ringbuf_reserve
if r0 == 0 goto none
*(u64 *)(r0 + 0) = 7
*(u64 *)(r0 + 8) = -1
r1 = r0
r2 = 0
call bpf_ringbuf_{how}
r0 = 0
exit
none:
r0 = 1
exit
"""
)


@pytest.fixture(params=vm.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ring(size: int = 4096) -> RingbufMap:
    return RingbufMap(MapDef("r", MapType.RINGBUF, 0, 0, size), AddressSpace())


def ring_of(obj: vm.Object) -> RingbufMap:
    found = obj.maps["ring"]
    assert isinstance(found, RingbufMap)
    return found


@pytest.mark.parametrize(
    ("key", "value", "size", "flags"),
    [(4, 0, 4096, 0), (0, 8, 4096, 0), (0, 0, 0, 0), (0, 0, 2048, 0), (0, 0, 12288, 0),
     (0, 0, 4096, 1 << 10)],
)  # fmt: skip
def test_what_bpf_map_create_refuses(key: int, value: int, size: int, flags: int) -> None:
    with pytest.raises(MapError) as caught:
        RingbufMap(MapDef("r", MapType.RINGBUF, key, value, size, flags), AddressSpace())
    assert caught.value.errno == EINVAL


def test_room_is_counted_with_headers() -> None:
    r = ring()
    assert r.reserve(4096 - 8) == 0  # one byte must stay free
    assert r.reserve(4096 - 16)
    assert r.reserve(0) == 0
    assert r.query(0) == 4096 - 8
    assert (r.query(1), r.query(2), r.query(3), r.query(9)) == (4096, 0, 4088, 0)


def test_records_come_in_the_order_they_were_reserved() -> None:
    r = ring()
    first, second, third = r.reserve(8), r.reserve(8), r.reserve(8)
    assert r.commit(second, discard=False)
    assert r.consume() == []  # the first is still being filled
    assert r.commit(first, discard=True)
    assert len(r.consume()) == 1
    assert r.commit(third, discard=False)
    assert len(r.consume()) == 1
    assert r.query(0) == 0
    assert not r.commit(first, discard=False)


def test_records_wrap_around_the_end() -> None:
    r = ring()
    for turn in range(9):
        data = bytes([turn]) * 1500
        assert r.output(data) == 0
        assert r.output(data) == 0
        assert r.output(data) == -EAGAIN
        assert r.consume() == [data, data]


def test_a_ring_buffer_is_an_empty_mapping() -> None:
    r = ring()
    assert list(r) == []
    with pytest.raises(MapError):
        r[b""] = b""


@pytest.mark.parametrize(("how", "records"), [("submit", 1), ("discard", 0)])
def test_programs_fill_records(engine: str, how: str, records: int) -> None:
    obj = vm.assemble(FILL.format(how=how))
    assert obj.programs["p"].run(engine=engine).r0 == 0
    expected = (7).to_bytes(8, "little") + b"\xff" * 8
    assert ring_of(obj).consume() == [expected] * records


def test_a_full_ring_gives_null(engine: str) -> None:
    obj = vm.assemble(FILL.format(how="submit"))
    assert obj.programs["p"].run(engine=engine, repeat=171).r0 == 1
    assert len(ring_of(obj).consume()) == 170  # of 24 bytes each
    assert obj.programs["p"].run(engine=engine).r0 == 0


def test_output_and_query(engine: str) -> None:
    obj = vm.assemble(
        HEAD
        + """
*(u32 *)(r10 - 4) = 0x01020304
r1 = map(ring)
r2 = r10
r2 += -4
r3 = 4
r4 = 0
call bpf_ringbuf_output
r6 = r0
r1 = map(ring)
r2 = r10
r2 += -4
r3 = 4
r4 = 4
call bpf_ringbuf_output
r6 += r0
r1 = map(ring)
r2 = 3
call bpf_ringbuf_query
r0 += r6
exit
"""
    )
    assert obj.programs["p"].run(engine=engine).r0 == 16 - EINVAL + 2**64 * (EINVAL > 16)
    assert ring_of(obj).consume() == [b"\x04\x03\x02\x01"]


def test_the_sandbox_refuses_what_is_no_record(engine: str) -> None:
    obj = vm.assemble(HEAD + "r1 = r10\nr2 = 0\ncall bpf_ringbuf_submit\nexit")
    with pytest.raises(RunFault, match="no reserved ring buffer record"):
        obj.programs["p"].run(engine=engine, verify=False)


DRAIN = """
.map samples type=user_ringbuf entries=4096
.map out type=array key=4 value=8 entries=1
.prog p type=socket_filter license=GPL
*(u64 *)(r10 - 8) = 0
r1 = map(samples)
r2 = func(take)
r3 = r10
r3 += -8
r4 = {flags}
call bpf_user_ringbuf_drain
r6 = r0
r7 = *(u64 *)(r10 - 8)
r0 = r7
r0 <<= 32
r0 |= r6
exit
.func take args="ptr,ptr" ret=int
r6 = r2
r2 = 0
r3 = 4
call bpf_dynptr_data
if r0 == 0 goto short
r1 = *(u32 *)(r0 + 0)
r2 = *(u64 *)(r6 + 0)
r2 += r1
*(u64 *)(r6 + 0) = r2
if r1 == 99 goto stop
short:
r0 = 0
exit
stop:
r0 = 1
exit
"""


def test_programs_drain_samples(engine: str) -> None:
    obj = vm.assemble(DRAIN.format(flags=0))
    samples = obj.maps["samples"]
    assert isinstance(samples, UserRingbufMap)
    run = obj.programs["p"].run
    assert run(engine=engine).r0 == 0
    for data in (b"\x05\0\0\0", b"\x06\0\0\0rest", b"xx", b"\x63\0\0\0", b"\x01\0\0\0"):
        samples.produce(data)
    assert run(engine=engine).r0 == (5 + 6 + 99) << 32 | 4  # the fourth stops it
    assert run(engine=engine).r0 == 1 << 32 | 1
    assert samples.query(0) == 0
    assert vm.assemble(DRAIN.format(flags=4)).programs["p"].run(engine=engine).r0 == 2**64 - EINVAL


def test_samples_have_to_fit() -> None:
    samples = UserRingbufMap(MapDef("s", MapType.USER_RINGBUF, 0, 0, 4096), AddressSpace())
    with pytest.raises(MapError) as caught:
        samples.produce(bytes(4096))
    assert caught.value.errno == E2BIG
    samples.produce(bytes(4000))
    with pytest.raises(MapError) as caught:
        samples.produce(bytes(4000))
    assert caught.value.errno == ENOSPC
