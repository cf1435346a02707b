"""Helpers on packets and checksums (net/core/filter.c)."""

from __future__ import annotations

from errno import EFAULT, EINVAL, ENOMEM

from bpfvm.bits import U32_MAX, u32
from bpfvm.notation import prototype
from bpfvm.proto import implements
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_csum_diff",
    "bpf_csum_update",
    "bpf_get_hash_recalc",
    "bpf_skb_load_bytes",
    "bpf_skb_load_bytes_relative",
    "bpf_skb_pull_data",
    "bpf_skb_store_bytes",
    "bpf_xdp_get_buff_len",
    "bpf_xdp_load_bytes",
    "bpf_xdp_store_bytes",
]

#: kernel: ENOTSUPP, which user space does not have.
_ENOTSUPP = 524
_ETH_HLEN = 14
_S32_MAX = (1 << 31) - 1
#: The largest offset and length of helpers that have limits.
_U16_MAX = 0xFFFF
#: kernel: BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH
_STORE_FLAGS = 3
#: kernel: BPF_HDR_START_MAC, BPF_HDR_START_NET
_MAC, _NET = 0, 1


# -- checksums ---------------------------------------------------------------------------------


def _folded(total: int) -> int:
    """Return a sum as 32 bits, carries added at the low end."""
    while total > U32_MAX:
        total = (total & U32_MAX) + (total >> 32)
    return total


def _sum(data: bytes, start: int) -> int:
    """Return the ones' complement sum of *data* and *start* (kernel: csum_partial)."""
    data += bytes(-len(data) % 4)
    words = (int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
    return _folded(start + sum(words))


def _bytes(run: RunContext, addr: int, size: int) -> bytes:
    return run.read(addr, u32(size)) if u32(size) else b""


@implements(prototype(28, "csum_diff", "mem? size0 mem? size0 any", "int", "pkt", "lwt tc xdp"))
def bpf_csum_diff(
    run: RunContext, old: int, old_size: int, new: int, new_size: int, seed: int
) -> int:
    """Return the 16-bit sum of *seed* with *new* added and *old* taken away."""
    before, after = _bytes(run, old, old_size), _bytes(run, new, new_size)
    found = u32(seed)
    if before and after:
        found = _folded(_sum(after, found) + (U32_MAX ^ _sum(before, 0)))
    elif after:
        found = _sum(after, found)
    elif before:
        found = U32_MAX ^ _sum(before, U32_MAX ^ found)
    turned = found >> 16 | u32(found << 16)
    return u32(found + turned) >> 16


@implements(prototype(40, "csum_update", "ctx any", types="tc lwt_xmit"))
def bpf_csum_update(_run: RunContext, _ctx: int, _csum: int) -> int:
    """Return -ENOTSUPP: the packet of a test-run has no sum that its device made."""
    return -_ENOTSUPP


# -- packets of sockets ------------------------------------------------------------------------


def _frame(run: RunContext, ctx: int) -> tuple[memoryview, int]:
    """Return the packet, and where in it the program's view begins."""
    if run.skb is not None:
        return run.skb
    start, end = run.packet_of(ctx)
    return memoryview(run.read(start, end - start)), 0


def _load(run: RunContext, frame: memoryview, at: int, to: int, size: int) -> int:
    fits = at >= 0 and at + size <= len(frame)
    run.write(to, bytes(frame[at : at + size]) if fits else bytes(size))
    return 0 if fits else -EFAULT


@implements(
    prototype(
        26,
        "skb_load_bytes",
        "ctx any out size",
        types="load_users lwt flow_dissector sk_skb",
    )
)
def bpf_skb_load_bytes(run: RunContext, ctx: int, offset: int, to: int, size: int) -> int:
    """Copy *size* bytes of the packet; -EFAULT: they are not in it, and zeros were written."""
    frame, data = _frame(run, ctx)
    offset = u32(offset)
    return _load(run, frame, data + offset if offset <= _S32_MAX else -1, to, u32(size))


@implements(prototype(68, "skb_load_bytes_relative", "ctx any out size any", types="load_users"))
def bpf_skb_load_bytes_relative(
    run: RunContext, ctx: int, offset: int, to: int, size: int, header: int
) -> int:
    """As `bpf_skb_load_bytes`, from the Ethernet (0) or the network *header* (1) on."""
    frame, _ = _frame(run, ctx)
    offset, header = u32(offset), u32(header)
    at = -1
    if offset <= _U16_MAX and header in (_MAC, _NET):
        at = offset + _ETH_HLEN * (header == _NET)
    return _load(run, frame, at, to, u32(size))


@implements(
    prototype(9, "skb_store_bytes", "ctx any mem size any", "int", "changes", "tc lwt_xmit sk_skb")
)
def bpf_skb_store_bytes(
    run: RunContext, ctx: int, offset: int, data: int, size: int, flags: int
) -> int:
    """Copy *size* bytes into the packet; -EINVAL: flags; -EFAULT: they are not in it."""
    if flags & ~_STORE_FLAGS:
        return -EINVAL
    start, end = run.packet_of(ctx)
    offset, size = u32(offset), u32(size)
    if offset > _S32_MAX or offset + size > end - start:
        return -EFAULT
    run.write(start + offset, run.read(data, size))
    return 0


@implements(prototype(39, "skb_pull_data", "ctx any", "int", "changes", "lwt tc sk_skb"))
def bpf_skb_pull_data(run: RunContext, ctx: int, size: int) -> int:
    """Return 0: the whole packet lies in one piece; -ENOMEM: it is shorter than *size*."""
    frame, data = _frame(run, ctx)
    return 0 if data + u32(size) <= len(frame) else -ENOMEM


@implements(prototype(34, "get_hash_recalc", "ctx", types="lwt tc"))
def bpf_get_hash_recalc(_run: RunContext, _ctx: int) -> int:
    """Return 0: the packet's flow has no hash."""
    return 0


# -- packets of devices ------------------------------------------------------------------------


def _piece(run: RunContext, ctx: int, offset: int, size: int) -> int:
    """Return where the bytes lie, or a negative errno (kernel: bpf_xdp_pointer)."""
    start, end = run.packet_of(ctx)
    if offset > _U16_MAX or size > _U16_MAX:
        return -EFAULT
    return start + offset if offset + size <= end - start else -EINVAL


@implements(prototype(189, "xdp_load_bytes", "ctx any out size", types="xdp"))
def bpf_xdp_load_bytes(run: RunContext, ctx: int, offset: int, to: int, size: int) -> int:
    """Copy *size* bytes of the packet; -EINVAL: it is shorter; -EFAULT: no packet is so long."""
    at = _piece(run, ctx, u32(offset), u32(size))
    if at < 0:
        return at
    run.write(to, run.read(at, u32(size)))
    return 0


@implements(prototype(190, "xdp_store_bytes", "ctx any mem size", types="xdp"))
def bpf_xdp_store_bytes(run: RunContext, ctx: int, offset: int, data: int, size: int) -> int:
    """Copy *size* bytes into the packet; errnos as of `bpf_xdp_load_bytes`."""
    at = _piece(run, ctx, u32(offset), u32(size))
    if at < 0:
        return at
    run.write(at, run.read(data, u32(size)))
    return 0


@implements(prototype(188, "xdp_get_buff_len", "ctx", types="xdp"))
def bpf_xdp_get_buff_len(run: RunContext, ctx: int) -> int:
    """Return the packet's length."""
    start, end = run.packet_of(ctx)
    return end - start
