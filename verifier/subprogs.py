"""Calls of the program's own subprogs: static ones are walked into, global ones are trusted to
do what their prototype says and verified alone later.

Rules: Linux 6.18 (check_func_call).
"""

from __future__ import annotations

from bpfvm.program import Linkage
from verifier.callkit import clear_caller_saved
from verifier.env import Env, Step
from verifier.globals import check_args
from verifier.packets import forget_packets
from verifier.reasons import Reason, Reject
from verifier.resources import check_resource_leak, sleep_context
from verifier.stackargs import check_passed, count_stack_args
from verifier.state import (
    LOCKS,
    NOT_INIT_REG,
    UNKNOWN_REG,
    FuncState,
    RegState,
    RegType,
)

__all__ = ["compile_local_call", "fp_reg", "func_reg", "is_global"]


def fp_reg(frameno: int) -> RegState:
    """Return r10 of frame *frameno*."""
    return RegState(RegType.STACK, arg=frameno)


def func_reg(env: Env, target: int) -> RegState:
    """Return what an ldimm64 of the subprog that starts at slot *target* gives.

    Raises:
        Reject: it can't be a callback.
    """
    subprog = env.subprogs.get(target)
    if all(s.params is None for s in env.program.subprogs):
        raise Reject(Reason.FUNC_NO_BTF)
    if subprog is not None and subprog.linkage is Linkage.GLOBAL:
        raise Reject(Reason.FUNC_NOT_STATIC)
    if target == 0:
        raise Reject(Reason.FUNC_IS_MAIN)
    return RegState(RegType.FUNC, arg=env.cfg.subprog_at(target))


def is_global(env: Env, number: int) -> bool:
    """Say whether subprog *number* is verified alone, by its prototype."""
    subprog = env.subprogs.get(env.cfg.starts[number])
    return subprog is not None and subprog.linkage is Linkage.GLOBAL


def compile_local_call(env: Env, idx: int, target: int) -> Step:
    """Return the step of a call of the subprog that starts at slot *target*."""
    number = env.cfg.subprog_at(target)
    if is_global(env, number):
        return _compile_global(env, idx, number)

    on_stack = count_stack_args(env, number)

    def step(env: Env, frame: FuncState) -> int:
        cur = env.cur
        frameno = len(cur.frames)
        check_passed(frame, on_stack)
        if frameno >= env.rules.call_frames:
            raise Reject(Reason.CALL_FRAMES, frames=frameno + 1)
        regs = [NOT_INIT_REG, *frame.regs[1:6], *[NOT_INIT_REG] * 4, fp_reg(frameno)]
        callee = FuncState(frameno, number, idx, regs, {})
        passed = frame.stack_args
        clear_caller_saved(frame)
        frame.stack_args = passed
        cur.frames.append(callee)
        if env.log.on:
            env.log.line("caller:")
            env.log.full_state("", frame)
            env.log.line("callee:")
            env.log.full_state("", callee)
            env.log.touch_all()
        return target

    return step


def _compile_global(env: Env, idx: int, number: int) -> Step:
    subprog = env.subprogs[env.cfg.starts[number]]
    name = subprog.name
    is_void = subprog.params is not None and subprog.ret is None
    result = NOT_INIT_REG if is_void else UNKNOWN_REG

    def step(env: Env, frame: FuncState) -> int:
        failed = _failed_args(env, frame, number)
        if failed is not None and failed.reason.errno == Reason.STACK_ARG_MISSING.errno:
            raise failed
        _check_context(env, number, name, () if failed is None else failed.lines)
        if failed is not None:
            raise _caller_args(failed.reason.errno, failed.lines, number, name)
        env.log.line(f"Func#{number} ('{name}') is global and assumed valid.")
        if env.cfg.effects[number].throws and env.rules.global_by_context:
            check_resource_leak(env, "bpf_throw", is_throw=True)
        if env.cfg.effects[number].changes_packet:
            forget_packets(env)
        can_sleep = env.program.sleepable
        if env.rules.global_by_context:
            can_sleep = not sleep_context(env)
        env.global_calls.setdefault(number, set()).add(can_sleep)
        clear_caller_saved(frame)
        frame.regs[0] = result
        return idx + 1

    return step


def _caller_args(errno: int, before: tuple[str, ...], number: int, name: str) -> Reject:
    """Return the complaint of a call whose arguments were refused with *errno*."""
    if errno == Reason.CALLER_ARGS_ACCESS.errno:
        return Reject(Reason.CALLER_ARGS_ACCESS, before=before, func=number, name=name)
    if errno == Reason.CALLER_ARGS_UNSUPPORTED.errno:
        return Reject(Reason.CALLER_ARGS_UNSUPPORTED, before=before, func=number, name=name)
    return Reject(Reason.CALLER_ARGS, before=before, func=number, name=name)


def _failed_args(env: Env, frame: FuncState, number: int) -> Reject | None:
    """Return what is wrong with the arguments: the context is complained of first."""
    try:
        check_args(env, frame, number)
    except Reject as e:
        if e.reason is Reason.NOT_SUPPORTED:
            raise
        return e
    return None


def _check_context(env: Env, number: int, name: str, before: tuple[str, ...]) -> None:
    if any(ref.kind in LOCKS for ref in env.cur.refs):
        raise Reject(Reason.GLOBAL_IN_LOCK, before=before)
    context = sleep_context(env)
    if not context or not env.cfg.effects[number].might_sleep:
        return
    if env.rules.sleep_context_named:
        raise Reject(Reason.GLOBAL_SLEEPS_IN, before=before, name=name, context=context)
    raise Reject(Reason.GLOBAL_SLEEPS, before=before)
