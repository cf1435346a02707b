"""What a program holds and must give back: references, locks, RCU, preemption and IRQ regions.

Rules: Linux 6.18 and 7.3 (acquire_reference, release_reference, check_resource_leak).
"""

from __future__ import annotations

from bpfvm.proto import Effect, FuncProto
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.state import (
    LOCKS,
    Mod,
    Ref,
    RefKind,
    RegState,
    VerifierState,
    replace_regs,
)

__all__ = [
    "acquire",
    "change_region",
    "check_resource_leak",
    "drop",
    "holds_lock",
    "leave_region",
    "release",
    "sleep_context",
]


# -- references --------------------------------------------------------------------------------


def acquire(env: Env, kind: RefKind = RefKind.POINTER) -> int:
    """Note that the current insn acquires something; return the reference's number (kernel:
    acquire_reference)."""
    id_ = env.new_id()
    env.cur.refs = (*env.cur.refs, Ref(kind, id_, env.insn_idx))
    return id_


def drop(state: VerifierState, id_: int) -> bool:
    """Forget the pointer reference *id_*, whatever still holds it; say whether it was there
    (kernel: release_reference_nomark)."""
    kept = tuple(r for r in state.refs if r.kind is not RefKind.POINTER or r.id != id_)
    found = len(kept) < len(state.refs)
    state.refs = kept
    return found


def release(env: Env, id_: int) -> bool:
    """End the pointer reference *id_*: what holds it is no pointer from now on (kernel:
    release_reference). Say whether there was one."""
    if not drop(env.cur, id_):
        return False

    def change(reg: RegState) -> RegState | None:
        return env.ended_reg if reg.ref == id_ else None

    replace_regs(env.cur, change)
    return True


def check_resource_leak(env: Env, prefix: str, *, is_throw: bool = False) -> None:
    """Refuse to end the path while something is held (kernel: check_resource_leak). *prefix* says
    how it would end, such as "tail_call"; *is_throw*: references of all frames count.

    Raises:
        Reject: in the kernel's order: locks, references, IRQ, RCU, preemption.
    """
    cur = env.cur
    if cur.refs:
        kinds = {ref.kind for ref in cur.refs}
        if kinds & LOCKS:
            raise Reject(Reason.IN_LOCK, prefix=prefix)
        if RefKind.POINTER in kinds and (is_throw or len(cur.frames) == 1):
            leaks = [
                f"Unreleased reference id={ref.id} alloc_insn={ref.insn}"
                for ref in cur.refs
                if ref.kind is RefKind.POINTER
            ]
            raise Reject(Reason.UNRELEASED, before=leaks, prefix=prefix)
        if RefKind.IRQ in kinds:
            raise Reject(Reason.IN_IRQ, prefix=prefix)
    if cur.rcu_depth:
        raise Reject(Reason.IN_RCU, prefix=prefix)
    if cur.preempt_depth:
        raise Reject(Reason.IN_PREEMPT, prefix=prefix)


# -- regions -----------------------------------------------------------------------------------


def holds_lock(env: Env) -> bool:
    """Say whether a spin lock is held."""
    return any(ref.kind in LOCKS for ref in env.cur.refs)


def sleep_context(env: Env) -> str:
    """Return why the current context can't sleep, in the kernel's words, or "" (kernel:
    in_sleepable_context, non_sleepable_context_description)."""
    return _region(env) or ("" if env.cur.sleepable else "non-sleepable prog")


def _region(env: Env) -> str:
    cur = env.cur
    if cur.rcu_depth:
        return "rcu_read_lock region"
    if cur.preempt_depth:
        return "non-preemptible region"
    if cur.refs:
        kinds = {ref.kind for ref in cur.refs}
        if RefKind.IRQ in kinds:
            return "IRQ-disabled region"
        if kinds & LOCKS:
            return "lock region"
    return ""


def change_region(env: Env, proto: FuncProto) -> None:
    """Enter or leave the RCU or preemption region that *proto* is about (kernel:
    check_kfunc_call). IRQ regions live in their flags: `verifier.irqflags`."""
    cur = env.cur
    match proto.effect:
        case Effect.RCU_LOCK:
            if cur.rcu_depth and not env.rules.rcu_nests:
                raise Reject(Reason.RCU_NESTED, name=proto.name)
            cur.rcu_depth += 1
        case Effect.RCU_UNLOCK:
            if not cur.rcu_depth:
                raise Reject(Reason.RCU_UNMATCHED, name=proto.name)
            cur.rcu_depth -= 1
        case Effect.PREEMPT_DISABLE:
            cur.preempt_depth += 1
        case Effect.PREEMPT_ENABLE:
            if not cur.preempt_depth:
                raise Reject(Reason.PREEMPT_UNMATCHED, name=proto.name)
            cur.preempt_depth -= 1
        case _:
            pass
    leave_region(env, proto.effect)


def leave_region(env: Env, effect: Effect | None) -> None:
    """Make pointers that RCU protected untrusted where nothing protects them any more: before 7.3
    at each bpf_rcu_read_unlock, since then when the last region of any kind is left."""
    protected = bool(_region(env)) if env.rules.rcu_nests else effect is not Effect.RCU_UNLOCK
    if not protected and effect in _LEAVING:
        replace_regs(env.cur, _untrusted)


_LEAVING = frozenset(
    {
        Effect.RCU_UNLOCK,
        Effect.PREEMPT_ENABLE,
        Effect.IRQ_RESTORE,
        Effect.SPIN_UNLOCK,
        Effect.RES_SPIN_UNLOCK,
        Effect.RES_SPIN_UNLOCK_IRQ,
    }
)


def _untrusted(reg: RegState) -> RegState | None:
    if not reg.type.mods & Mod.RCU:
        return None
    return reg._replace(type=reg.type.without(Mod.RCU | Mod.MAYBE_NULL).having(Mod.UNTRUSTED))
