"""What a store does to dynptrs in the stack: one that stands for a reference may not be lost."""

from __future__ import annotations

from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.state import (
    Base,
    FuncState,
    Mod,
    RegState,
    SlotObject,
    VerifierState,
    replace_regs,
)

__all__ = ["destroy", "forget", "forget_slices"]

#: What only slices are; before 7.3 they outlive a dynptr that is overwritten, as their memory does.
_SLICES = Mod.RDONLY | Mod.PACKET_SLICE


def destroy(env: Env, owner: FuncState, spi: int) -> None:
    """Destroy the dynptr that slot *spi* is part of, if it is, before the slot is overwritten
    (kernel: destroy_if_dynptr_stack_slot)."""
    slot = owner.stack.get(spi)
    if slot is None or slot.types[0] != "d" or slot.object is None:
        return
    first = spi if slot.object.is_first else spi + 1
    found = owner.stack[first].object
    assert found is not None  # narrowing: a dynptr's slots come in pairs
    if found.ref and not (env.rules.ids_are_references and _has_clone(env.cur, found)):
        raise Reject(Reason.DYNPTR_OVERWRITTEN)
    forget(env, owner, first)
    forget_slices(env, found.id, Mod.NONE if env.rules.ids_are_references else _SLICES)


def _has_clone(state: VerifierState, found: SlotObject) -> bool:
    """Say whether another dynptr stands for the reference, too."""
    parts = (slot.object for frame in state.frames for slot in frame.stack.values())
    return any(
        part.is_first and part.ref == found.ref and part.id != found.id
        for part in parts
        if part is not None and part.type == found.type
    )


def forget(env: Env, owner: FuncState, first: int) -> None:
    """Make the slots of the dynptr that begins at slot *first* as if never written."""
    for spi in (first, first - 1):
        owner.stack.pop(spi, None)
        env.log.slots |= 1 << spi
    env.stack_live.write(owner.frameno, 0b11 << (first - 1))


def forget_slices(env: Env, dynptr: int, spared: Mod = Mod.NONE) -> None:
    """End the pointers into what dynptr number *dynptr* points to, but those with a modifier of
    *spared*."""

    def change(reg: RegState) -> RegState | None:
        kind = reg.type
        ends = kind.base is Base.MEM and reg.info == dynptr and not kind.mods & spared
        return env.ended_reg if ends else None

    replace_regs(env.cur, change)
