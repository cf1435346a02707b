"""Measure how many insns the verifier processes in a second.

Usage: python tests/bench/verifier_speed.py [--largest N] [--kernel 7.3|6.18] [OBJECT...]

Walks a loop of a million insns over unknown scalars, some made-up programs (packet parsing,
nested loops, calls, spills), our examples and the programs of OBJECTs; the best of three runs,
one for what takes over two seconds. Prints for each: processed insns, seconds of processor time,
insns/s; the median at the end. With --largest only the N programs of the OBJECTs that took the
most insns are shown. Where `bpf(2)` can be had through ../shared/oracle, the made-up programs are
loaded into the running kernel too, and its own `verification time` gives a ratio.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import bpfvm
from bpfvm.errors import BpfError
from bpfvm.insn import encode
from bpfvm.rules import KERNELS, NEWEST, KernelRules
from bpfvm.vm import MAP_TYPES, REGISTRY, Prog
from verifier import verify

ROOT = Path(__file__).resolve().parents[2]
TAINTED = Path("/proc/sys/kernel/tainted")
STATS = 4

#: 11 insns a turn, 90,000 turns.
LOOP = """
.prog loop_of_unknowns type=xdp
    r6 = *(u32 *)(r1 + 12)
    r7 = *(u32 *)(r1 + 16)
    r8 = 0
again:
    r0 = r6
    r0 <<= 13
    r6 ^= r0
    r0 = r6
    r0 >>= 7
    r7 += r0
    w6 += w7
    r0 = r7
    r0 &= 255
    r8 += 1
    if r8 < 90000 goto again
    r0 = 0
    exit
"""

#: A loop over TLVs of unknown length in a packet; each turn has many ways.
PARSER = """
.prog parser type=xdp
    r6 = *(u32 *)(r1 + 0)
    r7 = *(u32 *)(r1 + 4)
    r8 = 0
    r9 = 0
again:
    r2 = r6
    r2 += 2
    if r2 > r7 goto out
    r3 = *(u8 *)(r6 + 0)
    r4 = *(u8 *)(r6 + 1)
    if r3 == 0 goto out
    if r3 == 1 goto one
    if r4 < 2 goto out
    if r4 > 40 goto out
    if r3 != 2 goto other
    r9 += r4
    goto next
other:
    if r3 != 8 goto next
    *(u64 *)(r10 - 8) = r4
    r9 = 7
next:
    r6 += r4
    goto turn
one:
    r6 += 1
turn:
    r8 += 1
    if r8 != 12 goto again
out:
    r0 = r9
    exit
"""

NESTED = """
.prog nested type=xdp
    r6 = *(u32 *)(r1 + 12)
    r0 = 0
    r7 = 0
outer:
    r8 = 0
inner:
    r2 = r6
    r2 >>= 3
    r2 ^= r7
    if r2 & 1 goto odd
    r0 += r8
odd:
    r8 += 1
    if r8 < 40 goto inner
    r7 += 1
    if r7 < 40 goto outer
    r0 &= 1
    exit
"""

CALLS = """
.prog calls type=xdp
    r6 = *(u32 *)(r1 + 12)
    r7 = 0
    *(u64 *)(r10 - 16) = 0
again:
    r1 = r10
    r1 += -16
    r2 = r6
    r3 = r7
    call step
    r6 += r0
    r7 += 1
    if r7 < 200 goto again
    r0 = *(u64 *)(r10 - 16)
    r0 &= 1
    exit
step:
    r4 = *(u64 *)(r1 + 0)
    r4 += r2
    *(u64 *)(r1 + 0) = r4
    *(u64 *)(r10 - 8) = r3
    r0 = r2
    r0 &= 15
    if r0 > 7 goto large
    r5 = *(u64 *)(r10 - 8)
    if r5 > 100 goto large
    r0 = 1
large:
    exit
"""
MADE_UP = (LOOP, PARSER, NESTED, CALLS)


def in_the_kernel(prog: Prog) -> float | None:
    """Return the seconds in which the running kernel verifies *prog*, if it can be asked."""
    oracle = ROOT.parent / "shared" / "oracle" / "oracle"
    if not oracle.exists() or not TAINTED.exists() or TAINTED.read_text().strip() != "0":
        return None
    program = prog.program
    request = {
        "prog_type": program.prog_type,
        "license": "GPL",
        "log_level": STATS,
        "insns": encode(program.insns).hex(),
    }
    done = subprocess.run(
        [str(oracle)], input=json.dumps(request), capture_output=True, text=True, check=False
    )
    try:
        log = json.loads(done.stdout)["load"]["log"]
    except (ValueError, KeyError):
        return None
    found = re.search(r"verification time (\d+) usec", log)
    return int(found[1]) / 1e6 if found else None


def measure(prog: Prog, kernel: str) -> tuple[int, float, str]:
    """Return (processed insns, best seconds, what was said at the end)."""
    best = 0.0
    for _ in range(3):
        start = time.process_time()
        verdict = verify(
            prog.program,
            prog.owner.facts,
            REGISTRY,
            map_types=MAP_TYPES,
            rules=KernelRules.of(kernel),
            log_level=0,
        )
        took = time.process_time() - start
        best = min(best or took, took)
        if took > 2:
            break
    return verdict.stats.processed, best, "" if verdict.ok else verdict.last


def programs(objects: list[str]) -> Iterator[tuple[str, Prog]]:
    """Yield (name, program) of the files."""
    for path in objects:
        try:
            obj = bpfvm.open(path)
            _ = obj.facts
        except BpfError as error:  # of maps that are not there yet, say
            sys.stderr.write(f"{error}\n")
            continue
        for name, prog in obj.programs.items():
            yield f"{Path(path).name.removesuffix('.bpf.o')}:{name}", prog


def show(name: str, processed: int, seconds: float, note: str) -> None:
    """Print one line."""
    rate = processed / seconds
    sys.stdout.write(f"{name:42.42} {processed:9,} {seconds:9.3f} s {rate:10,.0f} insns/s {note}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("objects", nargs="*")
    parser.add_argument("--largest", type=int, default=0)
    parser.add_argument("--kernel", choices=KERNELS, default=NEWEST)
    options = parser.parse_args()
    rates = []
    for text in MADE_UP:
        for name, prog in bpfvm.assemble(text).programs.items():
            processed, seconds, said = measure(prog, options.kernel)
            rates.append(processed / seconds)
            theirs = in_the_kernel(prog)
            note = "" if theirs is None else f"{seconds / theirs:.0f} times the kernel's"
            show(name, processed, seconds, f"{said} {note}".strip())
    sys.stdout.write(f"median of the made-up programs: {statistics.median(rates):,.0f} insns/s\n\n")
    examples = sorted(str(path) for path in (ROOT / "examples").glob("*.bpf.o"))
    for title, objects, largest in (
        ("our examples", examples, 0),
        ("the objects' programs", options.objects, options.largest),
    ):
        found = [(name, *measure(prog, options.kernel)) for name, prog in programs(objects)]
        if largest:
            found = sorted(found, key=lambda row: -row[1])[:largest]
        for row in found:
            show(*row)
        if found:
            median = statistics.median(processed / seconds for _, processed, seconds, _ in found)
            sys.stdout.write(f"median of {title}: {median:,.0f} insns/s\n\n")


if __name__ == "__main__":
    main()
