"""Timers in map values: where they have to be, and the callbacks that run apart.

A timer's callback is walked as a path of its own, with a fresh stack, from where it is set; the
call itself goes on. Rules: Linux 6.18 (process_timer_func, push_async_cb).
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

__all__ = ["check_timer", "push_async"]


def check_timer(env: Env, frame: FuncState, regno: int) -> int:
    """Check the pointer to a timer in *regno*; return the index of its map."""
    reg = frame.regs[regno]
    if reg.scalar.mask:
        raise Reject(Reason.TIMER_VARIABLE, reg=regno)
    defn = env.facts[reg.arg].defn
    if defn.record is None:
        raise Reject(Reason.TIMER_NO_BTF, map=defn.name)
    field = next((f for f in defn.record if f.kind is FieldKind.TIMER), None)
    if field is None:
        raise Reject(Reason.TIMER_NO_FIELD, map=defn.name)
    at = reg.off + s64(reg.scalar.value)
    if at != field.off:
        raise Reject(Reason.TIMER_ELSEWHERE, off=at, at=field.off)
    return reg.arg


def push_async(env: Env, frame: FuncState, number: int, map_index: int, *, sleepable: bool) -> None:
    """Leave for later a path that enters subprog *number* with map, key and value."""
    env.called_back.add(number)
    env.run_apart.add(number)
    kinds = (RegType.MAP_PTR, RegType.MAP_KEY, RegType.MAP_VALUE)
    args = [RegState(kind, arg=map_index) for kind in kinds]
    callee = FuncState(0, number, -1, [NOT_INIT_REG, *args, *[NOT_INIT_REG] * 6, fp_reg(0)], {})
    callee.role, callee.result = Role.ASYNC, (0, 0)
    callee.async_entries = frame.async_entries + 1
    state = VerifierState([callee], sleepable=sleepable)
    state.first_insn = env.cfg.starts[number]
    env.push_apart(state, state.first_insn)
