"""Legacy packet loads: ld_abs and ld_ind read the packet of the context in r6.

A load outside of the packet ends the frame with r0 = 0: in a subprog that is a path of its own.
Rules: Linux 6.18 (check_ld_abs) and 7.3.
"""

from __future__ import annotations

from bpfvm.insn import Insn
from bpfvm.isa import InsnDef, Kind
from verifier.callkit import clear_caller_saved
from verifier.ctx import check_ctx_pointer
from verifier.env import Env, Step
from verifier.exits import leave_early
from verifier.reasons import Reason, Reject
from verifier.resources import check_resource_leak
from verifier.state import UNKNOWN_REG, ZERO_REG, FuncState, RegType, Role
from verifier.transfer import readable

__all__ = ["compile_ld_abs", "in_callback"]

_CTX_REG = 6


def in_callback(env: Env) -> bool:
    """Say whether a frame that is open is a callback's."""
    return any(frame.role is Role.CALLBACK for frame in env.cur.frames)


def compile_ld_abs(env: Env, idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of an ld_abs or ld_ind."""
    if not env.prog_type.ld_abs:
        raise Reject(Reason.LD_ABS_PROG_TYPE)

    def step(env: Env, frame: FuncState) -> int:
        if not env.rules.early_returns_in_callbacks and in_callback(env):
            raise Reject(Reason.LD_ABS_IN_CALLBACK)
        context = readable(frame, _CTX_REG)
        check_resource_leak(env, "BPF_LD_[ABS|IND]")
        if context.type is not RegType.CTX:
            raise Reject(Reason.LD_ABS_CTX)
        if row.kind is Kind.LD_IND:
            readable(frame, insn.src)
        check_ctx_pointer(env, _CTX_REG, context, may_move=False)
        clear_caller_saved(frame)
        frame.regs[0] = UNKNOWN_REG
        if len(env.cur.frames) == 1:
            return idx + 1
        env.push(idx + 1)
        frame.regs[0] = ZERO_REG
        return leave_early(env, frame, idx)

    return step
