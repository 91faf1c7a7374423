"""What detectors' surprises add up to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from streaming.detection.combination import remembered, strongest


def evidence(nats: float) -> float:
    return math.log1p(math.exp(nats - 3)) - math.log1p(math.exp(-3))


def test_only_the_most_surprising_view_counts() -> None:
    found = np.zeros((3, 4))
    strongest(np.array([[1.0, 5.0], [7.0, 2.0], [0.0, 0.0]]), np.array([3, 1]), found)
    assert found.tolist() == [
        [0.0, pytest.approx(evidence(5.0)), 0.0, 0.0],
        [0.0, 0.0, 0.0, pytest.approx(evidence(7.0))],
        [0.0] * 4,
    ]


def test_everyday_surprises_hardly_count_and_rare_ones_in_full() -> None:
    found = np.zeros((4, 1))
    strongest(np.array([[0.0], [1.0], [20.0], [5000.0]]), np.array([0]), found)
    assert found[0, 0] == 0.0
    assert 0.0 < found[1, 0] < 0.1
    assert found[2:, 0].tolist() == pytest.approx([17.0 - math.log1p(math.exp(-3)), 4997.0], abs=0.05)


def test_memory_adds_at_most_the_row_s_own_surprise_and_four_nats() -> None:
    found = np.zeros((3, 2))
    remembered(np.array([1.0, 9.0, 9.0]), np.array([3.0, 3.0, 30.0]), 1, found)
    assert found[:, 1].tolist() == [1.0, 3.0, 4.0]
