"""The LLVM IR of three small programs, to be read: tests/golden/jit.

`PYTHONPATH=. python tests/jit/test_jit_golden.py` rewrites the files; read the difference before
committing it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfvm import isa
from bpfvm.flow import find_subprogs
from bpfvm.insn import Insn
from bpfvm.memory import RegionKind
from bpfvm.program import Program
from bpfvm.xlated import InsnAux, Xlated
from jit.lower import lower

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "jit"
ROWS = {row.mnemonic: row for row in isa.TABLE}


def op(mnemonic: str, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> Insn:
    row = ROWS[mnemonic]
    return Insn(row.opcode, dst, src, off, imm)._replace(**dict(row.fixed))


PROGRAMS = {
    # The sum of r1, r1 - 1, ..., kept in the stack, which becomes a value of LLVM's.
    "verified_sum": (
        True,
        [
            op("stdw", 10, off=-8),
            op("ldxdw", 0, 10, off=-8),
            op("add_reg", 0, 1),
            op("stxdw", 10, 0, off=-8),
            op("sub_imm", 1, imm=1),
            op("jne_imm", 1, off=-5),
            op("exit"),
        ],
    ),
    # A list walk: an arena load behind its presence check, and a may_goto.
    "verified_walk": (
        True,
        [
            op("may_goto", off=3),
            op("mov32_reg", 1, 1),
            op("arena_ldxdw", 1, 1, off=8),
            op("jne_imm", 1, off=-4),
            op("mov_imm", 0),
            op("exit"),
        ],
    ),
    # Budget, checked accesses, a helper and a local call.
    "sandbox_calls": (
        False,
        [
            op("stxw", 1, 2, off=4),
            op("call_helper", imm=7),
            op("call_local", imm=1),
            op("exit"),
            op("sdiv32_reg", 0, 1),
            op("exit"),
        ],
    ),
}


def text_of(name: str) -> str:
    verified, insns = PROGRAMS[name]
    program = Program(name, tuple(insns), "xdp", find_subprogs(insns))
    aux = (InsnAux(access=RegionKind.STACK),) * len(insns)
    lowered = lower(Xlated(program, program.insns, aux, verified), arena=verified)
    # The functions that all programs share come first.
    return lowered.text[lowered.text.index("define internal i64 @sub_0") :]


@pytest.mark.parametrize("name", PROGRAMS)
def test_llvm_ir(name: str) -> None:
    assert text_of(name) == (FOLDER / f"{name}.ll").read_text()


if __name__ == "__main__":
    for each in PROGRAMS:
        (FOLDER / f"{each}.ll").write_text(text_of(each))
