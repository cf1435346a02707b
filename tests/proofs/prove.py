"""Prove the value domain: `python tests/proofs/prove.py METHOD [PATTERN]`; `table` writes the docs.

METHOD is `smt` (64 bits), `smt8` (products, quotients, remainders), `smtmul` (tnum products),
`exhaustive`, `random` or `table`. PATTERN picks by "domain function", as a regular expression.
What comes out is kept in `results.json`, from which `table` makes `verifier/PROOFS.md`.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from exhaustive import World

from bpfvm.isa import AluOp, JmpOp

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results.json"
TABLE = HERE.parents[1] / "verifier" / "PROOFS.md"
_SMT = {"smt": "64", "smt8": "products", "smtmul": "mul"}
#: Seconds after which one question to the solver is given up.
TIMEOUT = 120
RANDOM_CASES = 100_000_000

Row = tuple[str, str, str, dict[str, Any]]


def smt(method: str, pattern: str) -> Iterator[Row]:
    """Prove by z3."""
    for task in importlib.import_module("smt").tasks(_SMT[method]):
        if not re.search(pattern, f"{task.domain} {task.function}"):
            continue
        proof = task.run(TIMEOUT)
        yield (
            task.domain,
            task.function,
            f"smt{task.width}",
            {
                "ok": proof.proven,
                "paths": proof.paths,
                "unknown": proof.unknown,
                "counterexample": proof.counterexample,
                "seconds": round(proof.seconds, 1),
            },
        )


def exhaustive(pattern: str) -> Iterator[Row]:
    """Try all there is in words of 4 bits with halves of 2."""
    world = World(4, 2)
    for domain in ("7.3", "6.18"):
        jobs = [job for job in world.jobs(domain) if re.search(pattern, f"{domain} {job[0]}")]
        scalars = world.scalars(domain) if jobs else []
        for name, job in jobs:
            started = time.perf_counter()
            count, of = job(scalars)
            yield (
                domain,
                name,
                "exhaustive4",
                {
                    "ok": True,
                    "cases": count,
                    "of": of,
                    "seconds": round(time.perf_counter() - started, 1),
                },
            )


def at_random(pattern: str) -> Iterator[Row]:
    """Try random members of random scalars of 64 bits."""
    for domain, name, run in importlib.import_module("sampling").sample():
        if re.search(pattern, f"{domain} {name}"):
            started = time.perf_counter()
            yield (
                domain,
                name,
                "random64",
                {
                    "ok": True,
                    "cases": run(RANDOM_CASES),
                    "seed": 1,
                    "seconds": round(time.perf_counter() - started, 1),
                },
            )


def keep(row: Row) -> None:
    """Add a result to those there are."""
    domain, function, method, result = row
    rows = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows.setdefault(function, {}).setdefault(domain, {})[method] = result
    RESULTS.write_text(json.dumps(rows, indent=1, sort_keys=True) + "\n")


_INTRO = """# What is proved of the value domain

Each function of `tnum.py`, `cnum.py`, `bounds.py`, `alu.py`, `branch.py` and their 7.3 kin promises
that no member is lost. This table, made by `tests/proofs/prove.py table` from what its runs left in
`tests/proofs/results.json`, says how that is known. The sources are loaded as they are
(`tests/proofs/loader.py`); only `verifier/width.py` is another one where words are smaller.

- **SMT**: z3 proved it for all numbers, of 64 bits unless said otherwise, along every path of the
  Python source (`symbolic.py`, `smt.py`): any tnum, any ends, any ranges that hold the member.
  `settle` and `sync` are left out where they end another function, for they are proved by
  themselves (the `sync:` rows), and so are functions on circular ranges in what uses them, where
  just what their own rows say is assumed (`is_taken` too, in 7.3's comparisons, which begin with
  it). An `if` that only assigns is made a choice
  (`merging.py`); every other one forks the path.
- **4 bits**: tried on all there is in words of 4 bits with halves of 2: every scalar that sync
  makes of any ranges, and pairs of them; "of" says how many there are where not each was tried.
- **random**: members of scalars of 64 bits, drawn with a fixed seed (`sampling.py`).
- **argument**: in words, below.

A time-out is "not proven" and is written so; an empty cell was not run. To do all again (hours on
one core; a pattern after the method picks rows): install the extra `dev`, then
`PYTHONPATH=. python tests/proofs/prove.py METHOD` with `smt`, `smt8`, `smtmul`, `exhaustive`,
`random` and last `table`. `pytest tests/proofs` does a part of it in a minute.

"""

_ARGUMENTS = """
## Arguments

**mul (tnum).** The loop keeps: for every member x of what was *a* at the start, cut to the bits
already shifted out, and every member y of *b*, the accumulator holds x*y. A known one adds the
shifted *b*, a known zero nothing, an unknown bit joins both by `union`, which holds both; `add`,
`union` and the shifts are proved at 64 bits, and the loop ends when no bit of *a* is left or the
accumulator holds everything. The sum and the join written out in the loop are `add` and `union`.

**mul (ranges).** Unsigned: products grow with both factors, so that the products of the ends
enclose all, unless the largest does not fit. Signed: x*y with x and y in intervals has its extremes
at corners, as it is linear in either; the four corners enclose all, unless one does not fit. Both
hold for any width; nothing in the source depends on it but the limits.

**div, mod.** For a fixed divisor c, truncated quotients grow with the dividend (c > 0) or fall
(c < 0), so that the ends' quotients enclose all; only the least number by -1 wraps, to itself, and
is told apart. A remainder is smaller than the divisor, has the dividend's sign, and is no further
from zero than the dividend; a dividend nearer to zero than the divisor is its own remainder. 6.18
follows neither: its result is any number.
"""


def _cell(methods: dict[str, Any]) -> list[str]:
    """Return the cells SMT, 4 bits, random of one row."""
    cells = ["", "", ""]
    for method, result in sorted(methods.items()):
        seconds = f"{result['seconds']} s"
        if method.startswith("smt"):
            width = method.removeprefix("smt")
            label = "" if width == "64" else f"{width} bits: "
            if result["ok"]:
                cells[0] = f"{label}proved, {result['paths']} paths, {seconds}"
            else:
                cells[0] = f"{label}**not proven** ({result['unknown']} time-outs)"
                if result["counterexample"]:
                    cells[0] = f"{label}**FALSE**"
        elif method == "exhaustive4":
            whole = "" if result["cases"] == result["of"] else f" of {result['of']:,}"
            cells[1] = f"{result['cases']:,}{whole}"
        else:
            cells[2] = f"{result['cases']:,}, seed {result['seed']}"
    return cells


def table() -> str:
    """Return the docs."""
    rows = json.loads(RESULTS.read_text())
    for op, bits, domain in product((*AluOp, *JmpOp), (32, 64), ("6.18", "7.3")):
        rows.setdefault(f"{op.name.lower()}{bits}", {}).setdefault(domain, {})
    lines = [
        "| Function | Domain | SMT | 4 bits | random | argument |",
        "|---|---|---|---|---|---|",
    ]
    for function in sorted(rows):
        argued = "yes" if re.match(r"tnum\.mul|mul|s?div|s?mod", function) else ""
        for domain in sorted(rows[function]):
            cells = _cell(rows[function][domain])
            lines.append(f"| `{function}` | {domain} | {' | '.join(cells)} | {argued} |")
    return _INTRO + "\n".join(lines) + "\n" + _ARGUMENTS


def main(method: str, pattern: str = "") -> int:
    """Run one method; return 1 if anything is not proven."""
    if method == "table":
        TABLE.write_text(table())
        return 0
    rows = {"exhaustive": exhaustive, "random": at_random}.get(method)
    failed = 0
    for row in rows(pattern) if rows else smt(method, pattern):
        keep(row)
        failed += not row[3]["ok"]
        print(*row, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
