"""Ending the walk of loops whose turns differ: forget what changes from turn to turn.

Forgetting is sound (the unknown scalar holds every value); scalars that something relied on are
kept, since the loop's checks need them.
"""

from __future__ import annotations

from verifier.env import Env
from verifier.equal import Ids
from verifier.state import UNKNOWN_REG, RegState, RegType, VerifierState

__all__ = ["find_previous", "widen"]

_SCALAR = RegType.SCALAR


def find_previous(env: Env, idx: int, *, skip_newest: bool = True) -> VerifierState | None:
    """Return the last state saved at slot *idx* on this very path (kernel: find_prev_entry).

    *skip_newest*: before the one that was saved as *idx* was reached this time.
    """
    cur = env.cur
    state = cur.parent
    if skip_newest and state is not None and state.insn_idx == idx:
        state = state.parent
    callsites = cur.callsites
    while state is not None:
        if state.insn_idx == idx and not state.evicted and state.callsites == callsites:
            return state
        state = state.parent
    return None


def widen(env: Env, old: VerifierState, new: VerifierState) -> None:
    """Forget scalars of *new* that differ from *old*'s and are not precise there (kernel:
    widen_imprecise_scalars)."""
    ids = None if env.rules.widening_ignores_ids else Ids()
    for before, after in zip(reversed(old.frames), reversed(new.frames), strict=True):
        for regno, reg in enumerate(after.regs):
            if _differs(before.regs[regno], reg, ids):
                after.regs[regno] = UNKNOWN_REG
        for spi in sorted(after.stack) if ids else list(after.stack):
            slot, old_slot = after.stack[spi], before.stack.get(spi)
            if slot.spilled is None or old_slot is None or old_slot.spilled is None:
                continue
            if _differs(old_slot.spilled, slot.spilled, ids):
                after.stack[spi] = slot._replace(spilled=UNKNOWN_REG)


def _differs(old: RegState, new: RegState, ids: Ids | None) -> bool:
    if old.type is not _SCALAR or new.type is not _SCALAR or old.precise:
        return False
    if old.scalar != new.scalar or old.off != new.off:
        return True
    return ids is not None and not ids.match(old.id, new.id)
