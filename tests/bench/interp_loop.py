"""Measure the interpreter on a register-only loop, and against plain Python.

Usage: python tests/bench/interp_loop.py [ROUNDS]
Prints insns/s of an xorshift64 loop, the same loop written by hand in Python, and their ratio.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bpfvm.insn import Insn
from bpfvm.interp import Interpreter
from bpfvm.memory import AddressSpace, RegionKind
from bpfvm.program import Program
from bpfvm.proto import Registry
from bpfvm.runtime import FRAME_SIZE, MAX_FRAMES, Machine, RunContext
from bpfvm.xlated import unverified

SEED = 88172645463325252
#: r0 = seed r1; r2 times: r0 ^= r0 << 13; r0 ^= r0 >> 7; r0 ^= r0 << 17
LOOP = (
    Insn(0xBF, 0, 1),
    Insn(0xBF, 3, 0),  # loop: 11 insns
    Insn(0x67, 3, imm=13),
    Insn(0xAF, 0, 3),
    Insn(0xBF, 3, 0),
    Insn(0x77, 3, imm=7),
    Insn(0xAF, 0, 3),
    Insn(0xBF, 3, 0),
    Insn(0x67, 3, imm=17),
    Insn(0xAF, 0, 3),
    Insn(0x17, 2, imm=1),
    Insn(0x55, 2, off=-11),
    Insn(0x95),
)
PER_ROUND = 11


def plain_python(state: int, rounds: int) -> int:
    """Do what `LOOP` does, as one would write it by hand."""
    mask = (1 << 64) - 1
    while rounds:
        state ^= (state << 13) & mask
        state ^= state >> 7
        state ^= (state << 17) & mask
        rounds -= 1
    return state


def main() -> None:
    """Run both five times and print the best of each."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    machine = Machine(AddressSpace(), (), Registry([]))
    size = FRAME_SIZE * MAX_FRAMES
    stack = machine.space.add(size, RegionKind.STACK)
    program = Program("xorshift", LOOP, "socket_filter")
    linked = Interpreter().link(unverified(program), machine)
    best: dict[str, float] = {}
    for _ in range(5):
        for name, budget in (("unlimited", None), ("on a budget", 1 << 40)):
            run = RunContext(machine, program, stack.base + size, budget=budget)
            start = time.perf_counter()
            got = linked.run(run, SEED, rounds)
            took = time.perf_counter() - start
            best[name] = min(best.get(name, took), took)
        start = time.perf_counter()
        expected = plain_python(SEED, rounds)
        took = time.perf_counter() - start
        best["python"] = min(best.get("python", took), took)
        if got != expected:
            raise SystemExit(f"wrong result: {got:#x}, expected {expected:#x}")
    for name in ("unlimited", "on a budget"):
        rate = rounds * PER_ROUND / best[name] / 1e6
        share = best["python"] / best[name]
        sys.stdout.write(
            f"interpreter, {name}: {rate:.1f} M insns/s, {share:.0%} of plain Python's speed\n"
        )


if __name__ == "__main__":
    main()
