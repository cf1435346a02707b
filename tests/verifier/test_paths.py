"""What a verifier skips must be safe to skip, and what it accepts both engines run alike.

`BPFVM_FUZZ=N` tries N times as many programs.
"""

from __future__ import annotations

import os
import random
from dataclasses import replace

import pytest
from case_kit import read_cases, verdict_of
from edge_kit import edge_program
from model_kit import Unsafe, run
from path_kit import path_program, without_pruning

from bpfvm import diff
from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn
from bpfvm.isa import TABLE
from bpfvm.program import ObjectFile, Program
from bpfvm.rules import KERNELS
from verifier import explore

pytestmark = pytest.mark.property

_TIMES = int(os.environ.get("BPFVM_FUZZ", "1"))
_UNPRUNED_LIMIT = 8_000
#: Complaints about the kind of a value that nothing depended on: the kernel takes data that
#: nobody looked at as equal to anything.
_OF_KIND = {"fill_size"}
_INPUTS = range(6)


def _chunks(count: int, size: int) -> list[range]:
    end = count * _TIMES
    return [range(start, min(start + size, end)) for start in range(0, end, size)]


def _check_skipped(seed: int) -> bool:
    """Check one program; return whether it was accepted and walked whole."""
    program = path_program(seed)
    kernel = KERNELS[seed % len(KERNELS)]
    verdict = verdict_of(program, kernel)
    if verdict.xlated is None:
        return False
    with without_pruning(_UNPRUNED_LIMIT):
        whole = verdict_of(program, kernel)
    is_whole = whole.reason != "too_large"
    assert whole.ok or not is_whole or whole.reason in _OF_KIND, f"seed {seed}: {whole.last}"
    for start in _INPUTS:
        try:
            executed = run(program, start)
        except Unsafe as e:
            pytest.fail(f"seed {seed}, input {start}: {e}")
        assert all(verdict.xlated.aux[slot].seen for slot in executed), f"seed {seed}"
    return is_whole


@pytest.mark.parametrize("seeds", _chunks(200, 50), ids=str)
def test_skipped_paths_are_safe(seeds: range) -> None:
    assert sum(map(_check_skipped, seeds)) >= len(seeds) // 5


@pytest.mark.parametrize("seeds", _chunks(16, 8), ids=str)
def test_engines_agree_on_accepted_programs(seeds: range) -> None:
    compared = 0
    for seed in seeds:
        for program in (path_program(seed), edge_program(seed)):
            if not verdict_of(program, KERNELS[-1]).ok:
                continue
            packet = random.Random(seed).randbytes(64)
            given = diff.Input(bytes(65535 if program.prog_type == "syscall" else 96), packet, seed)
            file = ObjectFile(program.name, {program.name: program}, program.maps)
            (result,) = diff.compare(file, given)
            assert result.difference is None, f"{program.name}: {result.difference}"
            compared += result.verified
    assert compared >= len(seeds) // 4


# -- anything at all ---------------------------------------------------------------------------

_OPCODES = sorted({row.opcode for row in TABLE})
_IMMS = (0, 1, -1, 2, 3, 6, 7, 8, 16, 32, 63, 64, 0x100, 0x110, 0xE1, 0xF1, 0x10000, 1 << 29)
_OFFS = (0, 1, -1, 2, -2, 8, -8, -16, -512, -520, 16, 32767, -32768)


def _any_insn(rng: random.Random) -> Insn:
    opcode = rng.choice(_OPCODES) if rng.random() < 0.8 else rng.randrange(256)
    regs = 11 if rng.random() < 0.9 else 16
    imm = rng.choice(_IMMS) if rng.random() < 0.8 else rng.randrange(-(1 << 31), 1 << 31)
    return Insn(opcode, rng.randrange(regs), rng.randrange(regs), rng.choice(_OFFS), imm)


def _damaged(rng: random.Random, program: Program) -> Program:
    """Return *program* with a few slots changed, put in or taken out."""
    insns = list(program.insns)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(insns))
        new = _any_insn(rng)
        kind = rng.randrange(9)
        if kind < 5:
            name = Insn._fields[kind]
            insns[at] = insns[at]._replace(**{name: getattr(new, name)})
        elif kind == 5:
            insns[at] = new
        elif kind == 6:
            insns.insert(at, new)
        elif kind == 7:
            insns[at] = rng.choice(insns)
        elif len(insns) > 1:
            del insns[at]
    code = tuple(insns)
    try:
        subprogs = find_subprogs(code, {0: program.name})
    except IndexError:
        subprogs = program.subprogs
    flags = rng.choice((0, 0, 0, 1, 8))
    return replace(program, insns=code, subprogs=subprogs, flags=flags)


@pytest.mark.parametrize("seeds", _chunks(600, 100), ids=str)
def test_every_answer_is_a_verdict(seeds: range, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explore, "MAX_PROCESSED", 2_000)
    cases = [case.program() for case in read_cases()]
    verdicts = []
    for seed in seeds:
        rng = random.Random(seed)
        sound = rng.choice((path_program(seed), edge_program(seed), rng.choice(cases)))
        program = _damaged(rng, sound)
        for kernel in KERNELS:
            verdict = verdict_of(program, kernel, rng.choice((0, 1, 2, 7)))
            assert verdict.ok == (verdict.errno == 0) == (verdict.xlated is not None)
            assert bool(verdict.last) != verdict.ok
            verdicts.append(verdict)
    assert len({verdict.reason for verdict in verdicts}) >= 10
