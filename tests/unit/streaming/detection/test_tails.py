"""Tails learned from the stream: calibrated, without a unit, and careful with thin histories."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.arrays.compilation import Floats
from streaming.detection.tails import TailFrequencies

ROWS = 40_000
RANDOM = np.random.default_rng(4)
RATIOS = RANDOM.normal(0.0, 0.5, ROWS)
HISTORIES = RANDOM.choice([0.0, 2.0, 9.0, 60.0], ROWS)


def nats_of(ratios: Floats, histories: Floats, cuts: tuple[int, ...] = ()) -> Floats:
    tails, found = TailFrequencies(512, 0.999), []
    for start, stop in itertools.pairwise((0, *sorted(cuts), len(ratios))):
        nats, tails.counts = tails.surprises(ratios[start:stop], histories[start:stop], start)
        found.append(nats)
    return np.concatenate(found)


def test_a_surprise_is_how_rarely_a_ratio_is_exceeded() -> None:
    nats = nats_of(RATIOS, HISTORIES)[ROWS // 2 :]
    for share in (0.5, 0.1, 0.02, 0.004):
        assert (nats >= -np.log(share)).mean() == pytest.approx(share, rel=0.2)


@given(st.lists(st.integers(0, 3000), max_size=5))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_cutting_changes_no_bit(cuts: list[int]) -> None:
    few = RATIOS[:3000], HISTORIES[:3000]
    assert np.array_equal(nats_of(*few), nats_of(*few, cuts=tuple(cuts)))


def test_beyond_what_was_seen_surprise_goes_on_growing() -> None:
    tails = TailFrequencies(512, 0.999)
    _, tails.counts = tails.surprises(RATIOS, HISTORIES, 0)
    farther, _ = tails.surprises(np.linspace(0.0, 300.0, 400), np.full(400, 60.0), ROWS)
    assert (np.diff(farther) > 0).all()
    assert np.isfinite(farther).all()


def test_each_depth_of_history_has_a_tail_of_its_own() -> None:
    wide = np.where(HISTORIES < 1, 3.0, 1.0)
    tails = TailFrequencies(512, 0.999)
    _, tails.counts = tails.surprises(RATIOS * wide, HISTORIES, 0)
    new, known = tails.surprises(np.array([1.2, 1.2]), np.array([0.0, 60.0]), ROWS)[0]
    assert new < known


def test_nothing_to_compare_does_not_surprise_and_is_not_learned() -> None:
    tails = TailFrequencies(4, 0.5)
    nats, counts = tails.surprises(np.full(20, np.nan), np.zeros(20), 0)
    assert not nats.any()
    assert not counts.settled.any()
    assert not counts.pending.any()


def test_the_first_rows_meet_a_log_normal_prior() -> None:
    nats, _ = TailFrequencies(64, 0.9).surprises(np.array([-9.0, 0.0, 2.0]), np.zeros(3), 0)
    assert nats.tolist() == pytest.approx([0.0, np.log(2), -np.log(0.0227501)], abs=0.01)
