"""Objects that kfuncs and helpers keep in a program's stack: where one lies, and how it gets there.

Rules: Linux 6.18 and 7.3 (stack_slot_obj_get_spi and its callers). An object's slots hold nothing
else, and nothing but a kfunc or helper may read them; a store makes plain data of them.
"""

from __future__ import annotations

from bpfvm.bits import s64
from verifier import stack
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.state import EMPTY_TYPES, FuncState, RegState, SlotObject, StackSlot

__all__ = ["Place", "clear", "find_place", "has_object", "note_read", "put", "reserve"]

_EMPTY = StackSlot(EMPTY_TYPES)


class Place:
    """Where an object's pointer leads: the frame, and the slot at the lowest address.

    *spi* is None where that is no place for one; *detail* then says why, "" where the stack's own
    bounds will.
    """

    __slots__ = ("detail", "owner", "spi")

    def __init__(self, owner: FuncState, spi: int | None, detail: str = "") -> None:
        self.owner, self.spi, self.detail = owner, spi, detail

    @property
    def lines(self) -> tuple[str, ...]:
        """What the log says of it before the complaint."""
        return (self.detail,) if self.detail else ()


def find_place(env: Env, reg: RegState, what: str, slots: int) -> Place:
    """Return where stack pointer *reg* puts an object of *slots* slots, in words a *what*."""
    owner = env.cur.frames[reg.arg]
    if reg.scalar.mask:
        return Place(owner, None, f"{what} has to be at a constant offset")
    off = reg.off + s64(reg.scalar.value)
    spi = -off // 8 - 1
    if off == 0 and not env.rules.stack_objects_below_fp:
        # 6.18 takes it for what lies at fp-8, and works on what lies at fp+0.
        raise Reject(Reason.NOT_SUPPORTED, what=f"{what} at fp+0")
    if off % 8 or spi + 1 < slots:
        return Place(owner, None, f"cannot pass in {what} at an offset={off}")
    return Place(owner, spi if spi < stack.MAX_STACK // 8 else None)


def has_object(place: Place, slots: int, kind: str) -> bool:
    """Say whether any of the slots at *place* holds an object of letter *kind*."""
    spi = place.spi
    return spi is not None and any(
        place.owner.stack.get(spi - i, _EMPTY).types[0] == kind for i in range(slots)
    )


def reserve(env: Env, frame: FuncState, regno: int, reg: RegState, slots: int) -> None:
    """Write the slots of an object to be, so that they must lie in the stack."""
    for i in range(slots):
        stack.store(env, frame, regno, reg, reg.off + 8 * i, 8, value=None, value_regno=None)


def put(env: Env, place: Place, kind: str, *objects: SlotObject) -> None:
    """Put the parts of an object into the slots at *place*, from the lowest address up."""
    assert place.spi is not None  # narrowing: it was checked, or `reserve` has refused it
    for i, part in enumerate(objects):
        place.owner.stack[place.spi - i] = StackSlot(kind * 8, None, part)
    _note_write(env, place, len(objects))


def clear(env: Env, place: Place, slots: int) -> None:
    """Make the slots at *place* as if never written."""
    assert place.spi is not None  # narrowing: an object was found there
    for i in range(slots):
        place.owner.stack.pop(place.spi - i, None)
    _note_write(env, place, slots)


def note_read(env: Env, place: Place, slots: int) -> None:
    """Record that the current insn uses the object at *place*."""
    env.stack_live.read(env.cur, place.owner.frameno, _bits(place, slots))
    env.log.slots |= _bits(place, slots)


def _note_write(env: Env, place: Place, slots: int) -> None:
    env.stack_live.write(place.owner.frameno, _bits(place, slots))
    env.log.slots |= _bits(place, slots)


def _bits(place: Place, slots: int) -> int:
    assert place.spi is not None  # narrowing: an object is there
    return ((1 << slots) - 1) << (place.spi - slots + 1)
