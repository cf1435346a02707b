"""The set of free page offsets of an arena, with the kernel's placement (arena.md section 2).

Free pages are kept as disjoint, maximal ranges. `find` is best fit; among ranges of one size the
one that was inserted last wins, and a range counts as inserted anew whenever it is made, resized
or merged. Every operation costs about the same however fragmented the set is: a range's
neighbours are found by scanning a byte map, and there can't be many distinct sizes.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator

__all__ = ["RangeTree"]

_MARK = b"\x01"


class RangeTree:
    """Free ranges among the offsets [0, count); all of them are free at first."""

    def __init__(self, count: int) -> None:
        self.count = count
        # One byte per offset, nonzero where a range starts.
        self._starts = bytearray(count)
        self._last: dict[int, int] = {}
        # Starts of the ranges of each size, in the order of insertion.
        self._by_size: dict[int, dict[int, None]] = {}
        # Distinct sizes, sorted: fewer than 1,500 for 2**20 offsets, as they add up to the count.
        self._sizes: list[int] = []
        self._insert(0, count - 1)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the ranges as (start, last), by start."""
        at = self._starts.find(_MARK)
        while at >= 0:
            last = self._last[at]
            yield at, last
            at = self._starts.find(_MARK, last + 1)

    def find(self, length: int) -> int | None:
        """Return where to place *length* offsets, or None where no range is large enough."""
        i = bisect.bisect_left(self._sizes, length)
        if i == len(self._sizes):
            return None
        newest = self._by_size[self._sizes[i]]
        # Taking the last item out and back in keeps the dict free of dead entries at its end.
        start, _ = newest.popitem()
        newest[start] = None
        return start

    def is_set(self, start: int, length: int) -> bool:
        """Say whether all of [start, start + length) is free."""
        at = self._range_at(start)
        return at is not None and self._last[at] >= start + length - 1

    def clear(self, start: int, length: int) -> None:
        """Take [start, start + length) out of the set, whatever part of it is there."""
        last = start + length - 1
        at = self._range_at(start)
        if at is None:
            at = self._starts.find(_MARK, start, last + 1)
        while 0 <= at <= last:
            old_last = self._remove(at)
            if at < start:
                self._insert(at, start - 1)
            if old_last > last:
                self._insert(last + 1, old_last)
                return
            at = self._starts.find(_MARK, old_last + 1, last + 1)

    def set(self, start: int, length: int) -> None:
        """Add [start, start + length) to the set."""
        if self.is_set(start, length):
            return
        self.clear(start, length)
        last = start + length - 1
        left = self._range_at(start - 1) if start else None
        if left is not None:
            self._remove(left)
            start = left
        if last + 1 < self.count and self._starts[last + 1]:
            last = self._remove(last + 1)
        self._insert(start, last)

    def _range_at(self, offset: int) -> int | None:
        at = self._starts.rfind(_MARK, 0, offset + 1)
        return at if at >= 0 and self._last[at] >= offset else None

    def _insert(self, start: int, last: int) -> None:
        self._starts[start] = 1
        self._last[start] = last
        size = last - start + 1
        same = self._by_size.get(size)
        if same is None:
            self._by_size[size] = {start: None}
            bisect.insort(self._sizes, size)
        else:
            same[start] = None

    def _remove(self, start: int) -> int:
        self._starts[start] = 0
        last = self._last.pop(start)
        size = last - start + 1
        same = self._by_size[size]
        del same[start]
        if not same:
            del self._by_size[size], self._sizes[bisect.bisect_left(self._sizes, size)]
        return last
