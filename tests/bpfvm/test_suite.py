"""`bpfvm test`: files in, rows out, whatever becomes of the workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bpfvm.pool import Pool

GOOD = "# One.\nr0 = 1; exit\n-- retval: 1\n"
BAD = "# Two.\nr0 = 1; exit\n-- retval: 2\n"
IDLE = "r0 = 1; exit\n"
#: Takes the verifier far longer than anybody waits.
SLOW = """== slow
r0 = 0
loop: r0 += 1
r1 = r0
if r1 < 300000 goto loop
exit
=> accept
== quick
exit
=> EACCES R0 !read_ok
"""
SLOW = SLOW.replace("loop: ", "loop:\n")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, text in (("good", GOOD), ("bad", BAD), ("idle", IDLE), ("slow", SLOW)):
        (tmp_path / f"{name}.data").write_text(text)
    return tmp_path


def bpfvm_test(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bpfvm", "test", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def rows_of(*args: str | Path) -> tuple[int, list[dict[str, Any]]]:
    done = bpfvm_test("--json", *args)
    return done.returncode, json.loads(done.stdout)


def test_rows_as_json(files: Path) -> None:
    code, rows = rows_of(files / "good.data", files / "bad.data", files / "idle.data")
    assert code == 1
    assert rows[0] == {
        "object": str(files / "good.data"),
        "program": "good",
        "section": "socket_filter",
        "verdict": "accept",
        "errno": 0,
        "last": "",
        "retval": 1,
        "expected": {"verdict": "accept", "retval": "1"},
        "outcome": "pass",
        "why": "",
    }
    assert [(r["outcome"], r["why"]) for r in rows[1:]] == [
        ("fail", "interp: retval 1, expected 2"),
        ("skip", "nothing is expected of it"),
    ]


def test_nothing_fails_is_exit_0(files: Path) -> None:
    assert rows_of(files / "good.data", files / "idle.data")[0] == 0


def test_a_table_for_people(files: Path) -> None:
    done = bpfvm_test(files / "good.data", files / "bad.data", files / "idle.data")
    head, good, bad, idle, total = done.stdout.splitlines()
    assert head.split() == [
        *("object", "program", "section", "verdict", "retval", "outcome", "why"),
    ]
    assert good.split()[1:] == ["good", "socket_filter", "accept", "1", "pass"]
    assert bad.endswith("fail     interp: retval 1, expected 2")
    assert idle.split()[2:4] == ["skip", "nothing"]
    assert total == "1 passed, 1 failed, 1 skipped"
    assert done.stderr == ""


def test_quiet_shows_failures_alone(files: Path) -> None:
    done = bpfvm_test("-q", files / "good.data", files / "bad.data")
    assert len(done.stdout.splitlines()) == 3
    assert bpfvm_test("-q", files / "good.data").stdout == "1 passed\n"


def test_a_directory_and_names(files: Path) -> None:
    code, rows = rows_of(files, "-k", "qu[a-z]ck")
    assert (code, [r["program"] for r in rows]) == (0, ["quick"])


@pytest.mark.parametrize("pattern", ["none", "", "[", "GOOD"])
def test_a_name_that_no_test_has_is_bad_input(files: Path, pattern: str) -> None:
    done = bpfvm_test(files, "-k", pattern)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"bpfvm: no test is called {pattern!r}\n"
    assert rows_of(files, "-k", pattern) == (2, [])


@pytest.mark.parametrize("seconds", ["inf", "nan", "-nan", "0", "-1", "1e999", "2000000", "soon"])
def test_a_time_that_is_none(files: Path, seconds: str) -> None:
    done = bpfvm_test(files / "good.data", "--timeout", seconds)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("bpfvm test: Invalid value for '--timeout': ")
    assert done.stderr.count("\n") == 1


def test_options_reach_the_judge(files: Path) -> None:
    _, (row,) = rows_of(files / "bad.data", "--engine", "jit")
    assert row["why"] == "jit: retval 1, expected 2"
    _, (row,) = rows_of(files / "bad.data", "--no-run")
    assert (row["outcome"], row["why"]) == ("pass", "not run")
    (files / "old.data").write_text("r0 = r11; exit\n-- kernel: 6.18\n=> EINVAL R11 is invalid\n")
    _, (row,) = rows_of(files / "old.data")
    assert row["outcome"] == "pass"
    _, (row,) = rows_of(files / "old.data", "--kernel", "7.3")
    assert (row["outcome"], row["why"]) == ("skip", "for kernel 6.18")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.data", "-- wat\n", "x.data:1: unknown section 'wat'"),
        ("x.data", b"\xff\xfe", "x.data: not text: bad UTF-8 at byte 0"),
        ("x.data", "", "x.data: empty file"),
        ("x.s", "", "x.s: empty file"),
        ("x.data", "# nothing\n", "x.data:1: no program"),
        ("x.s", "exit\n-- wat: no\n", "x.s:2: unknown section 'wat'"),
        ("x.o", b"\x7fELF", "x.o: "),
        ("missing.data", None, "missing.data: No such file or directory"),
    ],
)
def test_a_file_without_tests_is_a_failure(
    files: Path, name: str, content: str | bytes | None, why: str
) -> None:
    if content is not None:
        data = content if isinstance(content, bytes) else content.encode()
        (files / name).write_bytes(data)
    code, rows = rows_of(files / name, files / "good.data")
    assert (code, [r["outcome"] for r in rows]) == (1, ["fail", "pass"])
    assert rows[0]["why"].startswith(f"{files}/{why}")


def test_a_file_that_would_block_is_not_read(files: Path) -> None:
    for name in ("pipe.data", "pipe.s", "pipe.o"):
        os.mkfifo(files / name)
    (files / "zero.data").symlink_to("/dev/zero")
    (files / "folder.s").mkdir()
    (files / "lost.o").symlink_to("nowhere")
    code, rows = rows_of("--timeout", "5", files, "-k", "none")
    assert code == 1
    whys = {Path(r["object"]).name: r["why"].rpartition(": ")[2] for r in rows}
    assert whys == {
        **dict.fromkeys(("pipe.data", "pipe.s", "pipe.o", "zero.data"), "not a regular file"),
        "folder.s": "is a directory",
        "lost.o": "No such file or directory",
    }


@pytest.mark.parametrize("suffix", ["data", "s"])
def test_text_from_elsewhere(files: Path, suffix: str) -> None:
    file = files / f"x.{suffix}"
    file.write_bytes(b"\xef\xbb\xbf# From Windows.\r\nr0 = 1\r\nexit\r\n-- retval\r\n1\r\n")
    assert rows_of(file)[1][0]["outcome"] == "pass"
    run = [sys.executable, "-m", "bpfvm", "run", str(file)]
    assert subprocess.run(run, capture_output=True, timeout=120).returncode == 0


def test_a_text_with_sections_behind_it_still_runs(files: Path) -> None:
    (files / "x.s").write_text("; comment\nr0 = 7\nexit\n-- retval\n7\n")
    done = subprocess.run(
        [sys.executable, "-m", "bpfvm", "run", files / "x.s"], capture_output=True, text=True
    )
    assert "r0 = 0x7 (7)" in done.stdout
    assert rows_of(files / "x.s")[1][0]["outcome"] == "pass"


# -- what ends early -------------------------------------------------------------------------------


def test_a_test_that_takes_too_long_fails_and_the_others_go_on(files: Path) -> None:
    code, rows = rows_of("--timeout", "2", files / "slow.data", files / "good.data")
    assert code == 1
    assert [(r["program"], r["outcome"]) for r in rows] == [
        *(("slow", "fail"), ("quick", "pass"), ("good", "pass")),
    ]
    assert rows[0]["why"] == "it took longer than 2 s"


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for tasks in Path(f"/proc/{pid}/task").glob("*/children")
        for child in tasks.read_text().split()
    ]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc to find the worker in")
def test_a_killed_worker_costs_one_test(files: Path) -> None:
    command = [sys.executable, "-m", "bpfvm", "test", "--json", str(files / "slow.data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        # Its maps and states are there once it is at the slow test.
        while not (found := _children(process.pid)) or _cpu_ticks(found[0]) < 80:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(found[0], signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
    rows = json.loads(out)
    assert [(r["program"], r["outcome"], r["why"]) for r in rows] == [
        ("slow", "fail", "the worker process was killed by SIGKILL"),
        ("quick", "pass", ""),
    ]
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc to find the worker in")
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_worker_and_no_traceback(
    files: Path, ending: signal.Signals
) -> None:
    command = [sys.executable, "-m", "bpfvm", "test", str(files / "slow.data")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 60
        while not (found := _children(process.pid)) or _cpu_ticks(found[0]) < 80:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        if ending == signal.SIGINT:  # the terminal sends it to the whole group
            os.killpg(process.pid, ending)
        else:
            process.send_signal(ending)
        # The pipes are closed when the worker is gone too.
        assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == -ending


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_streams_that_are_closed(files: Path, closed: str) -> None:
    command = f'"{sys.executable}" -m bpfvm test "$0" {closed}'
    for name, code in (("good", 0), ("bad", 1)):
        done = subprocess.run(
            ["sh", "-c", command, files / f"{name}.data"], capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_answers_that_can_not_be_written(files: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bpfvm", "test", "--json", files / "good.data"],
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "bpfvm: stdout: No space left on device\n")


def _cpu_ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


#: A worker that does what its file's name says at its second test.
_ODD_WORKER = """
import json, os, signal, sys, time
for line in sys.stdin:
    request = json.loads(line)
    how = request["file"]
    say = lambda **answer: print(json.dumps(answer), flush=True)
    if how == "at once":
        os._exit(3)
    say(tests=["a", "b", "c"])
    for number in range(request["from"], 3):
        say(start=number)
        if number == 1 and how == "segv":
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 1 and how == "exit":
            os._exit(7)
        if number == 1 and how == "hang":
            time.sleep(60)
        say(row={"program": "abc"[number], "outcome": "pass", "why": ""})
    say(end=True)
"""


@pytest.mark.parametrize("jobs", [1, 3])
def test_however_a_worker_ends(jobs: int) -> None:
    pool = Pool({}, jobs, 1.0, (sys.executable, "-c", _ODD_WORKER))
    rows = list(pool.run(["fine", "segv", "exit", "at once", "hang", "fine"]))
    assert [(r["program"], r["why"]) for r in rows] == [
        *(("a", ""), ("b", ""), ("c", "")),
        *(("a", ""), ("b", "the worker process was killed by SIGSEGV"), ("c", "")),
        *(("a", ""), ("b", "the worker process ended with exit code 7"), ("c", "")),
        ("", "the worker process ended with exit code 3"),
        *(("a", ""), ("b", "it took longer than 1 s"), ("c", "")),
        *(("a", ""), ("b", ""), ("c", "")),
    ]
    assert all(r["outcome"] == ("fail" if r["why"] else "pass") for r in rows)
