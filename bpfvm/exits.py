"""Exit codes of the commands."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """How a command ended; of several codes for one command the highest wins."""

    FINE = 0
    #: A program was rejected or could not be linked, a run ended early, or engines differed.
    FAILED = 1
    BAD_INPUT = 2
    #: A bug of ours (sysexits' EX_SOFTWARE).
    BUG = 70
