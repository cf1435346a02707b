"""Arguments on the stack: from the sixth on, passed and taken through r11.

Rules: Linux 7.3 (check_stack_arg_write, check_stack_arg_read, check_outgoing_stack_args).
"""

from __future__ import annotations

from collections.abc import Sequence

from bpfvm.errors import InternalError
from bpfvm.insn import Insn
from bpfvm.isa import MAX_STACK_ARGS, InsnDef, Kind, stack_arg
from verifier.env import Env, Step
from verifier.reasons import Reason, Reject
from verifier.state import NOT_INIT_REG, FuncState, RegType, Role, const_reg
from verifier.transfer import guard, readable

__all__ = ["check_passed", "compile_stack_arg", "count_stack_args"]

#: kernel: MAX_BPF_FUNC_REG_ARGS
MAX_REG_ARGS = 5


def count_stack_args(env: Env, number: int) -> int:
    """Return how many arguments of subprog *number* lie on the stack."""
    subprog = env.subprogs.get(env.cfg.starts[number])
    params = subprog.params if subprog is not None else None
    return max(0, len(params or ()) - MAX_REG_ARGS) if env.rules.stack_args else 0


def check_passed(frame: FuncState, count: int, before: Sequence[str] = ()) -> None:
    """Refuse a call of what takes *count* arguments on the stack, not all of which are passed."""
    for i in range(count):
        if i >= len(frame.stack_args) or frame.stack_args[i].type is RegType.NOT_INIT:
            total = MAX_REG_ARGS + count
            raise Reject(Reason.STACK_ARG_MISSING, before=before, count=total, arg=i + 1)


def compile_stack_arg(idx: int, insn: Insn, row: InsnDef) -> Step:
    """Return the step of an insn that passes or takes an argument."""
    number = stack_arg(insn)
    if number is None:
        raise InternalError(f"{row.mnemonic} has nothing to do with arguments")
    if row.kind is Kind.LDX:
        return guard((), insn.dst) or _taking(idx, insn, number)
    value = const_reg(insn.imm)
    src = insn.src if row.kind is Kind.STX else None

    def step(_env: Env, frame: FuncState) -> int:
        reg = value if src is None else readable(frame, src)
        if number >= MAX_STACK_ARGS:
            raise Reject(Reason.STACK_ARG_LIMIT, off=insn.off, limit=MAX_STACK_ARGS)
        args = list(frame.stack_args)
        args += [NOT_INIT_REG] * (number + 1 - len(args))
        args[number] = reg
        frame.stack_args, frame.has_passed = tuple(args), True
        return idx + 1

    return step


def _taking(idx: int, insn: Insn, number: int) -> Step:
    def step(env: Env, frame: FuncState) -> int:
        count = count_stack_args(env, frame.subprog)
        if frame.has_passed or (frame.has_called and count):
            raise Reject(Reason.STACK_ARG_LATE)
        if number >= count:
            raise Reject(Reason.STACK_ARG_READ, off=insn.off, depth=8 * count)
        if frame.role is not Role.CALL or not frame.frameno:
            raise Reject(Reason.NOT_SUPPORTED, what="callbacks with arguments on the stack")
        passed = env.cur.frames[frame.frameno - 1].stack_args
        frame.regs[insn.dst] = passed[number] if number < len(passed) else NOT_INIT_REG
        return idx + 1

    return step
