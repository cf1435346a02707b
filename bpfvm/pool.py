"""The worker processes of `bpfvm test`, and what happens when one dies or takes too long.

A worker (`bpfvm.worker`) judges the tests of one file after the other. One that dies, or is
silent for longer than a test may take, is killed and counts as a failure of the test it was at; a
new one goes on with the next.
"""

from __future__ import annotations

import json
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["WORKER", "Pool"]

Row = dict[str, object]

#: What starts a worker.
WORKER = (sys.executable, "-m", "bpfvm.worker")
#: A worker starts, and reads a file, within this many seconds beyond a test's limit.
_GRACE = 30.0
_READ = 1 << 16


@dataclass
class _Job:
    """A file, and the rows of its tests so far."""

    file: str
    rows: list[Row] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    done: bool = False


class _Worker:
    """One process, and the job it is at."""

    def __init__(self, command: Sequence[str], job: _Job, request: Row, timeout: float) -> None:
        self.job, self.timeout = job, timeout
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pending = b""
        self.request = request
        self.ask(job)

    def ask(self, job: _Job) -> None:
        """Send *job*, from the first test without a row."""
        self.job = job
        self.deadline = time.monotonic() + self.timeout + _GRACE
        line = json.dumps({**self.request, "file": job.file, "from": len(job.rows)})
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it is dead: reading finds that out

    def read(self) -> bool:
        """Take in what has been answered; return False where the process has ended."""
        assert self.process.stdout is not None
        data = self.process.stdout.read1(_READ)  # type: ignore[attr-defined]  # a BufferedReader
        *lines, self.pending = (self.pending + data).split(b"\n")
        for line in lines:
            self._take(json.loads(line))
        return bool(data)

    def _take(self, answer: dict[str, object]) -> None:
        self.deadline = time.monotonic() + self.timeout
        match answer:
            case {"tests": list(names)}:
                self.job.names = [str(n) for n in names]
            case {"row": dict(row)}:
                self.job.rows.append(row)
            case {"end": True}:
                self.job.done = True
            case _:
                pass  # a test starts: the deadline is new

    def blame(self, why: str) -> None:
        """Put the end of the process on the test it was at, and end it for sure."""
        self.process.kill()
        self.process.wait()
        job = self.job
        at = len(job.rows)
        name = job.names[at] if at < len(job.names) else ""
        job.rows.append(_lost(job.file, name, why))
        # It died before it knew the tests, or with the last one.
        job.done = at + 1 >= len(job.names)

    def end_of_process(self) -> str:
        """Say how the process ended by itself."""
        code = self.process.wait()
        if code >= 0:
            return f"the worker process ended with exit code {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"the worker process was killed by {name}"

    def close(self) -> None:
        """End the process; there is nothing more to judge."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def _lost(file: str, name: str, why: str) -> Row:
    return {
        "object": file,
        "program": name,
        "section": "",
        **dict.fromkeys(("verdict", "errno", "last", "retval")),
        "expected": {},
        "outcome": "fail",
        "why": why,
    }


class Pool:
    """Judges files in up to *jobs* processes; *request* is what all of them are asked,
    *timeout* seconds a test may take."""

    def __init__(
        self, request: Row, jobs: int, timeout: float, command: Sequence[str] = WORKER
    ) -> None:
        self.request, self.jobs, self.timeout, self.command = request, jobs, timeout, command

    def run(self, files: Sequence[str]) -> Iterator[Row]:
        """Yield the rows of all tests, in the order of *files*."""
        jobs = [_Job(file) for file in files]
        waiting, told = deque(jobs), 0
        with selectors.DefaultSelector() as selector:
            try:
                while told < len(jobs):
                    self._step(selector, waiting)
                    while told < len(jobs) and jobs[told].done:
                        yield from jobs[told].rows
                        told += 1
            finally:
                for key in list(selector.get_map().values()):
                    key.data.close()

    def _step(self, selector: selectors.BaseSelector, waiting: deque[_Job]) -> None:
        """Start what can start, and wait for the next answer or deadline."""
        workers: list[_Worker] = [key.data for key in selector.get_map().values()]
        while waiting and len(workers) < self.jobs:
            workers.append(self._start(selector, waiting.popleft()))
        next_deadline = min(w.deadline for w in workers)
        ready = selector.select(max(0.0, next_deadline - time.monotonic()))
        answered = [key.data for key, _ in ready]
        for worker in workers:
            if worker in answered:
                if not worker.read():
                    self._replace(selector, worker, worker.end_of_process(), waiting)
            elif time.monotonic() >= worker.deadline:
                why = f"it took longer than {self.timeout:g} s"
                self._replace(selector, worker, why, waiting)
            if worker.job.done and worker.process.returncode is None:
                self._next(selector, worker, waiting)

    def _start(self, selector: selectors.BaseSelector, job: _Job) -> _Worker:
        worker = _Worker(self.command, job, self.request, self.timeout)
        assert worker.process.stdout is not None
        selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
        return worker

    def _replace(
        self, selector: selectors.BaseSelector, worker: _Worker, why: str, waiting: deque[_Job]
    ) -> None:
        worker.blame(why)
        self._drop(selector, worker)
        if not worker.job.done:
            waiting.appendleft(worker.job)

    def _next(
        self, selector: selectors.BaseSelector, worker: _Worker, waiting: deque[_Job]
    ) -> None:
        if waiting:
            worker.ask(waiting.popleft())
        else:
            self._drop(selector, worker)

    def _drop(self, selector: selectors.BaseSelector, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        selector.unregister(worker.process.stdout)
        worker.close()
