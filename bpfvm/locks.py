"""bpf_spin_lock and bpf_res_spin_lock: locks in map values that runs in other threads respect."""

from __future__ import annotations

from errno import EDEADLK

from bpfvm.errors import RunFault
from bpfvm.proto import ArgType, Effect, KfuncFlags, RetType, helper, kfunc
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_res_spin_lock",
    "bpf_res_spin_lock_irqsave",
    "bpf_res_spin_unlock",
    "bpf_res_spin_unlock_irqrestore",
    "bpf_spin_lock",
    "bpf_spin_unlock",
]

#: How long a bpf_res_spin_lock waits, in seconds (kernel: RES_DEF_TIMEOUT, a quarter of one).
_TIMEOUT_S = 0.25
_LOCK_ARGS = (ArgType.KF_RES_SPIN_LOCK,)
_IRQ_ARGS = (ArgType.KF_RES_SPIN_LOCK, ArgType.KF_IRQ_FLAG)


@helper(93, RetType.VOID, (ArgType.SPIN_LOCK,), effect=Effect.SPIN_LOCK)
def bpf_spin_lock(run: RunContext, lock: int) -> int:
    """Wait for the lock at *lock* and take it."""
    if lock in run.held:
        raise RunFault(run.pc, f"lock at {lock:#x} is held by this run already")
    run.machine.locks.acquire(lock, run)
    run.held.append(lock)
    return 0


@helper(94, RetType.VOID, (ArgType.SPIN_LOCK,), effect=Effect.SPIN_UNLOCK)
def bpf_spin_unlock(run: RunContext, lock: int) -> int:
    """Give the lock at *lock* back."""
    run.unlock(lock)
    return 0


def _take(run: RunContext, lock: int) -> int:
    if lock in run.held:
        error = EDEADLK
    else:
        error = run.machine.locks.acquire(lock, run, timeout_s=_TIMEOUT_S)
    if not error:
        run.held.append(lock)
        return 0
    what = "AA or ABBA deadlock" if error == EDEADLK else "Timeout"
    run.stderr.push(
        f"ERROR: {what} detected for bpf_res_spin_lock\n".encode()
        + run.stack_dump(run.pc, run.callers)
    )
    return -error


@kfunc(RetType.LOCK_ERROR, _LOCK_ARGS, flags=KfuncFlags.SPINLOCK_SAFE, effect=Effect.RES_SPIN_LOCK)
def bpf_res_spin_lock(run: RunContext, lock: int) -> int:
    """Wait for the lock at *lock* and take it; -EDEADLK, or -ETIMEDOUT after a quarter second."""
    return _take(run, lock)


@kfunc(RetType.VOID, _LOCK_ARGS, flags=KfuncFlags.SPINLOCK_SAFE, effect=Effect.RES_SPIN_UNLOCK)
def bpf_res_spin_unlock(run: RunContext, lock: int) -> int:
    """Give the lock at *lock* back."""
    run.unlock(lock)
    return 0


@kfunc(
    RetType.LOCK_ERROR, _IRQ_ARGS, flags=KfuncFlags.SPINLOCK_SAFE, effect=Effect.RES_SPIN_LOCK_IRQ
)
def bpf_res_spin_lock_irqsave(run: RunContext, lock: int, flags: int) -> int:
    """The same with interrupts off, whose state is kept at *flags*; an error leaves those."""
    error = _take(run, lock)
    if not error:
        run.write(flags, bytes(8))
        run.irq_depth += 1
    return error


@kfunc(RetType.VOID, _IRQ_ARGS, flags=KfuncFlags.SPINLOCK_SAFE, effect=Effect.RES_SPIN_UNLOCK_IRQ)
def bpf_res_spin_unlock_irqrestore(run: RunContext, lock: int, flags: int) -> int:
    """Give the lock back, and interrupts what *flags* keeps."""
    run.read(flags, 8)
    run.unlock(lock)
    run.irq_depth = max(0, run.irq_depth - 1)
    return 0
