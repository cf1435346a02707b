"""Walk an arena list in our JIT and in the running kernel's, the same insns in one run.

Usage: python tests/bench/jit_vs_kernel.py [NODES [ROUNDS]]
Prints the time for each visited node, the best of several runs, in our JIT, in the kernel's, and
their ratio; then how long our JIT took to compile. The kernel is asked through ../shared/oracle,
as root; where that can't be had only our figures are printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import bpfvm
from bpfvm.insn import encode
from bpfvm.isa import CallKind, Kind, LdKind, lookup
from bpfvm.program import Program
from bpfvm.vm import Prog
from jit.engine import Jit

ROOT = Path(__file__).resolve().parents[2]
RUNS = 9
PAGES = 64
NODE = 16

#: ctx: count of nodes, rounds. out: ns for all rounds, sum of the values.
WALK = f"""
.map arena type=arena entries={PAGES} flags=mmapable extra=0x100000000000
.map out type=array key=4 value=16 entries=1
.prog walk type=syscall sleepable
    r9 = r1
    r1 = map(arena)
    r2 = 0
    r3 = {PAGES - 1}
    r4 = -1
    r5 = 0
    call bpf_arena_alloc_pages
    if r0 == 0 goto out_of_pages
    r8 = r0                            ; the head
    r6 = *(u64 *)(r9 + 0)
    r1 = r0
    r2 = 0
build:
    r2 += 1
    r3 = r1
    r3 += {NODE}
    r4 = addr_space_cast(r1, 0x0, 0x1)
    *(u64 *)(r4 + 0) = r3              ; next
    *(u64 *)(r4 + 8) = r2              ; value
    r1 = r3
    may_goto built
    if r2 < r6 goto build
built:
    *(u64 *)(r4 + 0) = 0
    r7 = *(u64 *)(r9 + 8)
    call 5                             ; bpf_ktime_get_ns
    r9 = r0
    r6 = 0
round:
    r1 = r8
walk:
    r1 = addr_space_cast(r1, 0x0, 0x1)
    r2 = *(u64 *)(r1 + 8)
    r6 += r2
    r1 = *(u64 *)(r1 + 0)
    may_goto walked
    if r1 != 0 goto walk
    r7 += -1
    may_goto walked
    if r7 != 0 goto round
walked:
    call 5
    r0 -= r9
    r1 = map_value(out)
    *(u64 *)(r1 + 0) = r0
    *(u64 *)(r1 + 8) = r6
    r1 = map(arena)
    r2 = r8
    r3 = {PAGES - 1}
    call bpf_arena_free_pages
    r0 = 0
    exit
out_of_pages:
    r0 = 1
    exit
"""


def request(program: Program, ctx: bytes) -> dict[str, Any]:
    """Return what the oracle is asked: this very program, references as fixups."""
    fixups = []
    for slot, insn in enumerate(program.insns):
        row = lookup(insn)
        if row is None:
            continue
        if row.kind is Kind.LDIMM64 and row.op in (LdKind.MAP_IDX, LdKind.MAP_IDX_VALUE):
            value = row.op is LdKind.MAP_IDX_VALUE
            fixups.append(
                {
                    "insn": slot,
                    "kind": "map_value" if value else "map_fd",
                    "name": program.maps[insn.imm].name,
                    **({"off": program.insns[slot + 1].imm} if value else {}),
                }
            )
        elif row.kind is Kind.CALL and row.op is CallKind.KFUNC:
            fixups.append({"insn": slot, "kind": "kfunc", "name": program.kfuncs[insn.imm]})
    kinds = {2: "array", 33: "arena"}
    maps = {
        m.name: {
            "type": kinds[m.map_type],
            "max_entries": m.max_entries,
            "map_extra": hex(m.map_extra),
            **({"key_size": m.key_size, "value_size": m.value_size} if m.map_type == 2 else {}),
        }
        for m in program.maps
    }
    return {
        "prog_type": program.prog_type,
        "flags": ["sleepable"],
        "insns": encode(program.insns).hex(),
        "fixups": fixups,
        "maps": maps,
        "run": {"ctx_in": ctx.hex()},
        "dump": {"out": True},
    }


def in_the_kernel(program: Program, ctx: bytes, total: int) -> int | str:
    """Return the best ns for all nodes in the kernel's JIT, or why there is none."""
    tool = ROOT.parent / "shared" / "oracle" / "oracle"
    if not tool.is_file() or os.geteuid() != 0:
        return "no kernel to ask"
    if Path("/proc/sys/kernel/tainted").read_text().strip() != "0":
        return "the running kernel is tainted: it is not asked any more"
    line = json.dumps(request(program, ctx))
    done = subprocess.run(
        [tool, "--lines"],
        input="\n".join([line] * RUNS),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    best = 0
    for text in done.stdout.splitlines():
        answer = json.loads(text)
        if not answer.get("ok"):
            return str(answer.get("load", {}).get("last") or answer)
        value = bytes.fromhex(answer["dump"]["out"][0]["value"])
        ns, found = (int.from_bytes(value[i : i + 8], "little") for i in (0, 8))
        if found != total:
            return f"the kernel's sum is {found}, not {total}"
        best = min(best or ns, ns)
    return best


def in_our_jit(prog: Prog, ctx: bytes, total: int) -> int:
    """Return the best ns for all nodes in our JIT."""
    best = 0
    for _ in range(RUNS):
        prog.run(engine="jit", ctx=ctx)
        value = prog.owner.maps["out"][0]
        ns, found = (int.from_bytes(value[i : i + 8], "little") for i in (0, 8))
        if found != total:
            raise SystemExit(f"our sum is {found}, not {total}")
        best = min(best or ns, ns)
    return best


def main() -> None:
    """Measure and print."""
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    ctx = nodes.to_bytes(8, "little") + rounds.to_bytes(8, "little")
    total = nodes * (nodes + 1) // 2 * rounds
    prog = bpfvm.assemble(WALK).programs["walk"]
    ours = in_our_jit(prog, ctx, total) / (nodes * rounds)
    sys.stdout.write(f"our JIT:      {ours:.2f} ns per node\n")
    theirs = in_the_kernel(prog.program, ctx, total)
    if isinstance(theirs, str):
        sys.stdout.write(f"kernel's JIT: {theirs}\n")
    else:
        per_node = theirs / (nodes * rounds)
        sys.stdout.write(f"kernel's JIT: {per_node:.2f} ns per node\n")
        sys.stdout.write(f"ours takes {ours / per_node:.2f} of the kernel's time\n")
    xlated, machine = prog.xlated(), prog.owner.machine
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        Jit().link(xlated, machine)
        times.append(time.perf_counter() - start)
    sys.stdout.write(f"compiling {len(xlated.insns)} insns: {min(times) * 1e3:.1f} ms\n")


if __name__ == "__main__":
    main()
