"""Timers, work queues and task work in map values: what calls a program's function later.

Only what user space and programs do with them is here; `bpfvm.vm.Object.advance` lets time pass.
The first byte of a field tells that it was initialised: it goes with the value that it lies in,
so what was asked for in an element that is gone does not run (kernel: bpf_obj_free_fields).
"""

from __future__ import annotations

from errno import EINVAL, ENOENT

from bpfvm.bits import u32, u64
from bpfvm.laters import Later
from bpfvm.memory import RegionKind, RegionSpec
from bpfvm.proto import ArgType, Callback, RetType, helper, kfunc
from bpfvm.record import FieldKind
from bpfvm.runtime import Machine, RunContext

__all__ = [
    "bpf_timer_cancel",
    "bpf_timer_cancel_async",
    "bpf_timer_init",
    "bpf_timer_set_callback",
    "bpf_timer_start",
    "bpf_wq_init",
    "bpf_wq_set_callback",
    "bpf_wq_set_callback_impl",
    "bpf_wq_start",
    "fire",
]

_NEW, _READY = b"\0", b"\1"
#: CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME: one and the same here.
_CLOCKS = (0, 1, 7)
_TIMER_ABS, _START_FLAGS = 0b01, 0b11  # BPF_F_TIMER_ABS, BPF_F_TIMER_CPU_PIN


def _init(run: RunContext, kind: FieldKind, addr: int, handle: int, *, sleepable: bool) -> int:
    """Kernel: __bpf_async_init."""
    is_new = run.read(addr, 1) == _NEW
    off = next((f.off for f in run.map_arg(handle).defn.record or () if f.kind is kind), 0)
    field = Later(kind.label, addr, addr - off, handle, sleepable)
    result = run.machine.laters.init(field, is_new=is_new)
    if not result:
        run.write(addr, _READY)
    return result


def _field(run: RunContext, addr: int) -> Later | None:
    return run.machine.laters.find(addr) if run.read(addr, 1) != _NEW else None


def _set_callback(run: RunContext, addr: int, function: int) -> int:
    """Kernel: __bpf_async_set_callback."""
    field = _field(run, addr)
    if field is None or run.later is None:
        return -EINVAL
    field.start = run.later(function)
    return 0


@helper(
    169,
    RetType.INTEGER,
    (ArgType.TIMER, ArgType.CONST_MAP_PTR, ArgType.ANYTHING),
    gpl_only=True,
)
def bpf_timer_init(run: RunContext, timer: int, handle: int, flags: int) -> int:
    """Initialise the timer, with the clock that *flags* names."""
    if flags not in _CLOCKS:
        return -EINVAL
    return _init(run, FieldKind.TIMER, timer, handle, sleepable=False)


@helper(
    170,
    RetType.INTEGER,
    (ArgType.TIMER, ArgType.FUNC),
    gpl_only=True,
    callback=Callback.TIMER,
)
def bpf_timer_set_callback(run: RunContext, timer: int, function: int) -> int:
    """Say what the timer calls."""
    return _set_callback(run, timer, function)


@helper(
    171,
    RetType.INTEGER,
    (ArgType.TIMER, ArgType.ANYTHING, ArgType.ANYTHING),
    gpl_only=True,
)
def bpf_timer_start(run: RunContext, timer: int, nsecs: int, flags: int) -> int:
    """Start the timer, which has a callback: in *nsecs*, or at that time with BPF_F_TIMER_ABS."""
    field = _field(run, timer)
    if flags & ~_START_FLAGS or field is None:
        return -EINVAL
    laters = run.machine.laters
    laters.now = max(laters.now, run.clock())
    return laters.arm(field, u64(nsecs) + (0 if flags & _TIMER_ABS else laters.now))


@helper(172, RetType.INTEGER, (ArgType.TIMER,), gpl_only=True)
def bpf_timer_cancel(run: RunContext, timer: int) -> int:
    """Cancel the timer; say whether it was started."""
    field = _field(run, timer)
    return -EINVAL if field is None else run.machine.laters.cancel(field)


@kfunc(RetType.INT32, (ArgType.KF_TIMER,))
def bpf_timer_cancel_async(run: RunContext, timer: int) -> int:
    """The same, without waiting for a callback that runs."""
    field = _field(run, timer)
    if field is None:
        return -ENOENT
    was_due, field.due = field.due is not None, None
    return int(was_due)


# -- work queues ---------------------------------------------------------------------------------


@kfunc(RetType.INT32, (ArgType.KF_WORKQUEUE, ArgType.KF_MAP, ArgType.SCALAR))
def bpf_wq_init(run: RunContext, work: int, handle: int, flags: int) -> int:
    """Initialise the work queue."""
    if u32(flags):
        return -EINVAL
    return _init(run, FieldKind.WORKQUEUE, work, handle, sleepable=True)


@kfunc(RetType.INT32, (ArgType.KF_WORKQUEUE, ArgType.SCALAR))
def bpf_wq_start(run: RunContext, work: int, flags: int) -> int:
    """Let its callback run as soon as may be."""
    field = _field(run, work)
    if u32(flags) or field is None:
        return -EINVAL
    laters = run.machine.laters
    if field.due is not None:
        return 0  # it waits already (kernel: schedule_work)
    laters.now = max(laters.now, run.clock())
    return laters.arm(field, laters.now)


@kfunc(
    RetType.INT32,
    (ArgType.KF_WORKQUEUE, ArgType.KF_FUNC, ArgType.SCALAR, ArgType.KF_IGNORE),
    callback=Callback.WORKQUEUE,
)
def bpf_wq_set_callback_impl(
    run: RunContext, work: int, function: int, flags: int, _aux: int
) -> int:
    """Say what the work queue calls."""
    return -EINVAL if u32(flags) else _set_callback(run, work, function)


@kfunc(
    RetType.INT32,
    (ArgType.KF_WORKQUEUE, ArgType.KF_FUNC, ArgType.SCALAR),
    callback=Callback.WORKQUEUE,
)
def bpf_wq_set_callback(run: RunContext, work: int, function: int, flags: int) -> int:
    """Say what the work queue calls."""
    return -EINVAL if u32(flags) else _set_callback(run, work, function)


# -- running what is due -------------------------------------------------------------------------


def fire(machine: Machine, field: Later) -> None:
    """Run the callback of *field*, which is due, with its map, key and value, unless its element
    is gone (kernel: bpf_timer_cb, bpf_wq_work)."""
    field.due = None
    owner = machine.map_of(field.handle)
    if owner is None or field.start is None or machine.space.read(field.addr, 1) in (None, _NEW):
        return
    key = next((k for k in owner.keys_in_order() if owner.lookup_elem(k) == field.value), None)
    if key is None:
        return
    spec = RegionSpec(owner.defn.key_size, RegionKind.MEM, writable=False)
    region = machine.space.borrow(spec)
    region.view[:] = key
    field.runs = True
    try:
        field.start(field, (field.handle, region.base, field.value))
    finally:
        field.runs = False
        machine.space.give_back(spec, region)
