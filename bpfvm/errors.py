"""The exception tree. Bad input is a `BpfError`; a bug of ours is an `InternalError`.

A rejected program is neither: rejection is a value, `bpfvm.xlated.Verdict`; the `Rejected` beside
it only carries one out of a run that the verdict forbids.
"""

from __future__ import annotations

__all__ = [
    "AsmError",
    "BpfError",
    "CannotRun",
    "InternalError",
    "LoadError",
    "MapError",
    "NoPrograms",
    "NotSupported",
    "RunFault",
    "RunNotSupported",
    "RunRefused",
    "Thrown",
    "bug_report",
    "shown",
]


class BpfError(Exception):
    """Bad input or a request that cannot be met; its text is one line (asm: plus a caret)."""


class AsmError(BpfError):
    """Wrong assembly text: `file:line:col: message`, the line, a caret under the place."""

    def __init__(self, message: str, *, file: str, line: int, col: int, source: str) -> None:
        self.message, self.file, self.line, self.col, self.source = message, file, line, col, source
        caret = "".join(c if c == "\t" else " " for c in source[: col - 1]) + "^"
        super().__init__(f"{file}:{line}:{col}: {message}\n{source}\n{caret}")


class LoadError(BpfError):
    """A file or byte string that does not hold a program we can load."""


class NotSupported(LoadError):
    """What libbpf or the kernel may take, and we don't yet."""


class NoPrograms(LoadError):
    """An object without any program."""


class MapError(BpfError):
    """A map operation that failed, with the kernel's positive `errno`."""

    def __init__(self, message: str, errno: int) -> None:
        self.errno = errno
        super().__init__(message)


class RunRefused(BpfError):
    """Input that a test-run refuses, with the kernel's positive `errno`."""

    def __init__(self, message: str, errno: int) -> None:
        self.errno = errno
        super().__init__(message)


class RunNotSupported(RunRefused):
    """A program type without test-runs, in the kernel or here."""


class CannotRun(BpfError):
    """A verified program calls what can't be executed yet."""


class RunFault(BpfError):
    """A run that ended early: a refused access, an exceeded budget, a bad call.

    *pc* is the slot index of the insn that could not be executed.
    """

    def __init__(self, pc: int, reason: str) -> None:
        self.pc, self.reason = pc, reason
        super().__init__(f"pc {pc}: {reason}")


class Thrown(Exception):
    """A program threw an exception; engines alone see it."""

    def __init__(self, cookie: int) -> None:
        self.cookie = cookie
        super().__init__(f"thrown: {cookie:#x}")


class InternalError(Exception):
    """A bug in bpfvm itself: an invariant of soundness does not hold."""


def shown(value: object) -> str:
    """Return *value* as messages quote it: cut where it is long."""
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


def bug_report(error: Exception) -> str:
    """Return the line that asks the user to report *error*, a bug of ours."""
    what = " ".join(str(error).split())
    return f"this is a bug in bpfvm, please report it: {type(error).__name__}: {what}"
