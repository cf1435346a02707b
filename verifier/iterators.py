"""Open-coded iterators: an object on the stack that a loop takes items from.

The kernel walks such a loop without knowing how often it turns: the call that takes an item forks
into "no more items", which is walked first, and "one more item", which ends where a state covers
it. Each turn forgets scalars that differ and matter to nobody, so that it converges
(process_iter_arg, process_iter_next_call).
"""

from __future__ import annotations

from bpfvm.proto import IterStep, IterType
from verifier import slots
from verifier.callkit import arg_name
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.resources import acquire, release
from verifier.state import (
    ZERO_REG,
    FuncState,
    Mod,
    RegState,
    RegType,
    SlotObject,
    StackSlot,
    VerifierState,
)
from verifier.widen import find_previous, widen

__all__ = ["IterPlace", "active_depths_differ", "check_iter_arg", "is_active", "next_item"]

#: (frame number, slot) of an iterator's first slot.
IterPlace = tuple[int, int]


def check_iter_arg(
    env: Env, frame: FuncState, regno: int, iterates: tuple[IterType, IterStep]
) -> tuple[IterPlace, int]:
    """Check the iterator in *regno* for what is done with it; return its place and reference."""
    kind, step = iterates
    reg = frame.regs[regno]
    if reg.type is not RegType.STACK:
        raise Reject(Reason.ITER_NOT_STACK, arg=arg_name(env, regno))
    place = slots.find_place(env, reg, "iter", kind.slots)
    if step is IterStep.NEW:
        return _start(env, frame, regno, reg, place, kind)
    first = _object(place, kind)
    if place.spi is None or first is None:
        arg = arg_name(env, regno, spaced=True)
        raise Reject(Reason.ITER_NOT_INIT, before=place.lines, name=kind.name, arg=arg)
    slots.note_read(env, place, kind.slots)
    if step is IterStep.DESTROY:
        release(env, first.ref)
        slots.clear(env, place, kind.slots)
    return (place.owner.frameno, place.spi), first.ref


def _start(
    env: Env, frame: FuncState, regno: int, reg: RegState, place: slots.Place, kind: IterType
) -> tuple[IterPlace, int]:
    if place.detail or slots.has_object(place, kind.slots, "i"):
        arg = arg_name(env, regno, spaced=True)
        raise Reject(Reason.ITER_NOT_UNINIT, before=place.lines, name=kind.name, arg=arg)
    slots.reserve(env, frame, regno, reg, kind.slots)
    ref = acquire(env)
    rest = [SlotObject(kind, is_first=False)] * (kind.slots - 1)
    slots.put(env, place, "i", SlotObject(kind, ref=ref), *rest)
    assert place.spi is not None  # narrowing: `reserve` has refused what is out of bounds
    return (place.owner.frameno, place.spi), ref


def _object(place: slots.Place, kind: IterType) -> SlotObject | None:
    """Return the iterator of *kind* that begins at *place*, None where there isn't a whole one."""
    if place.spi is None:
        return None
    stack = place.owner.stack
    parts = [stack.get(place.spi - i) for i in range(kind.slots)]
    for i, slot in enumerate(parts):
        found = None if slot is None else slot.object
        if found is None or found.type != kind or found.is_first != (i == 0):
            return None
    first = parts[0]
    return None if first is None else first.object


def next_item(env: Env, idx: int, at: IterPlace, item: RegState) -> RegState:
    """Fork the walk at a call that takes an item: leave the case that there is one for later, and
    return what r0 is where there is none."""
    frameno, spi = at
    slot = env.cur.frames[frameno].stack[spi]
    found = slot.object
    assert found is not None  # narrowing: `check_iter_arg` has found it
    if found.active:
        previous = find_previous(env, idx)
        again = env.push(idx + 1)
        deeper = found._replace(depth=found.depth + 1)
        again.frames[frameno].stack[spi] = slot._replace(object=deeper)
        if previous is not None:
            widen(env, previous, again)
        present = item._replace(type=item.type.without(Mod.MAYBE_NULL))
        again.frames[-1].regs[0] = present
    drained = slot._replace(object=found._replace(active=False))
    env.cur.frames[frameno].stack[spi] = drained
    return ZERO_REG


def is_active(state: VerifierState) -> bool:
    """Say whether the iterator that r1 points to, before a call that takes an item, may have more
    (kernel: is_state_visited, for an insn where `check_iter_arg` has succeeded before)."""
    reg = state.frames[-1].regs[1]
    if reg.type is not RegType.STACK or reg.scalar.mask:
        return False
    off = reg.off + reg.scalar.smin
    slot: StackSlot | None = state.frames[reg.arg].stack.get(-off // 8 - 1)
    return slot is not None and slot.object is not None and slot.object.active


def active_depths_differ(old: VerifierState, cur: VerifierState) -> bool:
    """Say whether an iterator has given items between two states: no endless loop then, since
    items run out (kernel: iter_active_depths_differ)."""
    for before, after in zip(old.frames, cur.frames, strict=True):
        for spi, slot in before.stack.items():
            found = slot.object
            if found is None or slot.types[0] != "i" or not found.active:
                continue
            now = after.stack.get(spi)
            if now is not None and now.object is not None and now.object.depth != found.depth:
                return True
    return False
