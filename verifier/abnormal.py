"""Subprogs that may be left in the middle: by a failed packet load or a tail call, with a number
in r0 that no caller expects of them unless they return one.

Rules: Linux 6.18 (check_abnormal_return, check_btf_func).
"""

from __future__ import annotations

from collections.abc import Sequence

from bpfvm.insn import Insn
from bpfvm.isa import CallKind, InsnClass
from bpfvm.program import Program
from bpfvm.proto import Registry
from verifier.reasons import Reason, Reject

__all__ = ["check_abnormal_returns", "has_packet_load", "has_tail_call"]

_CALL = 0x85
_ABS_IND = (0x20, 0x40)
_INTEGERS = frozenset({"INT", "ENUM", "ENUM64"})


def has_tail_call(registry: Registry, insns: Sequence[Insn]) -> bool:
    """Say whether *insns* hold a tail call."""
    for insn in insns:
        if insn.opcode == _CALL and insn.src == CallKind.HELPER.value:
            proto = registry.helpers.get(insn.imm)
            if proto is not None and proto.tail_call:
                return True
    return False


def has_packet_load(insns: Sequence[Insn]) -> bool:
    """Say whether *insns* hold a packet load."""
    return any(insn.opcode & 7 == InsnClass.LD and insn.opcode & 0xE0 in _ABS_IND for insn in insns)


def check_abnormal_returns(program: Program, registry: Registry, starts: Sequence[int]) -> None:
    """Refuse such subprogs whose result is no number.

    Raises:
        Reject: naming what they hold.
    """
    subprogs = {sub.start: sub for sub in program.subprogs}
    has_btf = any(sub.params is not None for sub in program.subprogs)
    ends = [*starts[1:], len(program.insns)]
    for start, end in list(zip(starts, ends, strict=True))[1:]:
        insns = program.insns[start:end]
        loads, tail_calls = has_packet_load(insns), has_tail_call(registry, insns)
        ret = subprogs[start].ret if start in subprogs else None
        if has_btf and ret is not None and not ret.is_pointer and ret.kind in _INTEGERS:
            continue
        if loads and not has_btf:
            raise Reject(Reason.LD_ABS_NO_BTF)
        if loads:
            raise Reject(Reason.LD_ABS_RESULT)
        if tail_calls and not has_btf:
            raise Reject(Reason.TAIL_CALL_NO_BTF)
        if tail_calls:
            raise Reject(Reason.TAIL_CALL_RESULT)
