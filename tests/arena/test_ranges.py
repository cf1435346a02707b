from __future__ import annotations

import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from arena.ranges import RangeTree


class Model:
    """The recipe of arena.md section 2: ranges with sequence numbers, searched one by one."""

    def __init__(self, count: int) -> None:
        self.seq = 0
        self.ranges: dict[int, tuple[int, int]] = {}
        self.put(0, count - 1)

    def put(self, start: int, last: int) -> None:
        self.seq += 1
        self.ranges[start] = (last, self.seq)

    def find(self, length: int) -> int | None:
        fits = [
            (last - start + 1, -seq, start)
            for start, (last, seq) in self.ranges.items()
            if last - start + 1 >= length
        ]
        return min(fits)[2] if fits else None

    def is_set(self, start: int, length: int) -> bool:
        return any(s <= start and start + length - 1 <= e for s, (e, _) in self.ranges.items())

    def clear(self, start: int, length: int) -> None:
        last = start + length - 1
        for s in sorted(self.ranges):
            e = self.ranges[s][0]
            if e < start or s > last:
                continue
            del self.ranges[s]
            if s < start:
                self.put(s, start - 1)
            if e > last:
                self.put(last + 1, e)

    def set(self, start: int, length: int) -> None:
        if self.is_set(start, length):
            return
        self.clear(start, length)
        last = start + length - 1
        for s, (e, _) in list(self.ranges.items()):
            if e == start - 1:
                del self.ranges[s]
                start = s
        if last + 1 in self.ranges:
            last = self.ranges.pop(last + 1)[0]
        self.put(start, last)


COUNT = 40
OPS = st.lists(
    st.tuples(
        st.sampled_from(["clear", "set", "alloc"]),
        st.integers(0, COUNT - 1),
        st.integers(1, COUNT),
    ),
    max_size=60,
)


@pytest.mark.property
@settings(max_examples=300, deadline=None)
@given(OPS)
def test_it_places_as_the_recipe_does(ops: list[tuple[str, int, int]]) -> None:
    tree, model = RangeTree(COUNT), Model(COUNT)
    for op, start, length in ops:
        if op == "alloc":
            found = tree.find(length)
            assert found == model.find(length)
            if found is not None:
                tree.clear(found, length)
                model.clear(found, length)
        else:
            length = min(length, COUNT - start)
            getattr(tree, op)(start, length)
            getattr(model, op)(start, length)
        assert list(tree) == sorted((s, e) for s, (e, _) in model.ranges.items())
        for n in (1, 2, 3, 7, COUNT):
            assert tree.find(n) == model.find(n)
        assert tree.is_set(start, 2) == model.is_set(start, 2)


def test_a_fresh_arena_fills_from_the_start() -> None:
    tree = RangeTree(8)
    for want in range(8):
        assert tree.find(1) == want
        tree.clear(want, 1)
    assert tree.find(1) is None


def test_the_newest_hole_is_reused_first_and_an_exact_one_before_the_tail() -> None:
    tree = RangeTree(32)
    tree.clear(0, 16)
    for hole in (2, 9, 5):
        tree.set(hole, 1)
    assert tree.find(1) == 5
    tree.set(12, 2)
    assert tree.find(2) == 12
    assert tree.find(3) == 16


def test_a_split_makes_the_right_part_the_newer() -> None:
    tree = RangeTree(9)
    tree.clear(4, 1)
    assert tree.find(4) == 5
    tree = RangeTree(9)
    tree.clear(4, 5)
    tree.set(5, 4)
    tree.set(5, 2)  # already free: nothing is inserted anew
    assert tree.find(4) == 5


def test_half_a_million_ranges() -> None:
    count = 1 << 20
    tree = RangeTree(count)
    tree.clear(0, count)
    for page in range(0, count, 2):
        tree.set(page, 1)
    rng = random.Random(1)
    start = time.perf_counter()
    rounds = 5_000
    for _ in range(rounds):
        found = tree.find(1)
        assert found is not None
        tree.clear(found, 1)
        tree.set(rng.randrange(0, count, 2), 1)
        tree.clear(rng.randrange(0, count), 1)
    # About 8 us for the three; the limit only catches a cost that grows with the ranges.
    assert (time.perf_counter() - start) / rounds < 300e-6
