"""Timers and work queues in map values: where they have to be, and the callbacks that run apart.

Such a callback is walked as a path of its own, with a fresh stack, from where it is set; the call
itself goes on. Rules: Linux 6.18 and 7.3 (check_map_field_pointer, push_async_cb).
"""

from __future__ import annotations

from bpfvm.bits import s64
from bpfvm.record import FieldKind
from verifier.env import Env
from verifier.reasons import Reason, Reject
from verifier.state import (
    NOT_INIT_REG,
    FuncState,
    RegState,
    RegType,
    Role,
    VerifierState,
)
from verifier.subprogs import fp_reg

__all__ = ["check_async_field", "check_same_map", "push_async"]


def check_async_field(env: Env, frame: FuncState, regno: int, kind: FieldKind) -> int:
    """Check the pointer to a field of *kind* in *regno*; return the index of its map."""
    reg = frame.regs[regno]
    name = kind.label
    if reg.scalar.mask:
        raise Reject(Reason.TIMER_VARIABLE, reg=regno, field=name)
    defn = env.facts[reg.arg].defn
    if defn.record is None:
        raise Reject(Reason.TIMER_NO_BTF, map=defn.name, field=name)
    field = next((f for f in defn.record if f.kind is kind), None)
    if field is None:
        raise Reject(Reason.TIMER_NO_FIELD, map=defn.name, field=name)
    at = reg.off + s64(reg.scalar.value)
    if at != field.off:
        raise Reject(Reason.TIMER_ELSEWHERE, off=at, at=field.off, field=name)
    return reg.arg


#: What 6.18 and 7.3 call what a map pointer does not go with, by the first that the map has.
_OWNERS = ((FieldKind.TIMER, "timer"), (FieldKind.TASK_WORK, "bpf_task_work"))


def check_same_map(env: Env, owner: int, regno: int, given: int) -> None:
    """Refuse map *given* in *regno* for a field of a value of map *owner* (kernel:
    process_map_ptr_arg)."""
    if owner != given:
        kinds = {field.kind for field in env.facts[owner].defn.record or ()}
        what = next((word for kind, word in _OWNERS if kind in kinds), "workqueue")
        raise Reject(Reason.TIMER_MAP, what=what, reg=regno)


def push_async(
    env: Env,
    frame: FuncState,
    number: int,
    map_index: int,
    *,
    sleepable: bool,
    result: tuple[int, int],
) -> None:
    """Leave for later a path that enters subprog *number* with map, key and value, and that may
    return what lies in *result*."""
    env.called_back.add(number)
    env.run_apart.add(number)
    kinds = (RegType.MAP_PTR, RegType.MAP_KEY, RegType.MAP_VALUE)
    args = [RegState(kind, arg=map_index) for kind in kinds]
    callee = FuncState(0, number, -1, [NOT_INIT_REG, *args, *[NOT_INIT_REG] * 6, fp_reg(0)], {})
    callee.role, callee.result = Role.ASYNC, result
    callee.async_entries = frame.async_entries + 1
    state = VerifierState([callee], sleepable=sleepable)
    state.first_insn = env.cfg.starts[number]
    env.push_apart(state, state.first_insn)
