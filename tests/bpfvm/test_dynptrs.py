"""Dynptrs, verified and run in both engines."""

from __future__ import annotations

import pytest

from bpfvm import vm
from bpfvm.errors import RunFault
from bpfvm.maps.ringbuf import RingbufMap

OF_VALUE = """
.map m type=array key=4 value=16 entries=1
.prog p type=socket_filter license=GPL
*(u32 *)(r10 - 4) = 0
r1 = map(m)
r2 = r10
r2 += -4
call bpf_map_lookup_elem
if r0 == 0 goto out
r1 = r0
r2 = 16
r3 = {flags}
r4 = r10
r4 += -24
call bpf_dynptr_from_mem
{body}
out:
exit
"""
PTR = "r1 = r10\nr1 += -24\n"
RECORD = """
.map ring type=ringbuf entries=4096
.prog p type=socket_filter license=GPL
r1 = map(ring)
r2 = {size}
r3 = {flags}
r4 = r10
r4 += -16
call bpf_ringbuf_reserve_dynptr
r6 = r0
{body}
r1 = r10
r1 += -16
r2 = 0
call bpf_ringbuf_{how}_dynptr
r0 = r6
exit
"""
WRITE = """
*(u64 *)(r10 - 32) = 0x11223344
r1 = r10
r1 += -16
r2 = {off}
r3 = r10
r3 += -32
r4 = 8
r5 = 0
call bpf_dynptr_write
r6 = r0
"""


@pytest.fixture(params=vm.ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(text: str, engine: str, **options: object) -> int:
    (prog,) = vm.assemble(text).programs.values()
    return prog.run(engine=engine, **options).r0  # type: ignore[arg-type]


def value_of(body: str, engine: str, flags: int = 0) -> int:
    return run(OF_VALUE.format(body=body, flags=flags), engine)


def error(errno: int, *, bits: int = 64) -> int:
    return int(2**bits) - errno


def test_size_and_null(engine: str) -> None:
    assert value_of(f"{PTR}call bpf_dynptr_size", engine) == 16
    assert value_of(f"{PTR}call bpf_dynptr_is_null", engine) == 0
    assert value_of(f"{PTR}call bpf_dynptr_is_rdonly", engine) == 0
    assert value_of(f"{PTR}call bpf_dynptr_is_null", engine, flags=1) == 1
    assert value_of(f"{PTR}call bpf_dynptr_size", engine, flags=1) == error(22, bits=32)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(4, 12, 8), (16, 16, 0), (0, 17, -34), (17, 17, -34), (5, 4, -22)],
)
def test_adjust(engine: str, start: int, end: int, expected: int) -> None:
    body = f"{PTR}r2 = {start}\nr3 = {end}\ncall bpf_dynptr_adjust\nif r0 != 0 goto out\n"
    result = value_of(f"{body}{PTR}call bpf_dynptr_size", engine)
    assert result == expected % 2**32


@pytest.mark.parametrize(("off", "size", "found"), [(0, 16, True), (9, 7, True), (9, 8, False)])
def test_data(engine: str, off: int, size: int, found: bool) -> None:
    body = f"{PTR}r2 = {off}\nr3 = {size}\ncall bpf_dynptr_data\nif r0 == 0 goto out\n"
    assert value_of(f"{body}*(u8 *)(r0 + {size - 1}) = 5\nr0 = 1", engine) == int(found)


def test_clones_are_adjusted_alone(engine: str) -> None:
    body = f"""{PTR}r2 = r10
r2 += -40
call bpf_dynptr_clone
r1 = r10
r1 += -40
r2 = 8
r3 = 12
call bpf_dynptr_adjust
{PTR}call bpf_dynptr_size
r6 = r0
r1 = r10
r1 += -40
call bpf_dynptr_size
r0 <<= 8
r0 |= r6
"""
    assert value_of(body, engine) == 4 << 8 | 16


def test_memset_copy_and_read(engine: str) -> None:
    body = f"""{PTR}r2 = 0
r3 = 8
r4 = 0x5a
call bpf_dynptr_memset
if r0 != 0 goto out
{PTR}r2 = 8
r3 = r10
r3 += -24
r4 = 2
r5 = 6
call bpf_dynptr_copy
if r0 != 0 goto out
r1 = r10
r1 += -32
r2 = 8
r3 = r10
r3 += -24
r4 = 8
r5 = 0
call bpf_dynptr_read
if r0 != 0 goto out
r0 = *(u64 *)(r10 - 32)
"""
    assert value_of(body, engine) == 0x5A5A5A5A5A5A


@pytest.mark.parametrize(("off", "result"), [(0, 0), (8, 0), (9, error(7))])
def test_write_into_a_record(engine: str, off: int, result: int) -> None:
    text = RECORD.format(size=16, flags=0, how="submit", body=WRITE.format(off=off))
    obj = vm.assemble(text)
    assert obj.programs["p"].run(engine=engine).r0 == result
    ring = obj.maps["ring"]
    assert isinstance(ring, RingbufMap)
    (record,) = ring.consume()
    data = (0x11223344).to_bytes(8, "little")
    assert record == (bytes(off) + data if not result else b"").ljust(16, b"\0")


def test_a_record_that_was_not_had_is_released_all_the_same(engine: str) -> None:
    for size, flags, result in ((8192, 0, 22), (8, 1, 22), (1 << 24, 0, 7)):
        text = RECORD.format(size=size, flags=flags, how="discard", body="")
        assert run(text, engine) == error(result)


def test_a_discarded_record(engine: str) -> None:
    obj = vm.assemble(RECORD.format(size=8, flags=0, how="discard", body=""))
    assert obj.programs["p"].run(engine=engine, repeat=300).r0 in (0, error(22))
    ring = obj.maps["ring"]
    assert isinstance(ring, RingbufMap)
    assert ring.consume() == []


PACKET = """
.prog p type={prog_type} license=GPL
r2 = 0
r3 = r10
r3 += -16
call bpf_dynptr_from_{kind}
r1 = r10
r1 += -16
r2 = {off}
r3 = 0
r4 = 2
call bpf_dynptr_slice{rdwr}
if r0 == 0 goto none
{body}
exit
none:
r0 = 99
exit
"""


@pytest.mark.parametrize(("prog_type", "kind"), [("xdp", "xdp"), ("sched_cls", "skb")])
def test_slices_of_packets(engine: str, prog_type: str, kind: str) -> None:
    data = bytes(range(64))

    def packet(off: int, rdwr: str, body: str) -> vm.Result:
        text = PACKET.format(prog_type=prog_type, kind=kind, off=off, rdwr=rdwr, body=body)
        return vm.assemble(text).programs["p"].run(engine=engine, data=data)

    assert packet(12, "", "r0 = *(u16 *)(r0 + 0)").r0 == 0x0D0C
    assert packet(62, "", "r0 = *(u16 *)(r0 + 0)").r0 == 0x3F3E
    assert packet(63, "", "r0 = *(u16 *)(r0 + 0)").r0 == 99
    written = packet(20, "_rdwr", "*(u16 *)(r0 + 0) = 0x6162\nr0 = 2")
    assert written.data[20:22] == b"\x62\x61"


def test_the_sandbox_refuses_what_is_no_dynptr(engine: str) -> None:
    text = ".prog p\n*(u64 *)(r10 - 16) = -1\n*(u64 *)(r10 - 8) = -1\nr1 = r10\nr1 += -16\n"
    with pytest.raises(RunFault, match="holds no dynptr"):
        run(f"{text}call bpf_dynptr_size\nexit", engine, verify=False)
