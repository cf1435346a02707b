"""The garbage collector during a walk: states are many, live long and hold no cycles."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["rare_collections"]

#: New objects between two collections, and how many of them make a deeper one. With Python's own
#: numbers (700, 10, 10) collecting takes over half of a long walk.
_RARE = (100_000, 50, 50)

_lock = threading.Lock()
_walks = 0
_before = (0, 0, 0)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collect cyclic garbage rarely while the body runs, in whatever thread; the threshold is
    put back when the last of several overlapping bodies ends."""
    global _walks, _before
    with _lock:
        if not _walks:
            _before = gc.get_threshold()
            if 0 < _before[0] < _RARE[0]:
                gc.set_threshold(*_RARE)
        _walks += 1
    try:
        yield
    finally:
        with _lock:
            _walks -= 1
            if not _walks:
                gc.set_threshold(*_before)
