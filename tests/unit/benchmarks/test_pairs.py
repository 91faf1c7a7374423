"""What pairs say is their median, with an interval, and is called above a limit where it is."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.metrics import MOST_PERCENT
from benchmarks.pairs import Overhead


def test_few_pairs_are_told_from_the_smallest_to_the_largest() -> None:
    found = Overhead.of([3.0, -1.0, 0.5, 0.2, 0.4])
    assert (found.median, found.low, found.high) == (0.4, -1.0, 3.0)
    assert Overhead.of([0.7]) == Overhead(0.7, 0.7, 0.7)


@pytest.mark.parametrize(("pairs", "outside"), [(5, 0), (6, 0), (8, 0), (9, 1), (15, 3), (30, 9)])
def test_the_interval_is_that_of_the_sign_test(pairs: int, outside: int) -> None:
    """As tables of the sign test have it for 5 % on both sides together."""
    found = Overhead.of([float(each) for each in range(pairs)])
    assert (found.low, found.high) == (outside, pairs - 1 - outside)


def test_the_interval_holds_the_median_in_95_of_100_cases() -> None:
    chance, held = random.Random(7), 0
    for _ in range(2_000):
        found = Overhead.of([chance.expovariate(1.0) for _ in range(15)])
        held += found.low <= math.log(2) <= found.high
    assert 0.94 < held / 2_000 < 0.99


@pytest.mark.parametrize(
    ("percents", "said"),
    [
        ([0.2] * 15, "within 1 %, certainly"),
        ([0.2] * 9 + [2.0] * 6, "within 1 %, perhaps"),
        ([0.2] * 6 + [2.0] * 9, "above 1 %, perhaps"),
        ([1.5] * 15, "above 1 %, certainly"),
        ([MOST_PERCENT], "within 1 %, certainly"),
    ],
)
def test_the_conclusion_says_how_certain_it_is(percents: list[float], said: str) -> None:
    assert Overhead.of(percents).conclusion(MOST_PERCENT).startswith(said)
