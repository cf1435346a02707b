"""Spin locks in map values: taking them, and giving back the one that was taken last.

Rules: Linux 6.18 and 7.3 (process_spin_lock). A lock is told by the map and the id of the pointer
to its value: two lookups of one key give two locks.
"""

from __future__ import annotations

from bpfvm.bits import s64
from bpfvm.errors import InternalError
from bpfvm.proto import Effect
from bpfvm.record import FieldKind
from verifier.env import Env
from verifier.objects import forget_given
from verifier.reasons import Reason, Reject
from verifier.resources import leave_region
from verifier.state import LOCKS, FuncState, Ref, RefKind

__all__ = ["process_lock"]

#: What each effect works on: kind of reference, and whether it takes the lock.
_EFFECTS = {
    Effect.SPIN_LOCK: (RefKind.LOCK, True),
    Effect.SPIN_UNLOCK: (RefKind.LOCK, False),
    Effect.RES_SPIN_LOCK: (RefKind.RES_LOCK, True),
    Effect.RES_SPIN_UNLOCK: (RefKind.RES_LOCK, False),
    Effect.RES_SPIN_LOCK_IRQ: (RefKind.RES_LOCK_IRQ, True),
    Effect.RES_SPIN_UNLOCK_IRQ: (RefKind.RES_LOCK_IRQ, False),
}
_RES_LOCKS = frozenset({RefKind.RES_LOCK, RefKind.RES_LOCK_IRQ})


def process_lock(env: Env, frame: FuncState, regno: int, effect: Effect | None) -> None:
    """Check the pointer to a lock in *regno*, and take or give back the lock."""
    if effect not in _EFFECTS:
        raise InternalError(f"a lock argument, but the effect is {effect}")
    kind, takes = _EFFECTS[effect]
    is_res = kind in _RES_LOCKS
    word = "bpf_res_spin" if is_res else "bpf_spin"
    reg = frame.regs[regno]
    if reg.scalar.mask:
        raise Reject(Reason.LOCK_VARIABLE, reg=regno, lock=word)
    defn = env.facts[reg.arg].defn
    if defn.record is None:
        raise Reject(Reason.LOCK_NO_BTF, map=defn.name, lock=word)
    wanted = FieldKind.RES_SPIN_LOCK if is_res else FieldKind.SPIN_LOCK
    field = next((f for f in defn.record if f.kind is wanted), None)
    if field is None:
        raise Reject(Reason.LOCK_NO_FIELD, map=defn.name, lock=word)
    at = reg.off + s64(reg.scalar.value)
    if at != field.off:
        raise Reject(Reason.LOCK_ELSEWHERE, off=at, lock=word, at=field.off)
    lock = Ref(kind, reg.id, env.insn_idx, reg.arg)
    if takes:
        _take(env, lock)
    else:
        _give_back(env, lock, word)
        forget_given(env)
        leave_region(env, effect)


def _take(env: Env, lock: Ref) -> None:
    cur = env.cur
    if lock.kind is RefKind.LOCK:
        if any(ref.kind is RefKind.LOCK for ref in cur.refs):
            raise Reject(Reason.LOCK_TWO)
    elif any(ref.kind in _RES_LOCKS and _is_same(ref, lock) for ref in cur.refs):
        raise Reject(Reason.LOCK_AGAIN)
    cur.refs = (*cur.refs, lock)


def _is_same(a: Ref, b: Ref) -> bool:
    return a.id == b.id and a.owner == b.owner


def _give_back(env: Env, lock: Ref, word: str) -> None:
    cur = env.cur
    held = [ref for ref in cur.refs if ref.kind in LOCKS]
    if not held:
        raise Reject(Reason.LOCK_NONE, lock=word)
    if not any(ref.kind is lock.kind and _is_same(ref, lock) for ref in held):
        raise Reject(Reason.LOCK_DIFFERENT, lock=word)
    last = held[-1]
    if not _is_same(last, lock):
        raise Reject(Reason.LOCK_ORDER, lock=word)
    if last.kind is not lock.kind:
        raise Reject(Reason.LOCK_DIFFERENT, lock=word)
    cur.refs = tuple(ref for ref in cur.refs if ref is not last)
