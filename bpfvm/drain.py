"""The helper that lets a program take what user space has put into a ring buffer."""

from __future__ import annotations

from errno import EINVAL

from bpfvm.dynptrs import local_dynptr
from bpfvm.errors import RunFault
from bpfvm.maps.user_ringbuf import UserRingbufMap
from bpfvm.memory import RegionKind, RegionSpec
from bpfvm.proto import ArgType, Callback, RetType, helper
from bpfvm.runtime import RunContext

__all__ = ["bpf_user_ringbuf_drain"]

#: kernel: BPF_MAX_USER_RINGBUF_SAMPLES
_MAX_SAMPLES = 128 * 1024
_WAKEUP_FLAGS = 3


@helper(
    209,
    RetType.INTEGER,
    (ArgType.CONST_MAP_PTR, ArgType.FUNC, ArgType.CALLBACK_CTX, ArgType.ANYTHING),
    callback=Callback.SAMPLE,
)
def bpf_user_ringbuf_drain(
    run: RunContext, handle: int, function: int, context: int, flags: int
) -> int:
    """Call *function* with each sample, as a dynptr, until it returns 1; return how many there
    were. A sample is gone after its call. -EINVAL: bad flags."""
    ring = run.map_arg(handle)
    if not isinstance(ring, UserRingbufMap):
        raise RunFault(run.pc, f"map {ring.defn.name} is no user ring buffer")
    if flags & ~_WAKEUP_FLAGS:
        return -EINVAL
    space = run.machine.space
    spec = RegionSpec(16, RegionKind.MEM, writable=True)
    dynptr = space.borrow(spec)
    drained = 0
    try:
        while drained < _MAX_SAMPLES and (sample := ring.peek()) is not None:
            dynptr.view[:] = local_dynptr(*sample)
            drained += 1
            stop = run.call_back(function, dynptr.base, context)
            ring.advance()
            if stop:
                break
    finally:
        space.give_back(spec, dynptr)
    return drained
