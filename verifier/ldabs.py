"""Legacy packet loads: ld_abs and ld_ind read the packet of the context in r6.

A load outside of the packet ends the frame with r0 = 0, which the newer kernel walks as a path of
its own in a subprog. Rules: Linux 6.18 (check_ld_abs) and 7.3.
"""

from __future__ import annotations

from bpfvm.insn import Insn
from bpfvm.isa import InsnDef, Kind
from verifier.bounds import UNKNOWN
from verifier.callkit import clear_caller_saved
from verifier.ctx import check_ctx_pointer
from verifier.env import Env, Step
from verifier.exits import leave_early
from verifier.reasons import Reason, Reject
from verifier.resources import check_resource_leak
from verifier.state import ZERO_REG, FuncState, RegState, RegType, Role
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
    result = RegState(RegType.SCALAR, env.domain.coerce_to_size(UNKNOWN, 4))

    def step(env: Env, frame: FuncState) -> int:
        if env.rules.early_returns_walked and in_callback(env):
            raise Reject(Reason.LD_ABS_IN_CALLBACK)
        context = readable(frame, _CTX_REG)
        check_resource_leak(env, "BPF_LD_[ABS|IND]")
        if context.type is not RegType.CTX:
            raise Reject(Reason.LD_ABS_CTX)
        if row.kind is Kind.LD_IND:
            readable(frame, insn.src)
        check_ctx_pointer(env, _CTX_REG, context, may_move=False)
        clear_caller_saved(frame)
        frame.regs[0] = result
        if len(env.cur.frames) == 1 or not env.rules.early_returns_walked:
            return idx + 1
        env.push(idx + 1)
        frame.regs[0] = ZERO_REG
        return leave_early(env, frame, idx)

    return step
