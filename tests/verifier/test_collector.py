"""The collector's threshold during walks."""

from __future__ import annotations

import gc

import pytest

from verifier.collector import rare_collections


def test_it_is_put_back_when_the_last_walk_ends() -> None:
    before = gc.get_threshold()
    first, second = rare_collections(), rare_collections()
    with first:
        with second:
            assert gc.get_threshold()[0] > before[0]
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before


@pytest.mark.parametrize("own", [(0, 10, 10), (10**6, 5, 5)])
def test_who_wants_fewer_collections_keeps_that(own: tuple[int, int, int]) -> None:
    before = gc.get_threshold()
    gc.set_threshold(*own)
    try:
        with rare_collections():
            assert gc.get_threshold() == own
        assert gc.get_threshold() == own
    finally:
        gc.set_threshold(*before)
