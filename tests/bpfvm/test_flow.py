"""Targets, subprogs, basic blocks, and what even the sandbox refuses."""

from __future__ import annotations

import pytest
from interp_kit import EXIT, flat, lddw, op

from bpfvm import isa
from bpfvm.errors import LoadError
from bpfvm.flow import Block, basic_blocks, check_structure, find_subprogs, jump_target, leaders
from bpfvm.insn import Insn


def target_of(insn: Insn, slot: int = 10) -> int | None:
    row = isa.lookup(insn)
    assert row is not None
    return jump_target(slot, insn, row)


def test_jump_targets() -> None:
    assert target_of(op("ja", off=-3)) == 8
    assert target_of(op("ja32", imm=70000)) == 70011
    assert target_of(op("jeq_imm", off=2, imm=50)) == 13
    assert target_of(op("may_goto", off=4)) == 15
    assert target_of(op("call_local", imm=-11)) == 0
    for insn in (op("call_helper", imm=1), op("call_kfunc", imm=1), EXIT, op("ldxw", off=5)):
        assert target_of(insn) is None


def test_subprogs_start_at_call_targets_and_function_references() -> None:
    insns = flat(
        op("call_local", imm=4),
        lddw(1, 4, "lddw_func"),
        EXIT,
        EXIT,
        EXIT,  # slot 5: called
        EXIT,  # slot 6: referred to
    )
    found = find_subprogs(insns, {5: "f"})
    assert [(s.start, s.end, s.name) for s in found] == [
        (0, 5, "main"),
        (5, 6, "f"),
        (6, 7, "subprog_6"),
    ]


def test_subprogs_outside_the_program_are_left_out() -> None:
    assert [s.start for s in find_subprogs((op("call_local", imm=50), EXIT))] == [0]


def test_basic_blocks_cover_the_program() -> None:
    insns = flat(
        lddw(0, 1),
        op("jne_imm", 0, off=2, imm=0),
        op("call_helper", imm=5),
        op("mov_imm", 0, imm=3),
        op("may_goto", off=-3),
        op("ja", off=0),
        EXIT,
    )
    assert basic_blocks(insns) == (
        Block(0, 3, 2),  # an ldimm64 is one insn in two slots
        Block(3, 4, 1),  # a call ends its block
        Block(4, 5, 1),
        Block(5, 6, 1),  # the jump's target
        Block(6, 7, 1),
        Block(7, 8, 1),
    )
    assert leaders(insns) == {block.start for block in basic_blocks(insns)}


@pytest.mark.parametrize(
    ("insns", "message"),
    [
        ((Insn(0xFF), EXIT), "insn 0: unknown opcode ff"),
        ((Insn(0xBF, 0, 1, off=3), EXIT), "insn 0: invalid fields of opcode bf"),
        ((Insn(0x05, 1), EXIT), "insn 0: ja: a reserved field is not zero"),
        ((Insn(0x05, imm=1), EXIT), "insn 0: ja: a reserved field is not zero"),
        ((op("mov_reg", 0, 11), EXIT), "insn 0: R11 is invalid"),
        ((op("mov_imm", 15), EXIT), "insn 0: R15 is invalid"),
        ((op("ldxw", 10, 1), EXIT), "insn 0: frame pointer is read only"),
        ((op("load_acquire32", 10, 1), EXIT), "insn 0: frame pointer is read only"),
        ((op("lock_xchg", 1, 10), EXIT), "insn 0: frame pointer is read only"),
        ((op("cast_user", 10, 1), EXIT), "insn 0: frame pointer is read only"),
        ((op("ja", off=-2), EXIT), "jump out of range from insn 0 to -1"),
        ((op("call_local", imm=1), EXIT), "jump out of range from insn 0 to 2"),
        ((*lddw(1, 0), op("ja", off=-2), EXIT), "insn 2: jump into the middle of ldimm64 insn 1"),
        ((op("lddw"), EXIT), "insn 0: invalid bpf_ld_imm64 insn"),
        ((op("lddw"),), "insn 0: invalid bpf_ld_imm64 insn"),
        ((EXIT, op("mov_imm")), "last insn is not an exit or jmp"),
        ((EXIT, op("jeq_imm", off=-1)), "last insn is not an exit or jmp"),
        ((EXIT, *lddw(1, 2)), "last insn is not an exit or jmp"),
        ((op("arena_stxw", 1, 2), EXIT), "insn 0: unknown opcode a3"),
    ],
)
def test_programs_without_structure(insns: tuple[Insn, ...], message: str) -> None:
    with pytest.raises(LoadError) as error:
        check_structure(insns)
    assert str(error.value) == message


def test_what_only_reads_the_frame_pointer_is_fine() -> None:
    check_structure(
        (
            op("stxdw", 10, 10, off=-8),
            op("lock_add", 10, 10, off=-8),
            op("lock_cmpxchg", 10, 10, off=-8),
            op("store_release64", 10, 10, off=-8),
            op("ja", off=-5),
        )
    )
