"""What BTF says of functions and lines, when it is wrong: the words are both kernels'."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_kernel import on_request
from walk_kit import build, check

from bpfvm.kernel import KernelObject
from bpfvm.program import FuncRecord, LineInfo, ObjectFile, Program
from bpfvm.rules import KERNELS
from bpfvm.signature import param_of

#: A main program of four slots and a static subprogram at slot 4.
TEXT = """
r0 = 0 ll
call f
exit
f:
r0 = 1
exit
"""


def line(off: int, number: int = 1, *, is_named: bool = True) -> LineInfo:
    return LineInfo(off, "a.c", number, 1, "x", is_named)


def funcs(*offs: int) -> tuple[FuncRecord, ...]:
    return tuple(FuncRecord(off) for off in offs)


NO_TYPE = FuncRecord(0, is_func=False)
CASES: list[tuple[tuple[FuncRecord, ...] | None, tuple[LineInfo, ...], str]] = [
    (funcs(0, 4), (line(0), line(4)), ""),
    (funcs(0, 4), (), ""),
    (funcs(1, 4), (), "nonzero insn_off 1 for the first func info record"),
    (
        funcs(0, 4, 4),
        (),
        "same or smaller insn offset (4) than previous func info record (4)",
    ),
    (
        funcs(0, 4, 2),
        (),
        "same or smaller insn offset (2) than previous func info record (4)",
    ),
    ((NO_TYPE,), (), "invalid type id 0 in func info"),
    (funcs(0), (), "number of funcs in func_info doesn't match number of subprogs"),
    (funcs(0, 4, 5), (), "number of funcs in func_info doesn't match number of subprogs"),
    (funcs(0, 3), (), "func_info BTF section doesn't match subprog layout in BPF program"),
    (funcs(0, 900), (), "func_info BTF section doesn't match subprog layout in BPF program"),
    (funcs(0, 4), (line(0), line(2), line(4), line(5)), ""),
    (None, (line(0), line(4)), ""),
    (funcs(0, 4), (line(1),), "Invalid insn code at line_info[0].insn_off"),
    (funcs(0, 4), (line(2),), "missing bpf_line_info for func#0"),
    (funcs(0, 4), (line(0), line(5)), "missing bpf_line_info for func#1"),
    (funcs(0, 4), (line(0),), "missing bpf_line_info for 1 funcs starting from func#1"),
    (
        funcs(0, 4),
        (line(0), line(4), line(4)),
        "Invalid line_info[2].insn_off:4 (prev_offset:4 prog->len:6)",
    ),
    (
        funcs(0, 4),
        (line(0), line(6)),
        "Invalid line_info[1].insn_off:6 (prev_offset:0 prog->len:6)",
    ),
    (
        funcs(0, 4),
        (line(0), line(4, is_named=False)),
        "Invalid line_info[1].line_off or .file_name_off",
    ),
    # What is wrong with functions is said before what is wrong with lines.
    (
        funcs(0),
        (line(2),),
        "number of funcs in func_info doesn't match number of subprogs",
    ),
]


def program(
    func_info: tuple[FuncRecord, ...] | None, line_info: tuple[LineInfo, ...], text: str = TEXT
) -> Program:
    made = build(text, line_info=line_info, func_info=func_info)
    result = param_of("int", "")
    told = tuple(replace(sub, params=(), ret=result) for sub in made.subprogs)
    return replace(made, subprogs=told) if func_info is not None else made


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("func_info", "line_info", "said"), CASES)
def test_what_is_said(
    func_info: tuple[FuncRecord, ...] | None,
    line_info: tuple[LineInfo, ...],
    said: str,
    kernel: str,
) -> None:
    verdict = check(TEXT, kernel=kernel, line_info=line_info, func_info=func_info)
    assert (verdict.last, verdict.errno) == (said, 22 if said else 0)


def test_jumps_are_checked_after_functions_and_before_lines() -> None:
    bad_jump = TEXT.replace("r0 = 1", "goto -3")
    early = check(bad_jump, func_info=funcs(1), line_info=(line(2),))
    assert early.last == "nonzero insn_off 1 for the first func info record"
    late = check(bad_jump, func_info=funcs(0), line_info=(line(2),))
    assert late.last == "jump out of range from insn 4 to 2"


@on_request
def test_the_running_kernel_says_the_same() -> None:
    for func_info, line_info, said in CASES:
        asked = program(func_info, line_info)
        with KernelObject(ObjectFile("test", {"p": asked})) as kernel:
            verdict = kernel.load(asked).verdict
        assert (verdict.last, verdict.errno) == (said, 22 if said else 0)
