"""The clock that no single row can move, against its definition in plain Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.arrays.median_clock import BEFORE_ALL, WINDOW, MedianClock


def by_definition(times: list[int]) -> list[int]:
    known = [*([BEFORE_ALL] * WINDOW), *times]
    medians = [sorted(known[row + 1 : row + 1 + WINDOW])[31] for row in range(len(times))]
    return [max(medians[: row + 1]) for row in range(len(times))]


steps = st.integers(-5, 5) | st.integers(-10_000, 10_000) | st.just(0)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(steps, max_size=400), st.sampled_from([-7, 0, 3]), st.lists(st.integers(0, 400), max_size=5))
def test_it_shows_the_highest_median_for_any_cut(offsets: list[int], pace: int, cuts: list[int]) -> None:
    times = [pace * row + off for row, off in enumerate(offsets)]
    clock, shown = MedianClock.blank(), list[int]()
    bounds = [0, *sorted(min(cut, len(times)) for cut in cuts), len(times)]
    for first, end in pairwise(bounds):
        part, clock = clock.advance(np.array(times[first:end], np.int64))
        shown += part.tolist()
    assert shown == by_definition(times)
    assert MedianClock.after(np.array(times[-WINDOW:], np.int64), clock.now).now == clock.now


@pytest.mark.parametrize("pace", [-1, 1])
def test_long_streams_of_one_direction(pace: int) -> None:
    times = (pace * np.arange(5_000)).astype(np.int64)
    shown, _ = MedianClock.blank().advance(times)
    assert shown.tolist() == by_definition(times.tolist())


def test_half_a_window_ahead_does_not_move_it_and_one_more_does() -> None:
    clock = MedianClock.after(np.full(WINDOW, 100), None)
    ahead, later = clock.advance(np.full(32, 10_000))
    assert set(ahead.tolist()) == {100}
    assert later.advance(np.array([10_000]))[0].tolist() == [10_000]
