"""Families of programs, and the program of a seed."""

from __future__ import annotations

import random
from collections.abc import Mapping

from bpfvm.context import PROG_TYPES, Sleepable
from bpfvm.emit import Emitter, joined
from bpfvm.flow import find_subprogs
from bpfvm.generate import MADE
from bpfvm.grammar import flow, memory
from bpfvm.grammar.core import CTX, NUMBERS, Fragment, Grammar
from bpfvm.program import Program

__all__ = ["FAMILIES", "grammar_program"]

_SOME = flow.NEW_NUMBERS

#: What the programs of a family are made of, by weight.
FAMILIES: Mapping[str, list[tuple[int, Fragment]]] = {
    "stack": [*memory.STACK, *_SOME],
    "maps": [*memory.MAPS, *_SOME],
    "packets": [*memory.PACKETS, *memory.CONTEXT],
    "arena": [*memory.ARENA, *_SOME],
    "calls": [*flow.CALLS, *_SOME],
    "limits": [*memory.LIMITS, *memory.STACK, *_SOME],
    "loops": [*flow.LOOPS, *_SOME],
    "numbers": [*flow.ARITHMETIC, *_SOME],
    "branches": [*flow.BRANCHES, *_SOME],
    "all": [
        *memory.STACK,
        *memory.MAPS,
        *memory.CONTEXT,
        *memory.ARENA,
        *memory.LIMITS,
        *flow.CALLS,
        *flow.LOOPS,
        *flow.ARITHMETIC,
        *flow.BRANCHES,
    ],
}
#: BPF_F_TEST_STATE_FREQ: states are saved wherever that is possible, and more is pruned.
_TEST_STATE_FREQ = 8


def grammar_program(seed: int, family: str | None = None) -> Program:
    """Return the program of *seed*: of *family*, or of any."""
    rng = random.Random(f"{seed} {family}")
    if family is None:
        family = rng.choice(list(FAMILIES))
    prog_type = rng.choice(("xdp", "sched_cls") if family == "packets" else MADE)
    g = Grammar(rng, prog_type, slips=rng.choice((0, 1, 1, 1, 2, 3)))
    g.fragments = FAMILIES[family]
    main = Emitter()
    g.functions.append(main)
    g.current = main
    g.emit("mov_reg", CTX, 1)
    for reg in NUMBERS:
        g.some_number(reg) if g.maybe(0.7) else g.emit("mov_imm", reg, imm=rng.choice((0, 1, 5)))
    for _ in range(rng.choice((1, 2, 3, 5))):
        g.fragment()
    _end(g)
    insns = joined(g.functions)
    name = f"{family}-{seed}"
    return Program(
        name,
        insns,
        prog_type,
        find_subprogs(insns, {0: "main"}),
        PROG_TYPES[prog_type].sleepable is Sleepable.MUST,
        maps=tuple(g.maps),
        kfuncs=tuple(g.kfuncs),
        flags=rng.choice((0, 0, _TEST_STATE_FREQ)),
    )


def _end(g: Grammar) -> None:
    if g.slip(0.05):
        g.emit("mov_reg", 0, CTX)
    elif g.maybe(0.5):
        g.emit("mov_imm", 0, imm=g.rng.choice((0, 1, 2)))
    else:
        g.emit("mov_reg", 0, g.number_reg())
    g.emit("exit")
