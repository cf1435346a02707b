"""Callbacks: subprogs that a helper calls, none or any number of times.

How often is not known, so a call insn is walked as a loop: one path goes on behind it, another
enters the callback and comes back to the very same insn when that returns. It ends where a path
comes round with nothing new (see `explore`), with scalars that change from turn to turn forgotten
(`widen`). Rules: Linux 6.18 (push_callback_call, prepare_func_exit).
"""

from __future__ import annotations

from collections.abc import Callable

from bpfvm.bits import S32_MAX, S32_MIN
from bpfvm.proto import Callback, DynptrType, FuncProto
from verifier.bounds import ZERO
from verifier.env import Env
from verifier.precision import mark_reg
from verifier.reasons import Reason, Reject
from verifier.state import (
    NOT_INIT_REG,
    UNKNOWN_REG,
    FuncState,
    RegState,
    RegType,
    Role,
)
from verifier.subprogs import fp_reg
from verifier.timers import push_async

__all__ = ["call_back", "function_of"]

#: What most callbacks may return: 0 to go on, 1 to stop.
_GO_OR_STOP = (0, 1)


def function_of(frame: FuncState, proto: FuncProto) -> int:
    """Return the number of the subprog that the arguments of a call of *proto* name."""
    for regno in range(1, len(proto.args) + 1):
        if frame.regs[regno].type is RegType.FUNC:
            return frame.regs[regno].arg
    raise Reject(Reason.NOT_SUPPORTED, what=f"{proto.name} without a function")


def call_back(env: Env, frame: FuncState, proto: FuncProto) -> None:
    """Leave a path for later that enters the callback of a call whose arguments are checked."""
    match proto.callback:
        case Callback.LOOP:
            _loop(env, frame, proto)
        case Callback.MAP_ELEM:
            _check_map(env, frame, proto)
            _push(env, frame, proto, _map_elem_args)
        case Callback.SAMPLE:
            sample = RegState(RegType.DYNPTR, id=env.new_id(), info=DynptrType.LOCAL)
            _push(env, frame, proto, lambda caller: [sample, caller.regs[3]])
        case Callback.TIMER:
            number, owner = function_of(frame, proto), frame.regs[1].arg
            push_async(env, frame, number, owner, sleepable=False, result=(0, 0))
        case Callback.WORKQUEUE:
            number, owner = function_of(frame, proto), frame.regs[1].arg
            push_async(env, frame, number, owner, sleepable=True, result=(S32_MIN, S32_MAX))
        case None:
            pass


def _loop(env: Env, frame: FuncState, proto: FuncProto) -> None:
    """bpf_loop: its count tells when no more turns are possible."""
    _note_inline(env, frame, proto)
    mark_reg(env, 1)
    if frame.callback_depth < frame.regs[1].scalar.umax:
        _push(env, frame, proto, _loop_args)
        return
    frame.callback_depth = 0
    if env.log.verbose:
        env.log.line(f"frame{frame.frameno} bpf_loop iteration limit reached")


def _note_inline(env: Env, frame: FuncState, proto: FuncProto) -> None:
    """The kernel makes a plain loop of a call whose flags are 0 and whose callback is the same on
    all paths; while it may, the flags must stay 0 (kernel: update_loop_inline_state)."""
    number = function_of(frame, proto)
    known = env.inline_loops.get(env.insn_idx, number)
    flags = frame.regs[4]
    if known == number and flags.type is RegType.SCALAR and flags.scalar == ZERO:
        mark_reg(env, 4)
        env.inline_loops[env.insn_idx] = number
    else:
        env.inline_loops[env.insn_idx] = None


def _loop_args(caller: FuncState) -> list[RegState]:
    return [UNKNOWN_REG, caller.regs[3]]


def _check_map(env: Env, frame: FuncState, proto: FuncProto) -> None:
    defn = env.facts[frame.regs[1].arg].defn
    if proto.name not in env.map_types.traits(defn).helpers:
        raise Reject(Reason.CALLBACK_MAP)


def _map_elem_args(caller: FuncState) -> list[RegState]:
    map_ptr, context = caller.regs[1], caller.regs[3]
    key = RegState(RegType.MAP_KEY, arg=map_ptr.arg)
    value = RegState(RegType.MAP_VALUE, arg=map_ptr.arg)
    return [map_ptr, key, value, context]


def _push(
    env: Env, frame: FuncState, proto: FuncProto, args: Callable[[FuncState], list[RegState]]
) -> None:
    number = function_of(frame, proto)
    frameno = len(env.cur.frames)
    target = env.cfg.starts[number]
    env.called_back.add(number)
    state = env.push(target)
    if frameno >= env.rules.call_frames:
        raise Reject(Reason.CALL_FRAMES, frames=frameno + 1)
    given = args(frame)
    regs = [NOT_INIT_REG, *given, *[NOT_INIT_REG] * (9 - len(given)), fp_reg(frameno)]
    callee = FuncState(frameno, number, env.insn_idx, regs, {})
    callee.role = Role.CALLBACK
    callee.result = _GO_OR_STOP
    state.frames[-1].callback_depth += 1
    state.frames.append(callee)
    state.unroll_depth += 1
    frame.callback_depth = 0
