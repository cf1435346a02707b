"""What BTF tells of the program's functions and source lines, against the program itself.

Rules: Linux 6.18 and 7.3 (check_btf_func_early, check_btf_func, check_btf_line). Loaders that make
it from an object make it right; an object may be damaged, and a request may say anything.
"""

from __future__ import annotations

from collections.abc import Sequence

from bpfvm.program import Program
from verifier.reasons import Reason, Reject

__all__ = ["check_func_info", "check_func_layout", "check_line_info"]


def check_func_info(program: Program) -> None:
    """Check the records of functions by themselves, before the program is looked at.

    Raises:
        Reject: the first complaint.
    """
    before = 0
    for i, record in enumerate(program.func_info or ()):
        if i == 0 and record.insn_off:
            raise Reject(Reason.FUNC_INFO_FIRST, off=record.insn_off)
        if i and record.insn_off <= before:
            raise Reject(Reason.FUNC_INFO_ORDER, off=record.insn_off, last=before)
        if not record.is_func:
            raise Reject(Reason.FUNC_INFO_TYPE, id=record.type_id)
        before = record.insn_off


def check_func_layout(program: Program, starts: Sequence[int]) -> None:
    """Check that the functions told of begin at *starts*, where the program's do.

    Raises:
        Reject: they don't.
    """
    if not program.func_info:
        return
    if len(program.func_info) != len(starts):
        raise Reject(Reason.FUNC_INFO_COUNT)
    if any(f.insn_off != start for f, start in zip(program.func_info, starts, strict=True)):
        raise Reject(Reason.FUNC_INFO_LAYOUT)


def check_line_info(program: Program, starts: Sequence[int]) -> None:
    """Check that each of the functions at *starts* has source lines, in order, if there are any.

    Raises:
        Reject: the first complaint.
    """
    if not program.line_info:
        return
    size = len(program.insns)
    before = number = 0
    for i, line in enumerate(program.line_info):
        off = line.insn_off
        if (i and off <= before) or off >= size:
            raise Reject(Reason.LINE_INFO_ORDER, index=i, off=off, last=before, size=size)
        if not program.insns[off].opcode:
            raise Reject(Reason.LINE_INFO_CODE, index=i)
        if not line.is_named:
            raise Reject(Reason.LINE_INFO_NAME, index=i)
        if number < len(starts):
            if off == starts[number]:
                number += 1
            elif starts[number] < off:
                raise Reject(Reason.LINE_INFO_FUNC, number=number)
        before = off
    if number < len(starts):
        raise Reject(Reason.LINE_INFO_FUNCS, count=len(starts) - number, number=number)
