"""What programs have asked to be run later: by their timers, work queues and task work.

Time is simulated: it stands still but for runs, whose clock it follows, and for
`bpfvm.vm.Object.advance`. What is due runs then, the earliest first, and of those the one that was
asked for first: the same every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from errno import EBUSY, EDEADLK, EINVAL

__all__ = ["Later", "LaterTable", "Start"]


Start = Callable[["Later", tuple[int, ...]], None]


@dataclass(slots=True)
class Later:
    """A field of a map's value that may run something later.

    Attributes:
        kind: what the field is ("bpf_timer").
        addr, value: addresses of the field, and of the value it lies in.
        handle: names the map.
        sleepable: the callback may sleep.
        start: runs the callback of a field with its arguments; None: there is none yet. It belongs
            to the program that said what to call, which need not be the one that starts the timer.
        due: when it is to run, in ns; None: not started.
        number: tells those apart that are due at the same time.
        runs: the callback is running.
    """

    kind: str
    addr: int
    value: int
    handle: int
    sleepable: bool = False
    start: Start | None = None
    due: int | None = None
    number: int = 0
    runs: bool = False


class LaterTable:
    """All such fields of an object's maps, by address.

    Attributes:
        now: the simulated time, in ns.
    """

    def __init__(self) -> None:
        self.now = 0
        self._fields: dict[int, Later] = {}
        self._number = 0

    def init(self, field: Later, *, is_new: bool) -> int:
        """Note *field*; EBUSY where the memory says that it was initialised before."""
        if not is_new:
            return -EBUSY
        self._fields[field.addr] = field
        return 0

    def find(self, addr: int) -> Later | None:
        """Return the field at *addr*."""
        return self._fields.get(addr)

    def arm(self, field: Later, due: int) -> int:
        """Let *field* run at time *due*, and then only; EINVAL where it has nothing to run."""
        if field.start is None:
            return -EINVAL
        self._number += 1
        field.due, field.number = due, self._number
        return 0

    def cancel(self, field: Later) -> int:
        """Take back that *field* runs; say whether it was going to. EDEADLK: it runs just now, and
        its own callback would wait for its end."""
        if field.runs:
            return -EDEADLK
        was_due, field.due = field.due is not None, None
        return int(was_due)

    def next_due(self, until: int) -> Later | None:
        """Return the field that is due first, at time *until* or before."""
        due = [(f.due, f.number, f) for f in self._fields.values() if f.due is not None]
        first = min(due, default=None, key=lambda found: found[:2])
        return None if first is None or first[0] > until else first[2]
