"""Ending the walk of loops whose turns differ: forget what changes from turn to turn.

Forgetting is sound (the unknown scalar holds every value); scalars that something relied on are
kept, since the loop's checks need them.
"""

from __future__ import annotations

from verifier.env import Env
from verifier.state import UNKNOWN_REG, RegState, RegType, VerifierState

__all__ = ["find_previous", "widen"]

_SCALAR = RegType.SCALAR


def find_previous(env: Env, idx: int) -> VerifierState | None:
    """Return the last state saved at slot *idx* on this very path, before the newest one
    (kernel: find_prev_entry)."""
    cur = env.cur
    state = cur.parent
    if state is not None and state.insn_idx == idx:
        state = state.parent
    callsites = cur.callsites
    while state is not None:
        if state.insn_idx == idx and state.callsites == callsites:
            return state
        state = state.parent
    return None


def widen(old: VerifierState, new: VerifierState) -> None:
    """Forget scalars of *new* that differ from *old*'s and are not precise there."""
    for before, after in zip(old.frames, new.frames, strict=True):
        for regno, reg in enumerate(after.regs):
            if _differs(before.regs[regno], reg):
                after.regs[regno] = UNKNOWN_REG
        for spi, slot in after.stack.items():
            old_slot = before.stack.get(spi)
            if slot.spilled is None or old_slot is None or old_slot.spilled is None:
                continue
            if _differs(old_slot.spilled, slot.spilled):
                after.stack[spi] = slot._replace(spilled=UNKNOWN_REG)


def _differs(old: RegState, new: RegState) -> bool:
    return (
        old.type is _SCALAR and new.type is _SCALAR and not old.precise and old.scalar != new.scalar
    )
