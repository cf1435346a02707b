"""Exits: the way back to a caller, and the end of a path with what r0 may then be.

Rules: Linux 6.18 (process_bpf_exit_full, prepare_func_exit, check_return_code).
"""

from __future__ import annotations

from verifier.env import PATH_END, Env, Step
from verifier.privs import check_return
from verifier.reasons import Reason, Reject
from verifier.resources import check_resource_leak
from verifier.state import FuncState, RegType, VerifierState
from verifier.transfer import readable

__all__ = ["compile_exit"]


def compile_exit(_env: Env, _idx: int) -> Step:
    """Return the step of an exit: the end of the path, or the way back to the caller."""

    def step(env: Env, frame: FuncState) -> int:
        cur = env.cur
        if len(cur.frames) > 1:
            return _leave(env, cur, frame)
        check_resource_leak(env, "BPF_EXIT instruction in main prog")
        if frame.subprog:
            _check_subprog_result(env, frame)
        else:
            check_return(env, 0, readable(frame, 0))
        return PATH_END

    return step


def _check_subprog_result(env: Env, frame: FuncState) -> None:
    """Check what a global subprog returns."""
    subprog = env.subprogs.get(env.cfg.starts[frame.subprog])
    if subprog is not None and subprog.params is not None and subprog.ret is None:
        return  # void
    reg = readable(frame, 0)
    check_return(env, 0, reg)
    if reg.type is RegType.SCALAR:
        return
    if reg.type is RegType.ARENA and env.rules.arena_type_tags:
        return
    raise Reject(Reason.SUBPROG_RESULT, reg=0, type=reg.type.label)


def _leave(env: Env, cur: VerifierState, callee: FuncState) -> int:
    r0 = callee.regs[0]
    if r0.type is RegType.STACK:
        raise Reject(Reason.RETURN_FP)
    cur.frames.pop()
    caller = cur.frames[-1]
    caller.regs[0] = r0
    next_idx = callee.callsite + 1
    if env.log.on:
        env.log.line("returning from callee:")
        env.log.full_state("", callee)
        env.log.line(f"to caller at {next_idx}:")
        env.log.full_state("", caller)
        env.log.touch_all()
    return next_idx
