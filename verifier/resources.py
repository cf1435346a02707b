"""What a program holds and must give back: references, locks, RCU, preemption and IRQ regions.

Rules: Linux 6.18 and 7.3 (acquire_reference, release_reference, check_resource_leak).
"""

from __future__ import annotations

from verifier.env import Env
from verifier.state import LOCKS, RefKind

__all__ = ["sleep_context"]


def sleep_context(env: Env) -> str:
    """Return why the current context can't sleep, in the kernel's words, or "" (kernel:
    in_sleepable_context, non_sleepable_context_description)."""
    cur = env.cur
    if cur.rcu_depth:
        return "rcu_read_lock region"
    if cur.preempt_depth:
        return "non-preemptible region"
    kinds = {ref.kind for ref in cur.refs}
    if RefKind.IRQ in kinds:
        return "IRQ-disabled region"
    if kinds & LOCKS:
        return "lock region"
    return "" if cur.sleepable else "non-sleepable prog"
