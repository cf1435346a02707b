"""Test-runs: context and packet in, context and packet out, as BPF_PROG_TEST_RUN does it.

`prepare` lays out what one run of a program needs (stack, context, packet) from what user space
gives; after the run `finish` reads it back in the user-visible format. The machine that programs
see has one network device, the loopback device with index 1.

A context lies in memory as the user-visible struct with the packet pointers behind it, 64 bits
wide, where verified programs read them (`bpfvm.context`). The sandbox sees the struct alone, with
the packet's addresses in its u32 fields.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from errno import E2BIG, EINVAL, ENODEV, ENOMEM
from types import TracebackType
from typing import Self

from bpfvm.context import PROG_TYPES, CtxKind, ProgType
from bpfvm.errnos import ENOTSUPP
from bpfvm.errors import BpfError, RunNotSupported, RunRefused
from bpfvm.isa import lookup
from bpfvm.memory import Region, RegionKind, RegionSpec
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES, Machine, RunContext
from bpfvm.xlated import Xlated

__all__ = ["DEFAULT_PACKET", "MEM", "Outcome", "PreparedRun", "prepare", "prepare_apart"]

#: What stands for a program type in the conformance suite's entry state: r1 = address of the
#: data, r2 = its length.
MEM = "mem"
#: The packet where none is given, as the kernel's test loaders have it.
DEFAULT_PACKET = bytes(64)

_ETH_HLEN = 14
_LOOPBACK = 1
#: A page less headroom and struct skb_shared_info: net/bpf/test_run.c, 4 KiB pages.
_SKB_MAX = 4096 - 64 - 320
_XDP_LINEAR = 4096 - 256 - 320
_XDP_MAX = _XDP_LINEAR + 17 * 4096
_XDP_META_MAX = 255
_GSO_MAX = 65535
_WIRE_LEN_MAX = 65536
_SYSCALL_CTX_MAX = 65535
_RAW_TP_CTX_MAX = 96

#: A socket that belongs to nobody: closed (72: TCP_CLOSE), no receive queue (76: -1).
_SOCK = bytes(72) + (7).to_bytes(4, "little") + b"\xff" * 4

_STACK = RegionSpec(MAX_FRAMES * FRAME_SIZE, RegionKind.STACK)


def _refuse(why: str, errno: int) -> RunRefused:
    return RunRefused(f"test run: {why} ({os.strerror(errno).lower()})", errno)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has made of its input: packet and context as user space gets them.

    *ctx* is empty where there is none, and for raw_tp, which can't change it.
    """

    data: bytes = b""
    ctx: bytes = b""


@dataclass(frozen=True, slots=True)
class _Input:
    """One run's memory as it is to be before the run, and how to read it afterwards.

    Attributes:
        ctx: bytes of the context, None for none (r1 is 0).
        packet: bytes of the linear part of the packet, None where programs can't reach it.
        meta: how many of them come before the packet's first byte.
        frame: the packet of a program that can only load from it, from its Ethernet header on.
        outcome: makes the outcome from the bytes of context and packet after the run.
    """

    ctx: bytes | None
    outcome: Callable[[bytes, bytes], Outcome]
    packet: bytes | None = None
    meta: int = 0
    frame: bytes | None = None


class PreparedRun:
    """A run that can be started, perhaps repeatedly on the same context; close it in the end.

    Attributes:
        run: the run's state.
        r1, r2: the entry values.
    """

    def __init__(self, machine: Machine, xlated: Xlated, given: _Input) -> None:
        self._space = machine.space
        self._borrowed: list[tuple[RegionSpec, Region]] = []
        self._closed = False
        self._space.enter_run()
        try:
            stack = self._borrow(_STACK)
            self.run = RunContext(
                machine,
                xlated.program,
                stack.base + stack.size,
                sleepable=xlated.program.sleepable,
            )
            self.r1, self.r2 = 0, 0
            self._given = given
            self._packet: Region | None = None
            self._ctx: Region | None = None
            self._lay_out(xlated)
        except BaseException:
            self.close()
            raise

    def _lay_out(self, xlated: Xlated) -> None:
        given = self._given
        if xlated.program.prog_type == MEM and given.packet is not None:
            data = given.packet
            self._packet = self._fill(data, RegionSpec(len(data), RegionKind.MEM))
            self.r1, self.r2 = (self._packet.base if data else 0), len(data)
            return
        prog_type = PROG_TYPES[xlated.program.prog_type]
        if given.packet is not None:
            self._packet = self._fill(
                given.packet,
                RegionSpec(len(given.packet), RegionKind.PACKET, prog_type.packet_write, low=True),
            )
        if given.frame is not None:
            self.run.skb = memoryview(given.frame), _ETH_HLEN
        elif self._packet is not None and prog_type.ld_abs:
            self.run.skb = self._packet.view, 0
        if given.ctx is not None:
            size = len(given.ctx)
            if xlated.verified and prog_type.fields is not None:
                size = prog_type.internal_size
            writable = prog_type.ctx_writable or any(f.writable for f in prog_type.fields or ())
            self._ctx = self._fill(given.ctx, RegionSpec(size, RegionKind.CTX, writable))
            self.r1 = self._ctx.base
            self._lend_socket(prog_type, self._ctx)
            if self._packet is not None:
                self._point(prog_type, self._ctx, self._packet, sandbox=not xlated.verified)

    def _point(self, prog_type: ProgType, ctx: Region, packet: Region, *, sandbox: bool) -> None:
        end = packet.base + packet.size
        if sandbox and end > 1 << 32:
            raise BpfError(
                "this process has no memory below 4 GiB left, where an unverified program's"
                " packet must lie"
            )
        pointers = {
            CtxKind.PACKET: packet.base + self._given.meta,
            CtxKind.PACKET_END: end,
            CtxKind.PACKET_META: packet.base,
        }
        for f in prog_type.fields or ():
            if f.kind not in pointers:
                continue
            off, size = (f.off, f.size) if sandbox else (f.internal_off, 8)
            ctx.view[off : off + size] = pointers[f.kind].to_bytes(size, "little")

    def _lend_socket(self, prog_type: ProgType, ctx: Region) -> None:
        """Point skb->sk to a socket (kernel: that of bpf_prog_test_run_skb)."""
        for f in prog_type.fields or ():
            if f.kind is CtxKind.SOCK_COMMON_OR_NULL:
                sock = self._fill(_SOCK, RegionSpec(len(_SOCK), RegionKind.MEM, writable=False))
                ctx.view[f.internal_off : f.internal_off + 8] = sock.base.to_bytes(8, "little")

    def _fill(self, data: bytes, spec: RegionSpec) -> Region:
        region = self._borrow(spec)
        region.view[:] = data.ljust(spec.size, b"\0")
        return region

    def _borrow(self, spec: RegionSpec) -> Region:
        region = self._space.borrow(spec)
        self._borrowed.append((spec, region))
        return region

    def borrow_stack(self) -> int:
        """Return the end of another stack, which lives as long as the run."""
        stack = self._borrow(_STACK)
        return stack.base + stack.size

    @property
    def ctx_size(self) -> int:
        """Bytes of the context as the program sees it."""
        return self._ctx.size if self._ctx is not None else 0

    def finish(self) -> Outcome:
        """Return packet and context as the run has left them."""
        ctx = bytes(self._ctx.view) if self._ctx is not None else b""
        packet = bytes(self._packet.view) if self._packet is not None else b""
        return self._given.outcome(ctx, packet)

    def close(self) -> None:
        """Give the memory back; the run is over."""
        if self._closed:
            return
        self._closed = True
        self.run.end()
        self._space.leave_run()
        for spec, region in self._borrowed:
            self._space.give_back(spec, region)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def prepare_apart(machine: Machine, xlated: Xlated) -> PreparedRun:
    """Prepare a run of a subprog of *xlated*, without any context."""
    return PreparedRun(machine, xlated, _Input(None, lambda _ctx, _packet: Outcome()))


def prepare(
    machine: Machine, xlated: Xlated, *, ctx: bytes | None = None, data: bytes | None = None
) -> PreparedRun:
    """Prepare a run of *xlated*.

    Args:
        machine: where it runs.
        xlated: what runs.
        ctx: the context as user space gives it, by default zeros: as many as the struct has, or
            as the program reads (in the sandbox: may read).
        data: the packet, by default `DEFAULT_PACKET` for types that take one; for "mem" the
            memory, by default none.

    Raises:
        RunRefused: BPF_PROG_TEST_RUN refuses such input.
        RunNotSupported: there are no test-runs of this type, or not yet.
    """
    name = xlated.program.prog_type
    if name == MEM:
        given = _mem(ctx, data)
    elif name in ("syscall", "raw_tp"):
        given = _plain(name, xlated, ctx, data)
    elif name == "xdp":
        given = _xdp(ctx, DEFAULT_PACKET if data is None else data)
    elif name in _SKB_TYPES:
        given = _skb(ctx, DEFAULT_PACKET if data is None else data, name)
    else:
        raise RunNotSupported(f"test run: not supported for program type {name}", ENOTSUPP)
    return PreparedRun(machine, xlated, given)


def _mem(ctx: bytes | None, data: bytes | None) -> _Input:
    if ctx:
        raise _refuse("this entry state takes data, not a context", EINVAL)
    return _Input(None, lambda _ctx, packet: Outcome(packet), packet=data or b"")


def _plain(name: str, xlated: Xlated, ctx: bytes | None, data: bytes | None) -> _Input:
    limit = _SYSCALL_CTX_MAX if name == "syscall" else _RAW_TP_CTX_MAX
    if data:
        raise _refuse(f"a {name} program takes no packet", EINVAL)
    max_ctx_offset = xlated.max_ctx_offset
    if ctx is None:
        ctx = bytes(max_ctx_offset if xlated.verified else min(limit, _reach(xlated)))
    if len(ctx) > limit:
        raise _refuse(f"context of {len(ctx)} bytes, at most {limit}", EINVAL)
    if len(ctx) < max_ctx_offset:
        raise _refuse(f"context of {len(ctx)} bytes, but the program uses {max_ctx_offset}", EINVAL)
    copied_back = name == "syscall"
    return _Input(ctx or None, lambda ctx, _packet: Outcome(ctx=ctx if copied_back else b""))


def _reach(xlated: Xlated) -> int:
    """Return a bound of what an unverified program may reach from r1 by its insns' offsets."""
    rows = ((insn, lookup(insn)) for insn in xlated.insns)
    return max([0, *(insn.off + row.size for insn, row in rows if row is not None and row.size)])


def _struct(ctx: bytes | None, size: int) -> bytes:
    """Return *ctx* as *size* bytes: zeros may be missing at its end, or too many."""
    given = ctx or b""
    if any(given[size:]):
        raise _refuse(f"context of {len(given)} bytes, the struct has {size}", E2BIG)
    return given[:size].ljust(size, b"\0")


def _u32(data: bytes, off: int) -> int:
    return int.from_bytes(data[off : off + 4], "little")


# -- xdp (kernel: bpf_prog_test_run_xdp) --------------------------------------------------------


def _xdp(ctx: bytes | None, data: bytes) -> _Input:
    if not len(data) >= _ETH_HLEN:
        raise _refuse(f"packet of {len(data)} bytes, at least {_ETH_HLEN}", EINVAL)
    if len(data) > _XDP_MAX:
        raise _refuse(f"packet of {len(data)} bytes, at most {_XDP_MAX}", ENOMEM)
    md = _struct(ctx, PROG_TYPES["xdp"].ctx_size)
    meta, end, data_meta, ifindex, queue, egress = (_u32(md, off) for off in range(0, 24, 4))
    if ctx is None:
        end = len(data)
    if data_meta or end > len(data) or meta > end or meta % 4 or meta > _XDP_META_MAX:
        raise _refuse(
            f"data {meta}, data_end {end} and data_meta {data_meta} do not fit a packet of"
            f" {len(data)} bytes",
            EINVAL,
        )
    if egress or queue:
        raise _refuse("egress_ifindex and rx_queue_index must be 0", EINVAL)
    if ifindex not in (0, _LOOPBACK):
        raise _refuse(f"ingress_ifindex {ifindex}", ENODEV)
    # What goes beyond the linear part is in fragments, which programs don't see.
    linear = min(end, _XDP_LINEAR + meta)
    seen = bytes(12) + _LOOPBACK.to_bytes(4, "little") + bytes(8)
    out = md[:4] + linear.to_bytes(4, "little") + md[8:]
    return _Input(
        seen,
        lambda _ctx, packet: Outcome(packet + data[linear:], out),
        packet=data[:linear],
        meta=meta,
    )


# -- types with an skb (kernel: bpf_prog_test_run_skb) ----------------------------------

#: Bytes of the IP header that a packet of this EtherType must have.
_IP_HEADERS = {b"\x08\x00": 20, b"\x86\xdd": 40}
#: Where the fields of __sk_buff lie.
_SKB = {f.name: f.off for f in PROG_TYPES["sched_cls"].fields or ()}
#: Bytes of __sk_buff that user space may set, by offset and end.
_SKB_IN = ((8, 12), (32, 44), (48, 68), (152, 168), (176, 180), (184, 192))
#: Bytes that come back from the run; the others come back as they were given.
_SKB_OUT = ((8, 12), (32, 44), (48, 68), (152, 168), (184, 192))


#: Those whose programs see the Ethernet header (kernel: is_l2), and those that reach the packet
#: (is_direct_pkt_access).
_L2_TYPES = frozenset({"sched_cls", "sched_act"})
_DIRECT_TYPES = _L2_TYPES | {"cgroup_skb", "lwt_in", "lwt_out", "lwt_xmit"}
_SKB_TYPES = _DIRECT_TYPES | {"socket_filter"}


def _skb(ctx: bytes | None, data: bytes, prog_type: str) -> _Input:
    is_direct = prog_type in _DIRECT_TYPES
    unseen = 0 if prog_type in _L2_TYPES else _ETH_HLEN
    if not _ETH_HLEN <= len(data) <= _SKB_MAX:
        raise _refuse(f"packet of {len(data)} bytes, {_ETH_HLEN} to {_SKB_MAX}", EINVAL)
    user = _struct(ctx, PROG_TYPES["sched_cls"].ctx_size)
    length = len(data) - unseen
    header = _IP_HEADERS.get(data[12:14], 0)
    if len(data) < _ETH_HLEN + header:
        raise _refuse(f"IP packet of {len(data)} bytes, at least {_ETH_HLEN + header}", EINVAL)
    _check_skb(user, length)
    skb = bytearray(user)
    for name, value in (
        ("len", length),
        ("pkt_type", _pkt_type(data)),
        ("protocol", _protocol(data)),
        ("ifindex", _LOOPBACK),
        ("wire_len", _u32(user, _SKB["wire_len"]) or length),
        ("gso_size", _u32(user, _SKB["gso_size"]) & 0xFFFF),  # a u16 in the kernel
    ):
        skb[_SKB[name] : _SKB[name] + 4] = value.to_bytes(4, "little")

    def outcome(ctx: bytes, packet: bytes) -> Outcome:
        out = bytearray(user)
        for start, end in _SKB_OUT:
            out[start:end] = ctx[start:end]
        # What the program did not see comes back as zeros.
        return Outcome(bytes(unseen) + (packet if is_direct else data[unseen:]), bytes(out))

    if is_direct:
        return _Input(bytes(skb), outcome, packet=data[unseen:])
    return _Input(bytes(skb), outcome, frame=data)


def _check_skb(user: bytes, length: int) -> None:
    rest = bytearray(user)
    for start, end in _SKB_IN:
        rest[start:end] = bytes(end - start)
    wrong = next((i for i, byte in enumerate(rest) if byte), None)
    if wrong is not None:
        raise _refuse(f"byte {wrong} of the context can't be set", EINVAL)
    ifindex, wire_len, gso_segs = (
        _u32(user, _SKB[name]) for name in ("ifindex", "wire_len", "gso_segs")
    )
    if ifindex > _LOOPBACK:
        raise _refuse(f"ifindex {ifindex}", ENODEV)
    if wire_len and not length <= wire_len <= _WIRE_LEN_MAX:
        raise _refuse(f"wire_len {wire_len}, {length} to {_WIRE_LEN_MAX}", EINVAL)
    if gso_segs > _GSO_MAX:
        raise _refuse(f"gso_segs {gso_segs}, at most {_GSO_MAX}", EINVAL)


def _pkt_type(data: bytes) -> int:
    """Return PACKET_HOST, _MULTICAST or _OTHERHOST; the device's own address is all zeros."""
    if not any(data[:6]):
        return 0
    return 2 if data[0] & 1 else 3


def _protocol(data: bytes) -> int:
    """Return skb->protocol as the program loads it (kernel: eth_type_trans)."""
    if int.from_bytes(data[12:14], "big") >= 0x600:
        return int.from_bytes(data[12:14], "little")
    raw_ipx = data[_ETH_HLEN : _ETH_HLEN + 2] == b"\xff\xff"
    return 0x0100 if raw_ipx else 0x0400  # htons of ETH_P_802_3, ETH_P_802_2
