"""Sums `bpfvm test --json` up: how many pass, and what fails and is skipped, by cause.

bpfvm test --json *.bpf.o > report.json; python tests/bench/summary.py report.json
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

_SHOWN = 4
#: Failures before or in the verdict.
_VERDICT = re.compile(r"expected (accept|reject)|it took longer|the worker|this is a bug")


def cause_of(row: Row) -> str:
    """Return a row's reason without what is of that program alone."""
    text = row["why"]
    text = re.sub(r"^section '\?*([\w.]+)[^']*'", r"section '\1...'", text)
    text = re.sub(r"insn \d+", "insn N", text)
    text = re.sub(r"0x[0-9a-f]+", "0xN", text)
    text = re.sub(r"(?<![#\w])-?\d+", "N", text)
    return re.sub(r"\bR\d+\b", "RN", text)[:150]


def share(part: int, whole: int) -> str:
    """Return a share in percent."""
    return f"{part} of {whole} ({100 * part / whole:.1f} %)" if whole else "0 of 0"


def _is_unpriv(row: Row) -> bool:
    return str(row["program"]).endswith("@unpriv")


def figures(rows: Sequence[Row], name: str) -> list[str]:
    """Return the figures of *rows*."""
    judged = [r for r in rows if r["outcome"] != "skip"]
    tests = [r for r in rows if r["expected"]]
    # A verdict that changed between kernels, as the row tells, is right.
    right = [r for r in judged if r["outcome"] == "pass" or not _VERDICT.match(r["why"])]
    passed = [r for r in rows if r["outcome"] == "pass"]
    return [
        f"{name}: {len(rows)} programs, {len(tests)} with expectations",
        f"  judged {len(judged)}: verdict right {share(len(right), len(judged))}, "
        f"passed {share(len(passed), len(judged))}",
        f"  of all with expectations passed {share(len(passed), len(tests))}",
    ]


def causes(rows: Sequence[Row], outcome: str) -> list[str]:
    """Return the causes of *outcome*, the most frequent first."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row["outcome"] == outcome:
            stem = Path(row["object"]).name.split(".")[0]
            found[cause_of(row)].append(f"{stem}/{row['program']}")
    lines = []
    for cause, names in sorted(found.items(), key=lambda item: -len(item[1])):
        more = f" ... ({len(names)})" if len(names) > _SHOWN else ""
        lines.append(f"{len(names):5}  {cause}\n         {', '.join(names[:_SHOWN])}{more}")
    return lines


def summary(rows: Sequence[Row]) -> Iterator[str]:
    """Yield the lines of the summary."""
    yield str(dict(Counter(r["outcome"] for r in rows)))
    yield from figures([r for r in rows if not _is_unpriv(r)], "root")
    yield from figures([r for r in rows if _is_unpriv(r)], "without privileges")
    for outcome in ("fail", "skip"):
        yield f"\n{outcome}:"
        yield from causes(rows, outcome)


if __name__ == "__main__":
    report: list[Row] = json.loads(Path(sys.argv[1]).read_text())
    sys.stdout.write("\n".join(summary(report)) + "\n")
