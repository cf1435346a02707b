"""Random programs: well formed, reproducible, ending, and the same in both engines."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from run_vectors import ENGINES, HELPER_IDS, machine_for, run_in_sandbox

from bpfvm import isa, vm
from bpfvm.asm import assemble
from bpfvm.disasm import disassemble
from bpfvm.errors import RunFault
from bpfvm.flow import check_structure, find_subprogs
from bpfvm.generate import MADE, generate, random_program
from bpfvm.isa import Kind, LdKind
from bpfvm.program import ObjectFile, Program

#: Rows that no generated program has: what neither engine runs, or needs BTF.
LEFT_OUT = {Kind.LD_ABS, Kind.LD_IND}
LEFT_OUT_WIDE = {LdKind.MAP_FD, LdKind.MAP_VALUE, LdKind.BTF_ID, LdKind.FUNC}


def outcome(engine: str, program: Program) -> str:
    file = ObjectFile("random", {program.name: program}, program.maps)
    try:
        return hex(run_in_sandbox(engine, program, machine_for(file), bytes(4096)).r0)
    except RunFault as fault:
        return str(fault)


@pytest.mark.parametrize("seed", range(40))
def test_both_engines_agree_on_a_random_program(seed: int) -> None:
    program = random_program(seed)
    check_structure(program.insns)
    assert len({outcome(engine, program) for engine in ENGINES}) == 1


@pytest.mark.parametrize("prog_type", MADE)
def test_a_program_of_each_type_ends_by_itself(prog_type: str) -> None:
    for seed in range(5):
        program = generate(random.Random(seed), prog_type=prog_type, size=10)
        assert program.prog_type == prog_type
        assert program.subprogs == find_subprogs(program.insns, {0: "random"})
        assert outcome("interp", program).startswith("0x")


@pytest.mark.parametrize("seed", range(30))
def test_a_program_that_may_not_do_wild_things_verifies(seed: int) -> None:
    rng = random.Random(seed)
    program = generate(rng, prog_type=rng.choice(MADE), size=12)
    file = ObjectFile("random", {program.name: program}, program.maps)
    verdict = vm.Object(file).programs[program.name].verify(log_level=0)
    assert verdict.ok, verdict.last


def test_repeatable_programs_ask_for_nothing_of_the_machine() -> None:
    called = set()
    for seed in range(60):
        for insn in random_program(seed, repeatable=True).insns:
            row = isa.lookup(insn)
            assert row is None or row.kind is not Kind.CALLX
            if row is not None and row.kind is Kind.CALL and row.op is isa.CallKind.HELPER:
                called.add(insn.imm)
    assert called == {1, 2, 3}


def test_a_seed_gives_one_program() -> None:
    assert random_program(7) == random_program(7)
    assert random_program(7) != random_program(8)


def test_every_row_is_generated_sooner_or_later() -> None:
    seen: Counter[str] = Counter()
    for seed in range(300):
        for insn in random_program(seed).insns:
            row = isa.lookup(insn)
            if row is not None:
                seen[row.mnemonic] += 1
    expected = {
        row.mnemonic
        for row in isa.TABLE
        if not row.arena and row.kind not in LEFT_OUT and row.op not in LEFT_OUT_WIDE
    }
    assert expected == set(seen)


def test_what_an_unverified_run_may_do_is_kept_out_of_the_others() -> None:
    for seed in range(60):
        for insn in generate(random.Random(seed)).insns:
            row = isa.lookup(insn)
            if row is None:
                continue
            assert row.kind is not Kind.CALLX
            if row.kind is Kind.ALU and not row.is_reg:
                assert not (row.op in (isa.AluOp.DIV, isa.AluOp.SMOD) and insn.imm == 0)
                assert row.op is not isa.AluOp.LSH or 0 <= insn.imm < row.width


@pytest.mark.parametrize("seed", range(100, 110))
def test_random_programs_survive_the_round_trip(seed: int) -> None:
    program = random_program(seed)
    text = disassemble(program, HELPER_IDS)
    assert assemble(text, helpers=HELPER_IDS).programs[program.name] == program
