"""Helpers on packets and checksums, in both engines."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM

import pytest

import bpfvm
from bpfvm.bits import s32

PACKET = bytes(range(64))
FP16 = "r3 = r10; r3 += -16"


def results(prog_type: str, text: str, data: bytes = PACKET) -> tuple[int, bytes]:
    """Return r0 and the packet after a run, the same in both engines."""
    found = set()
    for engine in ("interp", "jit"):
        lines = text.replace("; ", "\n")
        prog = bpfvm.assemble(f".prog main type={prog_type}\n{lines}\n").programs["main"]
        result = prog.run(engine=engine, data=data)
        found.add((s32(result.r0), bytes(result.data or b"")))
    (only,) = found
    return only


@pytest.mark.parametrize(
    ("prog_type", "offset", "size", "value"),
    [
        ("sched_cls", 0, 4, 0x03020100),
        ("sched_cls", 60, 4, 0x3F3E3D3C),
        # A socket filter's view begins behind the Ethernet header.
        ("socket_filter", 0, 4, 0x11100F0E),
        ("socket_filter", 46, 4, 0x3F3E3D3C),
        ("lwt_in", 0, 4, 0x11100F0E),
    ],
)
def test_loading_bytes(prog_type: str, offset: int, size: int, value: int) -> None:
    text = (
        f"*(u64 *)(r10 - 16) = -1; r2 = {offset}; {FP16}; r4 = {size}; call bpf_skb_load_bytes\n"
        "if r0 != 0 goto +1; r0 = *(u32 *)(r10 - 16); exit"
    )
    assert results(prog_type, text)[0] == value


@pytest.mark.parametrize("offset", [61, 64, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_bytes_behind_the_packet_are_zeros(offset: int) -> None:
    load = f"r6 = r1; w2 = {offset:#x}; {FP16}; r4 = 4; call bpf_skb_load_bytes"
    assert results("sched_cls", f"{load}; exit")[0] == -EFAULT
    text = f"*(u32 *)(r10 - 16) = -1; {load}; r0 = *(u32 *)(r10 - 16); exit"
    assert results("sched_cls", text)[0] == 0


@pytest.mark.parametrize(("header", "value"), [(0, 0x03020100), (1, 0x11100F0E), (2, -EFAULT)])
@pytest.mark.parametrize("prog_type", ["sched_cls", "socket_filter"])
def test_loading_from_a_header_on(prog_type: str, header: int, value: int) -> None:
    text = (
        f"r2 = 0; {FP16}; r4 = 4; r5 = {header}; call bpf_skb_load_bytes_relative\n"
        "if r0 != 0 goto +1; r0 = *(u32 *)(r10 - 16); exit"
    )
    assert results(prog_type, text)[0] == value


@pytest.mark.parametrize(
    ("offset", "flags", "value"), [(2, 0, 0), (60, 3, 0), (61, 0, -EFAULT), (2, 4, -EINVAL)]
)
def test_storing_bytes(offset: int, flags: int, value: int) -> None:
    text = (
        f"*(u32 *)(r10 - 16) = 0x41424344; r2 = {offset}; {FP16}; r4 = 4; r5 = {flags}\n"
        "call bpf_skb_store_bytes; exit"
    )
    after = bytearray(PACKET)
    if not value:
        after[offset : offset + 4] = b"DCBA"
    assert results("sched_cls", text) == (value, bytes(after))


def test_pulling_data() -> None:
    assert results("sched_cls", "r2 = 64; call bpf_skb_pull_data; exit")[0] == 0
    assert results("sched_cls", "r2 = 65; call bpf_skb_pull_data; exit")[0] == -ENOMEM


@pytest.mark.parametrize(
    ("name", "offset", "size", "value"),
    [
        ("load", 60, 4, 0),
        ("load", 61, 4, -EINVAL),
        ("load", 0x10000, 4, -EFAULT),
        ("store", 60, 4, 0),
        ("store", 61, 4, -EINVAL),
    ],
)
def test_xdp_packets(name: str, offset: int, size: int, value: int) -> None:
    text = (
        f"*(u32 *)(r10 - 16) = 0; r2 = {offset}; {FP16}; r4 = {size}\n"
        f"call bpf_xdp_{name}_bytes; exit"
    )
    r0, data = results("xdp", text)
    assert r0 == value
    assert data == (PACKET[:60] + bytes(4) if name == "store" and not value else PACKET)
    assert results("xdp", "call bpf_xdp_get_buff_len; exit")[0] == 64


@pytest.mark.parametrize(
    ("old", "new", "seed", "value"),
    [
        (None, None, 0x12345, 0x2346),
        (None, 0x01020304, 0, 0x0406),
        (0x01020304, None, 0, 0xFBF9),
        (0, None, 0, 0),
        (0x01020304, 0x01020304, 0, 0xFFFF),
        (0x01020304, 0x02020304, 7, 0x0107),
    ],
)
def test_checksums(old: int | None, new: int | None, seed: int, value: int) -> None:
    def place(reg: int, at: int, word: int | None) -> str:
        if word is None:
            return f"r{reg} = 0; r{reg + 1} = 0"
        return f"*(u32 *)(r10 - {at}) = {word:#x}; r{reg} = r10; r{reg} += -{at}; r{reg + 1} = 4"

    text = f"{place(1, 8, old)}; {place(3, 16, new)}; w5 = {seed}; call bpf_csum_diff; exit"
    assert results("sched_cls", text)[0] == value
