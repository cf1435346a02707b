"""Random programs of static and global subprograms and callbacks: what is accepted runs safely.

The interpreter checks every access, so one that the verifier should have refused is an
`InternalError`; and both engines agree.
"""

from __future__ import annotations

import random

import pytest

from bpfvm import vm
from bpfvm.rules import KERNELS

PROGRAMS = 60
NUMBERS = (0, 8, 9)
SLOTS = (8, 16, 24, 32)
HEAD = """.map one type=array key=4 value=64 entries=1
.prog p type=syscall
.func p args=ctx ret=int
"""


class Writer:
    """Writes one program: r0, r8 and r9 hold numbers, r6 of a callee points to its caller's."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def number(self) -> int:
        return self.rng.choice(NUMBERS)

    def index(self) -> list[str]:
        """Return r1 moved by a number that may be small enough."""
        reg = self.number()
        mask = [f"r{reg} &= {self.rng.choice((1, 7, 15, 24))}"] if self.rng.random() < 0.8 else []
        return [*mask, f"r1 += r{reg}"]

    def access(self, off: int) -> str:
        reg, bits = self.number(), self.rng.choice((8, 32, 64))
        place = f"*(u{bits} *)(r1 + {off})"
        return f"{place} = r{reg}" if self.rng.random() < 0.5 else f"r{reg} = {place}"

    def statement(self, callees: list[str], callbacks: list[str], *, lent: bool) -> list[str]:
        rng, a, b = self.rng, self.number(), self.number()
        slot = rng.choice(SLOTS)
        kinds = [
            [f"r{a} = {rng.choice((0, 1, 3, 8, -1, 64))}"],
            [f"r{a} += {rng.choice((1, 4, -1, -8))}"],
            [f"r{a} += r{b}"],
            [f"*(u64 *)(r10 - {slot}) = r{a}"],
            [f"r{a} = *(u64 *)(r10 - {slot})"],
            [f"if r{a} {rng.choice(('==', '>', 's<='))} {rng.choice((0, 7))} goto +1", f"r{b} = 5"],
            ["r1 = r10", "r1 += -32", *self.index(), self.access(0)],
            ["r1 = map_value(one)", *self.index(), self.access(rng.choice((0, 8, 40)))],
            ["call bpf_get_prandom_u32"],
        ]
        if lent:
            kinds.append([rng.choice((f"*(u64 *)(r6 + 0) = r{a}", f"r{a} = *(u8 *)(r6 + 3)"))])
        kinds += [self.call(name) for name in callees] + [self.loop(name) for name in callbacks]
        return rng.choice(kinds)

    def call(self, name: str) -> list[str]:
        first = [f"r1 = r{self.number()}"] if name == "static" else ["r1 = r10", "r1 += -16"]
        return [*first, f"r2 = r{self.number()}", f"call {name}"]

    def loop(self, name: str) -> list[str]:
        count = self.rng.choice(("0", "1", "3", f"r{self.number()}"))
        start = ["r3 = r10", f"r3 += -{self.rng.choice(SLOTS)}", f"r1 = {count}"]
        return [*start, f"r2 = func({name})", "r4 = 0", "call bpf_loop"]

    def body(self, callees: list[str], callbacks: list[str], *, lent: bool = False) -> list[str]:
        zero = [f"r{reg} = 0" for reg in NUMBERS]
        zero += [f"*(u64 *)(r10 - {slot}) = {self.rng.choice((0, 0, 8))}" for slot in SLOTS]
        if lent:
            zero += ["r6 = r2", "r8 = r1"]
        lines = [
            self.statement(callees, callbacks, lent=lent) for _ in range(self.rng.randint(2, 9))
        ]
        return [*zero, *(line for part in lines for line in part)]

    def program(self) -> str:
        """Return the text; every function is called at its end, so that all are verified."""
        calls = [
            *self.call("static"),
            *self.call("shared"),
            *self.loop("outer"),
            *self.loop("inner"),
        ]
        zero = "r0 = 0\nexit"
        parts = [
            *self.body(["static", "shared"], ["outer", "inner"]), *calls, zero,
            ".func outer ret=int", *self.body(["static"], ["inner"], lent=True), zero,
            ".func inner ret=int", *self.body(["static", "shared"], [], lent=True), "r0 &= 1\nexit",
            ".func static ret=int", *self.body([], []), self.rng.choice(("exit", "r0 &= 7\nexit")),
            '.func shared global args="mem:16+nonnull,u64" ret=int', "r2 = r1",
            *self.body(["static"], [], lent=True), "r0 = 1\nexit",
        ]  # fmt: skip
        return HEAD + "\n".join(parts)


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_accepted_runs_safely(kernel: str) -> None:
    accepted = 0
    for seed in range(PROGRAMS):
        text = Writer(random.Random(seed)).program()
        program = vm.assemble(text).programs["p"]
        if not program.verify(kernel=kernel, log_level=0).ok:
            continue
        accepted += 1
        results = []
        for engine in ("interp", "jit") if accepted % 5 == 0 else ("interp",):
            program = vm.assemble(text).programs["p"]
            results.append(
                program.run(engine=engine, kernel=kernel, setup=lambda run: run.rng.seed(1)).r0
            )
        assert len(set(results)) == 1, f"seed {seed}"
    assert accepted >= PROGRAMS // 5
