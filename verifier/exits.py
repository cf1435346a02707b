"""Exits: the way back to a caller, and the end of a path with what r0 may then be.

Rules: Linux 6.18 (process_bpf_exit_full, prepare_func_exit, check_return_code).
"""

from __future__ import annotations

from bpfvm.bits import S64_MAX, S64_MIN
from verifier.env import PATH_END, Env, Step
from verifier.hooks import result_of_hook
from verifier.precision import mark_reg
from verifier.privs import check_return
from verifier.reasons import Reason, Reject
from verifier.resources import check_resource_leak
from verifier.state import FuncState, RegState, RegType, Role
from verifier.transfer import readable
from verifier.widen import find_previous, widen

__all__ = ["check_range", "check_thrown", "compile_exit", "leave_early"]


def compile_exit(_env: Env, _idx: int) -> Step:
    """Return the step of an exit: the end of the path, or the way back to the caller."""

    def step(env: Env, frame: FuncState) -> int:
        cur = env.cur
        if len(cur.frames) > 1:
            return leave(env, frame)
        check_resource_leak(env, "BPF_EXIT instruction in main prog")
        _check_result(env, frame)
        return PATH_END

    return step


def check_thrown(env: Env) -> None:
    """Check r1, which becomes the program's result (kernel: check_return_code)."""
    frame = env.cur.frames[-1]
    reg = readable(frame, 1)
    if env.cur.frames[0].subprog:
        if reg.type is not RegType.SCALAR:
            raise Reject(Reason.SUBPROG_RESULT, reg=1, type=reg.type.label)
        return
    _check_program_result(env, frame, 1)


def _check_result(env: Env, frame: FuncState) -> None:
    """Check r0 where a path ends (kernel: check_return_code)."""
    subprog = env.subprogs.get(env.cfg.starts[frame.subprog])
    is_void = subprog is not None and subprog.params is not None and subprog.ret is None
    if frame.subprog and is_void and frame.role is Role.CALL:
        return
    reg = readable(frame, 0)
    check_return(env, 0, reg)
    if frame.role is Role.ASYNC:
        if frame.result is not None:
            check_range(env, frame, 0, frame.result, "At async callback return")
        return
    if frame.subprog and frame.role is not Role.EXCEPTION:
        _check_subprog_result(env, reg)
        return
    _check_program_result(env, frame, 0)


def _check_program_result(env: Env, frame: FuncState, regno: int) -> None:
    """Check what the program returns (kernel: return_retval_range)."""
    attach = env.program.expected_attach_type
    if env.prog_type.returns_of_hook:
        allowed, width = result_of_hook(env), 32
    else:
        allowed, width = env.prog_type.returns(attach), 64
    if allowed is not None:
        check_range(env, frame, regno, allowed, "At program exit", width=width)


def _check_subprog_result(env: Env, reg: RegState) -> None:
    """Check what a global subprog returns."""
    if reg.type is RegType.SCALAR:
        return
    if reg.type is RegType.ARENA and env.rules.arena_type_tags:
        return
    raise Reject(Reason.SUBPROG_RESULT, reg=0, type=reg.type.label)


def leave_early(env: Env, callee: FuncState, idx: int) -> int:
    """Go back to the caller in the middle of the innermost frame, at slot *idx*."""
    env.stack_live.commit(env.cur, idx)
    env.stack_live.update(env.cur)
    return leave(env, callee)


def leave(env: Env, callee: FuncState) -> int:
    """Go back to the caller of the innermost frame; return the slot to go on with."""
    cur = env.cur
    r0 = callee.regs[0]
    if r0.type is RegType.STACK:
        raise Reject(Reason.RETURN_FP)
    is_callback = callee.role is Role.CALLBACK
    if is_callback:
        _check_callback_result(env, callee)
    cur.frames.pop()
    caller = cur.frames[-1]
    caller.stack_args = ()
    next_idx = callee.callsite
    if not is_callback:
        caller.regs[0] = r0
        next_idx += 1
    if env.log.on:
        env.log.line("returning from callee:")
        env.log.full_state("", callee)
        env.log.line(f"to caller at {next_idx}:")
        env.log.full_state("", caller)
        env.log.touch_all()
    if is_callback:
        previous = find_previous(env, next_idx, skip_newest=False)
        if previous is not None:
            widen(env, previous, cur)
    return next_idx


def _check_callback_result(env: Env, callee: FuncState) -> None:
    if callee.regs[0].type is not RegType.SCALAR:
        raise Reject(Reason.CALLBACK_RESULT)
    if callee.result is not None:
        check_range(env, callee, 0, callee.result, "At callback return")


def check_range(
    env: Env,
    frame: FuncState,
    regno: int,
    allowed: tuple[int, int],
    when: str,
    *,
    width: int = 64,
) -> None:
    """Check that the low *width* bits of a register of the current frame are a number in
    *allowed*; *when* begins the complaint (kernel: retval_range_within, verbose_invalid_scalar)."""
    reg = frame.regs[regno]
    if reg.type is not RegType.SCALAR:
        raise Reject(Reason.RESULT_TYPE, when=when, reg=regno, type=reg.type.label)
    mark_reg(env, regno)
    low, high = allowed
    s = reg.scalar
    least, most = (s.smin, s.smax) if width == 64 else (s.s32_min, s.s32_max)
    if low <= least and most <= high:
        return
    known = f" smin={s.smin}" if s.smin > S64_MIN else ""
    known += f" smax={s.smax}" if s.smax < S64_MAX else ""
    raise Reject(
        Reason.RESULT_RANGE,
        when=when,
        reg=regno,
        known=known or " unknown scalar value",
        low=low,
        high=high,
    )
