"""Kfuncs that open and close regions: RCU read sections, preemption, IRQs.

Nothing here is preempted or freed early, so a run only counts the regions it is in: a verified
program leaves all of them before it ends.
"""

from __future__ import annotations

from bpfvm.errors import RunFault
from bpfvm.proto import ArgType, Effect, RetType, kfunc
from bpfvm.runtime import RunContext

__all__ = [
    "bpf_local_irq_restore",
    "bpf_local_irq_save",
    "bpf_preempt_disable",
    "bpf_preempt_enable",
    "bpf_rcu_read_lock",
    "bpf_rcu_read_unlock",
]

#: What a flag word keeps while IRQs are off: the interrupt flag of x86-64.
_IRQS_ON = 0x200


@kfunc(RetType.VOID, effect=Effect.RCU_LOCK)
def bpf_rcu_read_lock(run: RunContext) -> int:
    """Enter an RCU read section."""
    run.rcu_depth += 1
    return 0


@kfunc(RetType.VOID, effect=Effect.RCU_UNLOCK)
def bpf_rcu_read_unlock(run: RunContext) -> int:
    """Leave the innermost RCU read section."""
    if not run.rcu_depth:
        raise RunFault(run.pc, "unmatched bpf_rcu_read_unlock")
    run.rcu_depth -= 1
    return 0


@kfunc(RetType.VOID, effect=Effect.PREEMPT_DISABLE)
def bpf_preempt_disable(run: RunContext) -> int:
    """Keep the CPU until bpf_preempt_enable."""
    run.preempt_depth += 1
    return 0


@kfunc(RetType.VOID, effect=Effect.PREEMPT_ENABLE)
def bpf_preempt_enable(run: RunContext) -> int:
    """Undo one bpf_preempt_disable."""
    if not run.preempt_depth:
        raise RunFault(run.pc, "unmatched bpf_preempt_enable")
    run.preempt_depth -= 1
    return 0


@kfunc(RetType.VOID, (ArgType.KF_IRQ_FLAG,), effect=Effect.IRQ_SAVE)
def bpf_local_irq_save(run: RunContext, flags: int) -> int:
    """Turn interrupts off; what they were is kept in the 8 bytes at *flags*."""
    was = 0 if run.irq_depth else _IRQS_ON
    run.write(flags, was.to_bytes(8, "little"))
    run.irq_depth += 1
    return 0


@kfunc(RetType.VOID, (ArgType.KF_IRQ_FLAG,), effect=Effect.IRQ_RESTORE)
def bpf_local_irq_restore(run: RunContext, flags: int) -> int:
    """Set interrupts back to what *flags* keeps."""
    run.read(flags, 8)
    if not run.irq_depth:
        raise RunFault(run.pc, "unmatched bpf_local_irq_restore")
    run.irq_depth -= 1
    return 0
