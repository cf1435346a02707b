"""The process behind `bpfvm` and `python -m bpfvm`: how errors and signals end it."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import traceback
import warnings

import click

from bpfvm.cli import cli
from bpfvm.errors import BpfError, bug_report
from bpfvm.exits import Exit

__all__ = ["main"]

#: What a write to a full or broken device fails with.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    _open_streams()
    # A closed pipe or ctrl-C ends us at once and silently, even inside native code.
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # Names in objects may hold what the terminal's encoding can't show.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings.formatwarning = lambda message, *_: f"bpfvm: warning: {message}\n"
    try:
        result = cli.main(args, prog_name="bpfvm", standalone_mode=False)
        return int(result) if isinstance(result, int) else Exit.FINE
    except click.ClickException as error:
        command = getattr(error, "ctx", None)
        path = command.command_path if command is not None else "bpfvm"
        return _complain(f"{path}: {error.format_message()}")
    except BpfError as error:
        return _complain(f"bpfvm: {error}")
    except OSError as error:
        # Whatever is wrong with a file that is read was told as a BpfError.
        if error.errno not in _UNWRITABLE:
            return _report_bug(error)
        sys.stderr.write(f"bpfvm: stdout: {error.strerror}\n")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left goes nowhere
        return Exit.BAD_INPUT
    except Exception as error:  # every other exception is a bug: ask for a report, here only
        return _report_bug(error)


def _open_streams() -> None:
    """Let /dev/null take the place of standard streams that are closed: the next file opened would
    get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free: this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _complain(text: str) -> int:
    sys.stdout.flush()
    sys.stderr.write(text + "\n")
    return Exit.BAD_INPUT


def _report_bug(error: Exception) -> int:
    sys.stdout.flush()
    if os.environ.get("BPFVM_DEBUG"):
        traceback.print_exception(error)
    sys.stderr.write(f"bpfvm: {bug_report(error)} (BPFVM_DEBUG=1 shows where)\n")
    return Exit.BUG


if __name__ == "__main__":
    sys.exit(main())
