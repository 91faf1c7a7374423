"""A budget of alerts per day, kept as the stream's pace drifts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.arrays.compilation import Floats, read_only
from streaming.detection.alert_budget import AlertBudget
from streaming.detection.scoring import Scorer
from tests.unit.scoring_samples import agent_spec, stream

DAY = 86_400_000_000
ROWS = 60_000


def thresholds(times: np.ndarray, cuts: tuple[int, ...] = (), per_day: float = 50.0) -> Floats:
    budget, found = AlertBudget(per_day, 64), []
    for start, stop in itertools.pairwise((0, *sorted(cuts), len(times))):
        part, budget.pace = budget.thresholds(read_only(times[start:stop]), start)
        found.append(part)
    return np.concatenate(found)


def test_the_share_is_the_budget_over_the_pace() -> None:
    times = np.arange(5000) * (DAY // 10_000)
    found = thresholds(times)
    assert (found[:64] == 1.0).all()
    assert found[-1] == pytest.approx(1 - 50 / 10_000, rel=1e-6)


def test_alerts_stay_at_the_budget_when_the_pace_changes_tenfold() -> None:
    gaps = np.repeat([DAY // 2000, DAY // 20_000, DAY // 2000], [20_000, 200_000, 20_000])
    times = np.cumsum(gaps)
    scores = np.random.default_rng(3).random(len(times))
    flagged = np.bincount((times // DAY)[scores >= thresholds(times)], minlength=30)
    assert flagged[2:10] == pytest.approx(50, abs=25)
    assert flagged[12:20] == pytest.approx(50, abs=25)


@given(st.lists(st.integers(0, 900), max_size=6))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_cutting_changes_no_bit(cuts: list[int]) -> None:
    times = np.cumsum(np.random.default_rng(4).integers(-5_000_000, 90_000_000, 900))
    assert np.array_equal(thresholds(times), thresholds(times, tuple(cuts)))


def test_a_scorer_flags_by_its_budget_and_without_one_by_its_threshold() -> None:
    fixed = Scorer(agent_spec(threshold=0.97), ("customer",)).score(stream(300))
    assert (fixed.threshold == 0.97).all()
    days = 8
    transactions = stream(ROWS // 5, customers=500)
    seconds = np.ptp(transactions["event_time"].cast("int64").to_numpy()) / 1e6
    batch = Scorer(agent_spec(alerts_per_day=20), ("customer",)).score(transactions)
    flagged = (batch.score >= batch.threshold)[ROWS // 20 :].sum()
    assert flagged == pytest.approx(20 * seconds / 86_400 * 0.75, rel=0.3)
    assert seconds / 86_400 == pytest.approx(days, abs=1.5)
