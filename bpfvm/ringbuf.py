"""Helpers of ring buffers (kernel/bpf/ringbuf.c)."""

from __future__ import annotations

from errno import EINVAL

from bpfvm.errors import RunFault
from bpfvm.maps.ringbuf import RingbufMap
from bpfvm.proto import ArgType, RetType, helper
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_ringbuf_discard",
    "bpf_ringbuf_output",
    "bpf_ringbuf_query",
    "bpf_ringbuf_reserve",
    "bpf_ringbuf_submit",
    "commit",
    "ring_of",
]

#: BPF_RB_NO_WAKEUP and BPF_RB_FORCE_WAKEUP: nobody sleeps here, so they change nothing.
_WAKEUP_FLAGS = 3


def ring_of(run: RunContext, handle: int) -> RingbufMap:
    """Return the ring buffer of a helper.

    Raises:
        RunFault: it is none: what the verifier refuses.
    """
    found = run.map_arg(handle)
    if not isinstance(found, RingbufMap):
        raise RunFault(run.pc, f"map {found.defn.name} is no ring buffer")
    return found


def commit(run: RunContext, sample: int, *, discard: bool) -> None:
    """End the record at *sample*, whichever ring it lies in.

    Raises:
        RunFault: none is being filled there: what the verifier refuses.
    """
    rings = (m for m in run.machine.maps if isinstance(m, RingbufMap))
    if not any(ring.commit(sample, discard=discard) for ring in rings):
        raise RunFault(run.pc, f"{sample:#x} is no reserved ring buffer record")


@helper(
    130,
    RetType.INTEGER,
    (
        ArgType.CONST_MAP_PTR,
        ArgType.MEM_RDONLY,
        ArgType.CONST_SIZE_OR_ZERO,
        ArgType.ANYTHING,
    ),
)
def bpf_ringbuf_output(run: RunContext, handle: int, data: int, size: int, flags: int) -> int:
    """Submit a copy of the *size* bytes at *data*; -EINVAL: bad flags; -EAGAIN: no room."""
    ring = ring_of(run, handle)
    if flags & ~_WAKEUP_FLAGS:
        return -EINVAL
    return ring.output(run.read(data, size) if size else b"")


@helper(
    131,
    RetType.RINGBUF_MEM_OR_NULL,
    (ArgType.CONST_MAP_PTR, ArgType.ALLOC_SIZE_OR_ZERO, ArgType.ANYTHING),
    acquires=True,
)
def bpf_ringbuf_reserve(run: RunContext, handle: int, size: int, flags: int) -> int:
    """Return the address of a new record of *size* bytes; 0: no room, or *flags* are not 0."""
    ring = ring_of(run, handle)
    return 0 if flags else ring.reserve(size)


@helper(132, RetType.VOID, (ArgType.RINGBUF_MEM, ArgType.ANYTHING), releases=1)
def bpf_ringbuf_submit(run: RunContext, sample: int, flags: int) -> int:
    """Hand the record at *sample* to user space."""
    commit(run, sample, discard=False)
    return 0


@helper(133, RetType.VOID, (ArgType.RINGBUF_MEM, ArgType.ANYTHING), releases=1)
def bpf_ringbuf_discard(run: RunContext, sample: int, flags: int) -> int:
    """Give the record at *sample* up."""
    commit(run, sample, discard=True)
    return 0


@helper(134, RetType.INTEGER, (ArgType.CONST_MAP_PTR, ArgType.ANYTHING))
def bpf_ringbuf_query(run: RunContext, handle: int, flags: int) -> int:
    """Return what *flags* asks: 0 bytes not consumed, 1 size, 2 and 3 positions of consumer and
    producer; 0 for anything else."""
    return ring_of(run, handle).query(flags)
