"""The locks that programs of one object take: who holds which, and who waits."""

from __future__ import annotations

import threading
import time
from errno import EDEADLK, ETIMEDOUT

__all__ = ["LockTable"]


class LockTable:
    """Locks by address. An owner is any object, compared by identity: a run."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._owners: dict[int, object] = {}
        self._waiting: dict[int, int] = {}  # id of an owner -> address

    def acquire(self, addr: int, owner: object, *, timeout_s: float | None = None) -> int:
        """Wait for the lock at *addr* and take it for *owner*; return 0.

        With *timeout_s* seconds to wait: ETIMEDOUT when they are over, EDEADLK when the holder
        waits in turn, through others perhaps, for what *owner* holds.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            self._waiting[id(owner)] = addr
            try:
                while addr in self._owners:
                    if end is None:
                        # A signal's handler gets its turn now and then.
                        self._changed.wait(0.1)
                        continue
                    if self._is_circular(addr, owner):
                        return EDEADLK
                    left = end - time.monotonic()
                    if left <= 0:
                        return ETIMEDOUT
                    self._changed.wait(left)
            finally:
                del self._waiting[id(owner)]
            self._owners[addr] = owner
        return 0

    def _is_circular(self, addr: int, owner: object) -> bool:
        seen: set[int] = set()
        while addr not in seen:
            seen.add(addr)
            holder = self._owners.get(addr)
            if holder is owner:
                return True
            if holder is None or id(holder) not in self._waiting:
                return False
            addr = self._waiting[id(holder)]
        return False

    def release(self, addr: int, owner: object) -> bool:
        """Give the lock at *addr* back; False where *owner* does not hold it."""
        with self._changed:
            if self._owners.get(addr) is not owner:
                return False
            del self._owners[addr]
            self._changed.notify_all()
            return True
