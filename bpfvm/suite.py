"""`bpfvm test`: judge the tests in files, in worker processes, and tell how they ended."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bpfvm import vm
from bpfvm.console import files_in
from bpfvm.errnos import errno_name
from bpfvm.errors import BpfError
from bpfvm.exits import Exit
from bpfvm.pool import Pool

__all__ = ["test"]

Row = dict[str, object]

_STYLES = {"pass": "green", "fail": "bold red", "skip": "yellow"}


def test(
    files: Sequence[str],
    pattern: str | None,
    kernel: str | None,
    written_for: str,
    engine: str | None,
    vmlinux: str | None,
    no_run: bool,
    timeout: float,
    jobs: int,
    as_json: bool,
    quiet: bool,
) -> int:
    """`bpfvm test`: judge every test in *files*."""
    request: Row = {
        "pattern": pattern,
        "kernel": kernel,
        "written_for": written_for,
        "engines": " ".join(vm.ENGINES) if engine is None else engine,
        "run": not no_run,
        "vmlinux": vmlinux,
    }
    found = Pool(request, jobs, timeout).run(files_in(files))
    rows = list(found if as_json or not sys.stderr.isatty() else _with_progress(found))
    if as_json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    elif rows:
        _print_table([r for r in rows if not quiet or r["outcome"] == "fail"])
        _print_sum(rows)
    if not rows:
        raise BpfError(f"no test is called {pattern!r}")
    return Exit.FAILED if any(r["outcome"] == "fail" for r in rows) else Exit.FINE


def _with_progress(rows: Iterable[Row]) -> Iterable[Row]:
    console = Console(stderr=True)
    with console.status("") as status:
        for count, row in enumerate(rows, 1):
            status.update(Text(f"{count} judged: {row['object']}: {row['program']}"))
            yield row


def _print_table(rows: Sequence[Row]) -> None:
    if not rows:
        return
    # Not wrapped where nobody sees a terminal: a line is a test then.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("object", "program", "section", "verdict", "retval", "outcome", "why"):
        table.add_column(name, overflow="fold")
    for row in rows:
        outcome = str(row["outcome"])
        table.add_row(
            Text(str(row["object"])),
            Text(str(row["program"])),
            Text(str(row["section"])),
            Text(_verdict(row)),
            Text("" if row["retval"] is None else str(row["retval"])),
            Text(outcome, style=_STYLES[outcome]),
            Text(str(row["why"])),
        )
    console.print(table)


def _verdict(row: Row) -> str:
    if row["verdict"] != "reject":
        return str(row["verdict"] or "")
    return f"reject {errno_name(int(str(row['errno'])))}"


def _print_sum(rows: Sequence[Row]) -> None:
    counts = Counter(str(r["outcome"]) for r in rows)
    print(", ".join(f"{counts[name]} {word}" for name, word in _WORDS.items() if counts[name]))


_WORDS = {"pass": "passed", "fail": "failed", "skip": "skipped"}
