from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.detection.calibration import LOWEST_SCORE, Calibrated, Calibration, prior_tail

PROPERTY = settings(deadline=None, derandomize=True, max_examples=80)


def calibration(reasons: int = 1, block_rows: int = 100, decay: float = 0.999) -> Calibration:
    return Calibration(reasons, block_rows, decay)


def warmed(rows: int = 200_000) -> tuple[Calibration, Calibrated]:
    warm = calibration()
    totals = np.random.default_rng(1).exponential(3.0, rows)
    first = warm.calibrate(totals, 0)
    warm.histogram = first.histogram
    return warm, first


WARM = warmed(20_000)


def test_the_prior_expects_more_evidence_of_more_reasons_and_none_below_zero() -> None:
    one, many = prior_tail(1), prior_tail(9)
    assert one[0] == many[0] == 1.0
    assert (np.diff(one) <= 0).all()
    assert (many >= one).all()
    assert many[-1] == pytest.approx(9 * one[-1])


def test_score_is_the_share_of_lower_totals_after_warm_up() -> None:
    _, first = warmed()
    later = first.scores[50_000:]
    for level in (0.5, 0.9, 0.99, 0.999):
        share = (later >= level).mean()
        assert share == pytest.approx(1 - level, rel=0.12)


@given(st.lists(st.floats(-20, 1000), min_size=2, max_size=40, unique=True))
@PROPERTY
def test_score_rises_strictly_with_the_total(totals: list[float]) -> None:
    warm, _ = WARM
    ordered = sorted(round(total, 3) for total in totals)
    distinct = np.array(sorted(set(ordered)))
    scores = warm.calibrate(distinct, 200_050).scores
    assert (np.diff(scores) > 0).all()
    assert scores.min() > 0
    assert scores.max() < 1


def test_total_of_zero_scores_lowest_at_base() -> None:
    result = WARM[0].calibrate(np.zeros(1), 20_000)
    assert result.scores[0] == pytest.approx(LOWEST_SCORE, rel=1e-3)
    assert result.log_odds[0] == pytest.approx(result.base[0], abs=1e-9)


@given(st.lists(st.floats(-20, 500), min_size=1, max_size=30))
@PROPERTY
def test_log_odds_are_those_of_the_score_and_rise_from_the_base_with_the_total(totals: list[float]) -> None:
    result = calibration().calibrate(np.array(totals), 0)
    assert np.abs(np.log(result.scores / (1 - result.scores)) - result.log_odds).max() <= 1e-9
    assert ((result.log_odds - result.base) * np.array(totals) >= 0).all()


@given(st.lists(st.integers(0, 400), max_size=6))
@PROPERTY
def test_cutting_changes_no_bit(cuts: list[int]) -> None:
    totals = np.random.default_rng(2).exponential(2.0, 400)
    whole = calibration(2, 64).calibrate(totals, 0)
    parts, pieces = calibration(2, 64), []
    bounds = [0, *sorted(cuts), 400]
    for start, stop in itertools.pairwise(bounds):
        piece = parts.calibrate(totals[start:stop], start)
        parts.histogram = piece.histogram
        pieces.append(piece)
    assert np.array_equal(np.concatenate([piece.log_odds for piece in pieces]), whole.log_odds)
    assert np.array_equal(np.concatenate([piece.base for piece in pieces]), whole.base)
    assert all(np.array_equal(*both) for both in zip(parts.histogram, whole.histogram, strict=True))


def test_first_block_is_not_learned_from() -> None:
    result = calibration(block_rows=100).calibrate(np.full(150, 2.0), 0)
    assert result.histogram.counts.sum() + result.histogram.pending.sum() == 50


def test_old_totals_fade() -> None:
    old = calibration(block_rows=100, decay=0.5)
    old.histogram = old.calibrate(np.full(1000, 1.0), 0).histogram
    scores = old.calibrate(np.full(3000, 5.0), 1000).scores
    assert scores[0] > 0.95
    # All of the 200 rows that still count are alike; the prior's 64 lie below.
    assert scores[-1] == pytest.approx(64 / 264, abs=0.05)


def test_without_reasons_every_row_scores_lowest() -> None:
    assert calibration(0).calibrate(np.zeros(3), 0).scores == pytest.approx([LOWEST_SCORE] * 3, rel=1e-3)
