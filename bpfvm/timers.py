"""Timers in map values (struct bpf_timer). Nothing runs their callbacks yet: programs may set them
up, start and cancel them."""

from __future__ import annotations

from errno import EBUSY, EINVAL

from bpfvm.bits import u32
from bpfvm.proto import ArgType, Callback, RetType, helper
from bpfvm.runtime import RunContext

__all__ = ["bpf_timer_cancel", "bpf_timer_init", "bpf_timer_set_callback", "bpf_timer_start"]

#: Of the 16 bytes of a timer: not initialised, initialised, with a callback, started.
_NEW, _READY, _SET, _STARTED = range(4)
_SIZE = 16
#: enum clock ids: CLOCK_REALTIME is not among them.
_CLOCKS = (1, 7)  # CLOCK_MONOTONIC, CLOCK_BOOTTIME
#: BPF_F_TIMER_ABS, BPF_F_TIMER_CPU_PIN
_START_FLAGS = 0b11


def _state(run: RunContext, timer: int) -> int:
    return run.read(timer, _SIZE)[0]


def _change(run: RunContext, timer: int, state: int) -> None:
    run.write(timer, bytes([state]))


@helper(
    169,
    RetType.INTEGER,
    (ArgType.TIMER, ArgType.CONST_MAP_PTR, ArgType.ANYTHING),
    gpl_only=True,
)
def bpf_timer_init(run: RunContext, timer: int, handle: int, flags: int) -> int:
    """Initialise the timer, with the clock that *flags* names."""
    if u32(flags) not in (0, *_CLOCKS):
        return -EINVAL
    if _state(run, timer) != _NEW:
        return -EBUSY
    _change(run, timer, _READY)
    return 0


@helper(
    170,
    RetType.INTEGER,
    (ArgType.TIMER, ArgType.FUNC),
    gpl_only=True,
    callback=Callback.TIMER,
)
def bpf_timer_set_callback(run: RunContext, timer: int, function: int) -> int:
    """Say what the timer calls."""
    if _state(run, timer) == _NEW:
        return -EINVAL
    _change(run, timer, _SET)
    return 0


@helper(
    171,
    RetType.INTEGER,
    (ArgType.TIMER, ArgType.ANYTHING, ArgType.ANYTHING),
    gpl_only=True,
)
def bpf_timer_start(run: RunContext, timer: int, nsecs: int, flags: int) -> int:
    """Start the timer, which has a callback."""
    if flags & ~_START_FLAGS or _state(run, timer) not in (_SET, _STARTED):
        return -EINVAL
    _change(run, timer, _STARTED)
    return 0


@helper(172, RetType.INTEGER, (ArgType.TIMER,), gpl_only=True)
def bpf_timer_cancel(run: RunContext, timer: int) -> int:
    """Cancel the timer; say whether it was started."""
    state = _state(run, timer)
    if state == _NEW:
        return -EINVAL
    if state == _STARTED:
        _change(run, timer, _SET)
    return int(state == _STARTED)
