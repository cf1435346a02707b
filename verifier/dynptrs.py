"""Dynptrs: an object of two stack slots that stands for memory whose size is known at run time.

Rules: Linux 6.18 and 7.3 (process_dynptr_func, mark_stack_slots_dynptr,
unmark_stack_slots_dynptr). A dynptr of a ring buffer's record is a reference, which its clones
share; pointers into it (slices) end with it.
"""

from __future__ import annotations

from typing import NamedTuple

from bpfvm.proto import DynptrType
from verifier import slots
from verifier.callkit import arg_name, check_unmoved
from verifier.dynslots import forget, forget_slices
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.resources import acquire, release
from verifier.state import FuncState, RegState, RegType, SlotObject

__all__ = ["Dynptr", "check_dynptr", "check_release", "construct", "release_dynptr"]

_SLOTS = 2
_REFERENCED = frozenset({DynptrType.RINGBUF})


class Dynptr(NamedTuple):
    """A dynptr that a call was given: its kind, its own number, the reference it stands for."""

    kind: DynptrType
    id: int
    ref: int


def construct(
    env: Env, frame: FuncState, regno: int, kind: DynptrType, parent: Dynptr | None = None
) -> None:
    """Make a dynptr of *kind* where *regno* points to; *parent* is what it is a clone of."""
    reg = frame.regs[regno]
    if reg.type is not RegType.STACK:
        raise Reject(Reason.DYNPTR_NOT_UNINIT)
    place = slots.find_place(env, reg, "dynptr", _SLOTS)
    if place.detail:
        raise Reject(Reason.DYNPTR_NOT_UNINIT, before=place.lines)
    slots.reserve(env, frame, regno, reg, _SLOTS)
    early = env.rules.ids_are_references
    ref = parent.ref if parent is not None else 0
    needs_ref = kind in _REFERENCED and not ref
    if needs_ref and early:
        ref = acquire(env)
    id_ = env.new_id()
    if needs_ref and not early:
        ref = acquire(env)
    first = SlotObject(kind, id_, ref)
    slots.put(env, place, "d", first, first._replace(is_first=False))


def check_dynptr(
    env: Env, frame: FuncState, regno: int, wanted: DynptrType | None, *, mutates: bool = False
) -> Dynptr:
    """Return the dynptr in *regno*, which must have been made, as *wanted* where that is said.

    *mutates*: the call may change the dynptr itself.
    """
    reg = frame.regs[regno]
    arg = arg_name(env, regno, spaced=True)
    if reg.type is RegType.DYNPTR:
        check_unmoved(reg, regno)
        if mutates:
            raise Reject(Reason.DYNPTR_CONST)
        kind = reg.info
        assert isinstance(kind, DynptrType)  # narrowing: what such registers are made with
        found = Dynptr(kind, reg.id, reg.ref)
    else:
        found = _on_stack(env, reg, arg)
    if wanted is not None and found.kind is not wanted:
        raise Reject(Reason.DYNPTR_TYPE, type=wanted.value, arg=arg)
    return found


def _on_stack(env: Env, reg: RegState, arg: str) -> Dynptr:
    place = slots.find_place(env, reg, "dynptr", _SLOTS)
    found = _object(place)
    if found is None:
        raise Reject(Reason.DYNPTR_NOT_INIT, before=place.lines, arg=arg)
    slots.note_read(env, place, _SLOTS)
    assert isinstance(found.type, DynptrType)  # narrowing: `d` slots hold these only
    return Dynptr(found.type, found.id, found.ref)


def _object(place: slots.Place) -> SlotObject | None:
    """Return the dynptr that begins at *place*."""
    if place.spi is None:
        return None
    slot = place.owner.stack.get(place.spi)
    if slot is None or slot.types[0] != "d" or slot.object is None:
        return None
    return slot.object if slot.object.is_first else None


def check_release(env: Env, frame: FuncState, regno: int) -> None:
    """Refuse to release what stands for no reference (kernel: check_func_arg)."""
    reg = frame.regs[regno]
    is_late = env.rules.ids_are_references
    if reg.type is RegType.DYNPTR:
        check_unmoved(reg, regno)
        raise Reject(Reason.DYNPTR_CONST_RELEASED if is_late else Reason.DYNPTR_UNOWNED)
    if is_late:
        return  # what is released is always of a kind that stands for one
    place = slots.find_place(env, reg, "dynptr", _SLOTS)
    found = _object(place)
    if found is not None and found.ref:
        return
    raise Reject(Reason.DYNPTR_NOT_ACQUIRED, before=place.lines, arg=regno)


def release_dynptr(env: Env, dynptr: Dynptr) -> None:
    """End the reference of *dynptr*: it, its clones and all pointers into them are gone."""
    release(env, dynptr.ref)
    for frame in env.cur.frames:
        for spi, slot in list(frame.stack.items()):
            part = slot.object
            if slot.types[0] != "d" or part is None or not part.is_first:
                continue
            if part.ref == dynptr.ref:
                forget(env, frame, spi)
                forget_slices(env, part.id)
