"""The process that judges tests for `bpfvm test`: one that dies costs one test, not the run.

One request a line on stdin, `{"file", "from", "pattern", "kernel", "engines", "run",
"written_for", "vmlinux"}`; answers a line each on stdout: `{"tests": [name, ...]}`, then for each
test from number "from" on `{"start": number}` and `{"row": {...}}`, then `{"end": true}`.
"""

from __future__ import annotations

import ctypes
import fnmatch
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from bpfvm import vm
from bpfvm.errors import BpfError, LoadError, NoPrograms, bug_report
from bpfvm.judge import Options, Row, judge_vector
from bpfvm.judge_object import tests_in
from bpfvm.loader import read_file, text_of
from bpfvm.vectors import has_sections, read_vectors

__all__ = ["Test", "answers", "main", "tests_of"]

Test = tuple[str, Callable[[Options], Row]]
Answer = dict[str, object]

_PR_SET_PDEATHSIG = 1


def tests_of(file: str) -> list[Test]:
    """Return the tests in *file*, each with its name and what judges it.

    Raises:
        BpfError: it can't be read, or holds no tests.
    """
    if Path(file).suffix.lower() not in (".data", ".s", ".asm"):
        return tests_in(file)
    text = text_of(read_file(file), file)
    if not text:
        raise LoadError(f"{file}: empty file")
    if Path(file).suffix.lower() != ".data" and not has_sections(text):
        name = Path(file).stem
        return [(name, partial(_skipped, file, name, "nothing is expected of it"))]
    return [(v.name, partial(judge_vector, v, file)) for v in read_vectors(text, file)]


def _skipped(file: str, name: str, why: str, _options: Options) -> Row:
    return Row(file, name).skip(why)


def _failed(file: str, why: str, _options: Options) -> Row:
    return Row(file, "").fail(why)


def answers(request: dict[str, object]) -> Iterator[Answer]:
    """Yield the answers to *request*."""
    file, first = str(request["file"]), int(str(request["from"]))
    if request["vmlinux"] is not None:
        vm.use_kernel_types(str(request["vmlinux"]))
    options = Options(
        None if request["kernel"] is None else str(request["kernel"]),
        tuple(str(request["engines"]).split()),
        bool(request["run"]),
        str(request["written_for"]),
    )
    pattern = "*" if request["pattern"] is None else str(request["pattern"])
    try:
        chosen = [t for t in tests_of(file) if fnmatch.fnmatchcase(t[0], pattern)]
    except NoPrograms:
        chosen = [("", partial(_skipped, file, "", "no programs"))]
    except BpfError as err:
        chosen = [("", partial(_failed, file, str(err).splitlines()[0]))]
    except Exception as err:  # a bug of ours: told in a row, the next file goes on
        chosen = [("", partial(_failed, file, bug_report(err)))]
    yield {"tests": [name for name, _ in chosen]}
    for number, (name, judge) in enumerate(chosen):
        if number < first:
            continue
        yield {"start": number}
        yield {"row": _judged(file, name, judge, options).as_json()}
        # The next test may want the addresses of this one's arena.
        gc.collect()
    yield {"end": True}


def _judged(file: str, name: str, judge: Callable[[Options], Row], options: Options) -> Row:
    try:
        return judge(options)
    except BpfError as err:
        return Row(file, name).fail(str(err).splitlines()[0])
    except Exception as err:  # a bug of ours: told in the row, the next test goes on
        return Row(file, name).fail(bug_report(err))


def _end_with_parent() -> None:
    """End when the process that asks ends, however it does, and silently."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform == "linux":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended meanwhile
            sys.exit(0)


def main() -> None:
    """Answer every request on stdin."""
    _end_with_parent()
    # Whatever else prints must not mix with the answers.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    gc.freeze()  # what is there now stays: the collections to come need not look at it
    for line in sys.stdin:
        for answer in answers(json.loads(line)):
            out.write(json.dumps(answer) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
