"""Dynptrs: helpers and kfuncs over memory whose size is known at run time.

A dynptr is the kernel's 16 bytes in the program's stack: an address, a word with size, kind and
whether it is read-only, and an offset. Where it stands for a packet the address is the context's,
so that the packet may move.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from errno import E2BIG, EINVAL, ERANGE

from bpfvm.bits import u32
from bpfvm.context import PROG_TYPES
from bpfvm.errors import RunFault
from bpfvm.proto import ArgType, DynptrType, RetType, helper, kfunc
from bpfvm.ringbuf import commit, ring_of
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_dynptr_adjust",
    "bpf_dynptr_clone",
    "bpf_dynptr_copy",
    "bpf_dynptr_data",
    "bpf_dynptr_from_mem",
    "bpf_dynptr_from_skb",
    "bpf_dynptr_from_xdp",
    "bpf_dynptr_is_null",
    "bpf_dynptr_is_rdonly",
    "bpf_dynptr_memset",
    "bpf_dynptr_read",
    "bpf_dynptr_size",
    "bpf_dynptr_slice",
    "bpf_dynptr_slice_rdwr",
    "bpf_dynptr_write",
    "bpf_ringbuf_discard_dynptr",
    "bpf_ringbuf_reserve_dynptr",
    "bpf_ringbuf_submit_dynptr",
    "local_dynptr",
]

_LAYOUT = struct.Struct("<QII")
#: kernel: DYNPTR_MAX_SIZE, DYNPTR_TYPE_SHIFT, DYNPTR_RDONLY_BIT
_MAX_SIZE = (1 << 24) - 1
_KIND_SHIFT = 28
_RDONLY = 1 << 31
_KINDS = {
    DynptrType.LOCAL: 1,
    DynptrType.RINGBUF: 2,
    DynptrType.SKB: 3,
    DynptrType.XDP: 4,
}
_BY_NUMBER = {number: kind for kind, number in _KINDS.items()}
_NULL = bytes(_LAYOUT.size)
_PACKETS = (DynptrType.SKB, DynptrType.XDP)


@dataclass(slots=True)
class _View:
    """A dynptr as it was read from memory; *addr* 0 is the null dynptr."""

    kind: DynptrType
    addr: int
    offset: int
    size: int
    rdonly: bool

    def pack(self) -> bytes:
        word = self.size | _KINDS[self.kind] << _KIND_SHIFT | (_RDONLY if self.rdonly else 0)
        return _LAYOUT.pack(self.addr, word, self.offset)


def local_dynptr(addr: int, size: int) -> bytes:
    """Return a dynptr that stands for *size* bytes at *addr*."""
    return _View(DynptrType.LOCAL, addr, 0, size, False).pack()


def _view(run: RunContext, ptr: int) -> _View:
    addr, word, offset = _LAYOUT.unpack(run.read(ptr, _LAYOUT.size))
    kind = _BY_NUMBER.get(word >> _KIND_SHIFT & 7)
    if kind is None:
        if addr:
            raise RunFault(run.pc, f"{ptr:#x} holds no dynptr")
        kind = DynptrType.LOCAL
    return _View(kind, addr, offset, word & _MAX_SIZE, bool(word & _RDONLY))


def _address(run: RunContext, view: _View) -> int:
    """Return where the memory of *view* begins."""
    base = run.packet_of(view.addr)[0] if view.kind in _PACKETS else view.addr
    return base + view.offset


def _bad_range(view: _View, offset: int, size: int) -> bool:
    """Kernel: bpf_dynptr_check_off_len."""
    return size > view.size or offset > view.size - size


# -- helpers -----------------------------------------------------------------------------------


@helper(
    197,
    RetType.INTEGER,
    (
        ArgType.UNINIT_MEM,
        ArgType.CONST_SIZE_OR_ZERO,
        ArgType.ANYTHING,
        ArgType.DYNPTR_UNINIT,
    ),
    dynptr=DynptrType.LOCAL,
)
def bpf_dynptr_from_mem(run: RunContext, data: int, size: int, flags: int, ptr: int) -> int:
    """Make *ptr* stand for the *size* bytes at *data*; -EINVAL: flags; -E2BIG: too large."""
    size = u32(size)
    error = E2BIG if size > _MAX_SIZE else EINVAL if flags else 0
    made = _View(DynptrType.LOCAL, data, 0, size, False)
    run.write(ptr, _NULL if error else made.pack())
    return -error


@helper(
    198,
    RetType.INTEGER,
    (ArgType.CONST_MAP_PTR, ArgType.ANYTHING, ArgType.ANYTHING, ArgType.DYNPTR_UNINIT),
    dynptr=DynptrType.RINGBUF,
)
def bpf_ringbuf_reserve_dynptr(
    run: RunContext, handle: int, size: int, flags: int, ptr: int
) -> int:
    """Make *ptr* stand for a new record of *size* bytes; without one it is null, and must be
    released all the same."""
    ring, size = ring_of(run, handle), u32(size)
    run.write(ptr, _NULL)
    if flags:
        return -EINVAL
    if size > _MAX_SIZE:
        return -E2BIG
    sample = ring.reserve(size)
    if not sample:
        return -EINVAL
    run.write(ptr, _View(DynptrType.RINGBUF, sample, 0, size, False).pack())
    return 0


def _end(run: RunContext, ptr: int, *, discard: bool) -> int:
    view = _view(run, ptr)
    if view.addr:
        commit(run, view.addr, discard=discard)
    run.write(ptr, _NULL)
    return 0


@helper(
    199,
    RetType.VOID,
    (ArgType.DYNPTR, ArgType.ANYTHING),
    releases=1,
    dynptr=DynptrType.RINGBUF,
)
def bpf_ringbuf_submit_dynptr(run: RunContext, ptr: int, flags: int) -> int:
    """Hand the record of *ptr* to user space."""
    return _end(run, ptr, discard=False)


@helper(
    200,
    RetType.VOID,
    (ArgType.DYNPTR, ArgType.ANYTHING),
    releases=1,
    dynptr=DynptrType.RINGBUF,
)
def bpf_ringbuf_discard_dynptr(run: RunContext, ptr: int, flags: int) -> int:
    """Give the record of *ptr* up."""
    return _end(run, ptr, discard=True)


@helper(
    201,
    RetType.INTEGER,
    (
        ArgType.UNINIT_MEM,
        ArgType.CONST_SIZE_OR_ZERO,
        ArgType.CONST_DYNPTR,
        ArgType.ANYTHING,
        ArgType.ANYTHING,
    ),
)
def bpf_dynptr_read(run: RunContext, dst: int, size: int, src: int, offset: int, flags: int) -> int:
    """Copy *size* bytes from *offset* on out of *src*; -EINVAL: null or flags; -E2BIG."""
    view, size, offset = _view(run, src), u32(size), u32(offset)
    if not view.addr or flags:
        return -EINVAL
    if _bad_range(view, offset, size):
        return -E2BIG
    if size:
        run.write(dst, run.read(_address(run, view) + offset, size))
    return 0


@helper(
    202,
    RetType.INTEGER,
    (
        ArgType.CONST_DYNPTR,
        ArgType.ANYTHING,
        ArgType.MEM_RDONLY,
        ArgType.CONST_SIZE_OR_ZERO,
        ArgType.ANYTHING,
    ),
    dynptr_may_move_packet=True,
)
def bpf_dynptr_write(
    run: RunContext, dst: int, offset: int, src: int, size: int, flags: int
) -> int:
    """Copy *size* bytes into *dst* from *offset* on; -EINVAL: null, read-only or flags; -E2BIG."""
    view, size, offset = _view(run, dst), u32(size), u32(offset)
    if not view.addr or view.rdonly:
        return -EINVAL
    if _bad_range(view, offset, size):
        return -E2BIG
    if flags and view.kind is not DynptrType.SKB:
        return -EINVAL
    if size:
        run.write(_address(run, view) + offset, run.read(src, size))
    return 0


@helper(
    203,
    RetType.DYNPTR_MEM_OR_NULL,
    (ArgType.CONST_DYNPTR, ArgType.ANYTHING, ArgType.ALLOC_SIZE_OR_ZERO),
)
def bpf_dynptr_data(run: RunContext, ptr: int, offset: int, size: int) -> int:
    """Return the address of *size* bytes of *ptr* from *offset* on, or 0."""
    view, size, offset = _view(run, ptr), u32(size), u32(offset)
    refused = not view.addr or view.rdonly or view.kind in _PACKETS
    if refused or _bad_range(view, offset, size):
        return 0
    return _address(run, view) + offset


# -- kfuncs ------------------------------------------------------------------------------------


def _from_packet(run: RunContext, kind: DynptrType, ctx: int, flags: int, ptr: int) -> int:
    run.write(ptr, _NULL)
    if flags:
        return -EINVAL
    start, end = run.packet_of(ctx)
    rdonly = not PROG_TYPES[run.program.prog_type].packet_write
    run.write(ptr, _View(kind, ctx, 0, end - start, rdonly).pack())
    return 0


_FROM_ARGS = (ArgType.KF_CTX, ArgType.SCALAR, ArgType.KF_DYNPTR_UNINIT)
_SKB_TYPES = frozenset(
    {
        *("sched_cls", "sched_act", "sk_skb", "socket_filter", "cgroup_skb"),
        *("lwt_in", "lwt_out", "lwt_xmit", "lwt_seg6local", "netfilter"),
    }
)


@kfunc(RetType.INT32, _FROM_ARGS, prog_types=_SKB_TYPES, dynptr=DynptrType.SKB)
def bpf_dynptr_from_skb(run: RunContext, ctx: int, flags: int, ptr: int) -> int:
    """Make *ptr* stand for the packet; -EINVAL: flags."""
    return _from_packet(run, DynptrType.SKB, ctx, flags, ptr)


@kfunc(RetType.INT32, _FROM_ARGS, prog_types=frozenset({"xdp"}), dynptr=DynptrType.XDP)
def bpf_dynptr_from_xdp(run: RunContext, ctx: int, flags: int, ptr: int) -> int:
    """Make *ptr* stand for the packet; -EINVAL: flags."""
    return _from_packet(run, DynptrType.XDP, ctx, flags, ptr)


@kfunc(RetType.INT32, (ArgType.KF_DYNPTR, ArgType.SCALAR, ArgType.SCALAR))
def bpf_dynptr_adjust(run: RunContext, ptr: int, start: int, end: int) -> int:
    """Narrow *ptr* to its bytes from *start* to *end*; -EINVAL: null or backwards; -ERANGE."""
    view, start, end = _view(run, ptr), u32(start), u32(end)
    if not view.addr or start > end:
        return -EINVAL
    if start > view.size or end > view.size:
        return -ERANGE
    view.offset, view.size = view.offset + start, end - start
    run.write(ptr, view.pack())
    return 0


@kfunc(RetType.INT32, (ArgType.KF_DYNPTR,))
def bpf_dynptr_is_null(run: RunContext, ptr: int) -> int:
    """Say whether *ptr* stands for nothing."""
    return int(not _view(run, ptr).addr)


@kfunc(RetType.INT32, (ArgType.KF_DYNPTR,))
def bpf_dynptr_is_rdonly(run: RunContext, ptr: int) -> int:
    """Say whether what *ptr* stands for may only be read."""
    view = _view(run, ptr)
    return int(bool(view.addr) and view.rdonly)


@kfunc(RetType.INT32, (ArgType.KF_DYNPTR,))
def bpf_dynptr_size(run: RunContext, ptr: int) -> int:
    """Return how many bytes *ptr* stands for; -EINVAL: null."""
    view = _view(run, ptr)
    return view.size if view.addr else -EINVAL


@kfunc(RetType.INT32, (ArgType.KF_DYNPTR, ArgType.KF_DYNPTR_UNINIT))
def bpf_dynptr_clone(run: RunContext, ptr: int, clone: int) -> int:
    """Make *clone* stand for what *ptr* does; -EINVAL: null."""
    view = _view(run, ptr)
    run.write(clone, view.pack() if view.addr else _NULL)
    return 0 if view.addr else -EINVAL


def _slice(run: RunContext, view: _View, offset: int, size: int) -> int:
    if not view.addr or _bad_range(view, offset, size):
        return 0
    return _address(run, view) + offset


_SLICE_ARGS = (
    ArgType.KF_DYNPTR,
    ArgType.SCALAR,
    ArgType.KF_MEM_OR_NULL,
    ArgType.KF_CONST_MEM_SIZE,
)


@kfunc(RetType.RDONLY_SLICE_OR_NULL, _SLICE_ARGS)
def bpf_dynptr_slice(run: RunContext, ptr: int, offset: int, buffer: int, size: int) -> int:
    """Return the address of *size* bytes of *ptr* from *offset* on to be read, or 0. The buffer
    is for packets in pieces, which there are none of."""
    return _slice(run, _view(run, ptr), u32(offset), u32(size))


@kfunc(RetType.SLICE_OR_NULL, _SLICE_ARGS)
def bpf_dynptr_slice_rdwr(run: RunContext, ptr: int, offset: int, buffer: int, size: int) -> int:
    """Return the address of *size* bytes of *ptr* from *offset* on, or 0."""
    view = _view(run, ptr)
    return 0 if view.rdonly else _slice(run, view, u32(offset), u32(size))


@kfunc(
    RetType.INT32,
    (ArgType.KF_DYNPTR, ArgType.SCALAR, ArgType.KF_DYNPTR, ArgType.SCALAR, ArgType.SCALAR),
)
def bpf_dynptr_copy(
    run: RunContext, dst: int, dst_off: int, src: int, src_off: int, size: int
) -> int:
    """Copy *size* bytes from *src* to *dst*; -EINVAL: null or read-only; -E2BIG."""
    to, of = _view(run, dst), _view(run, src)
    to_off, of_off, size = u32(dst_off), u32(src_off), u32(size)
    if not to.addr or not of.addr or to.rdonly:
        return -EINVAL
    if _bad_range(to, to_off, size) or _bad_range(of, of_off, size):
        return -E2BIG
    if size:
        run.write(_address(run, to) + to_off, run.read(_address(run, of) + of_off, size))
    return 0


@kfunc(RetType.INT32, (ArgType.KF_DYNPTR, ArgType.SCALAR, ArgType.SCALAR, ArgType.SCALAR))
def bpf_dynptr_memset(run: RunContext, ptr: int, offset: int, size: int, value: int) -> int:
    """Set *size* bytes of *ptr* from *offset* on to *value*; -EINVAL: null or read-only; -E2BIG."""
    view, offset, size = _view(run, ptr), u32(offset), u32(size)
    if not view.addr or view.rdonly:
        return -EINVAL
    if _bad_range(view, offset, size):
        return -E2BIG
    if size:
        run.write(_address(run, view) + offset, bytes([value & 0xFF]) * size)
    return 0
