"""IRQ flags: what bpf_local_irq_save keeps on the stack and bpf_local_irq_restore takes back.

Regions are left in the reverse order of entering them (kernel: process_irq_flag).
"""

from __future__ import annotations

from enum import Enum, unique

from bpfvm.proto import Effect
from verifier import slots
from verifier.callkit import arg_name
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.resources import acquire, leave_region
from verifier.state import FuncState, RefKind, RegType, SlotObject

__all__ = ["IrqClass", "check_irq_flag"]


@unique
class IrqClass(Enum):
    """Whose kfuncs a flag belongs to, in the kernel's words."""

    NATIVE = "native"
    LOCK = "lock"


def check_irq_flag(env: Env, frame: FuncState, regno: int, *, saves: bool, of: IrqClass) -> None:
    """Check the IRQ flag in *regno*, and enter (*saves*) or leave its region."""
    reg = frame.regs[regno]
    arg = arg_name(env, regno)
    if reg.type is not RegType.STACK:
        raise Reject(Reason.IRQ_NOT_STACK, arg=arg)
    place = slots.find_place(env, reg, "irq_flag", 1)
    if saves:
        if place.detail or slots.has_object(place, 1, "f"):
            raise Reject(Reason.IRQ_NOT_UNINIT, before=place.lines, arg=arg)
        slots.reserve(env, frame, regno, reg, 1)
        slots.put(env, place, "f", SlotObject(of, ref=acquire(env, RefKind.IRQ)))
        return
    slot = None if place.spi is None else place.owner.stack.get(place.spi)
    flag = None if slot is None or slot.types[0] != "f" else slot.object
    if flag is None:
        raise Reject(Reason.IRQ_NOT_INIT, before=place.lines, arg=arg)
    _restore(env, place, flag, of)


def _restore(env: Env, place: slots.Place, flag: SlotObject, of: IrqClass) -> None:
    kept = flag.type
    if kept is not of:
        assert isinstance(kept, IrqClass)  # narrowing: `f` slots hold these only
        raise Reject(Reason.IRQ_CLASS, kept=kept.value, used=of.value)
    slots.note_read(env, place, 1)
    cur = env.cur
    open_ = [ref for ref in cur.refs if ref.kind is RefKind.IRQ]
    if open_[-1].id != flag.ref:
        raise Reject(Reason.IRQ_ORDER, id=open_[-1].id, insn=open_[-1].insn)
    cur.refs = tuple(ref for ref in cur.refs if ref is not open_[-1])
    slots.clear(env, place, 1)
    leave_region(env, Effect.IRQ_RESTORE)
