from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.arrays.compilation import read_only
from streaming.profiles.decayed import Profiles
from streaming.profiles.entity_half import EntityHalf
from streaming.profiles.population import PopulationPass
from streaming.profiles.profile_kernels import log_amounts
from tests.unit.streaming.profiles.one_profile import profile_of

HORIZONS = (3600.0, 86_400.0)
HOUR = 3_600_000_000


class Steps(NamedTuple):
    half: EntityHalf
    whole: PopulationPass


def advance(
    profiles: Profiles, ids: list[str | None], hours: list[float], amounts: Any, at: int = 0
) -> Steps:
    times = read_only(np.array([round(hour * HOUR) for hour in hours], np.int64))
    paid = read_only(np.array(amounts, np.float64))
    column = pa.chunked_array([pa.array(ids, pa.string())])
    half = profiles.entity_half(column, times, paid, log_amounts(paid), at)
    return Steps(half, profiles.population_pass(half.features, half.rows.log_amounts, at))


def decayed(events: list[tuple[float, float]], now: float, horizon: float) -> tuple[float, float]:
    weights = [math.exp(-(now - time) * 3600 / horizon) for time, _ in events]
    return sum(weights), sum(w * math.log(a) for w, (_, a) in zip(weights, events, strict=True))


@given(st.lists(st.tuples(st.floats(0, 200), st.floats(50, 100)), min_size=1, max_size=25))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_features_are_the_decayed_sums_of_earlier_rows(events: list[tuple[float, float]]) -> None:
    profiles = Profiles(HORIZONS, 1000, 0.5)
    events = [(round(hour * HOUR) / HOUR, amount) for hour, amount in events]
    hours, amounts = [hour for hour, _ in events], [amount for _, amount in events]
    features = advance(profiles, ["a"] * len(events), hours, amounts).half.features
    for row in range(1, len(events)):
        now = max(hours[: row + 1])
        for place, horizon in enumerate(HORIZONS):
            count, total = decayed(events[:row], now, horizon)
            assert features.counts[row, place] == pytest.approx(count, rel=1e-9, abs=1e-12)
        assert features.sums[row] == pytest.approx(total, rel=1e-9, abs=1e-9)
        assert features.exposures[row] == pytest.approx((now - min(hours[:row])) * 3600, abs=1e-3)
        assert features.late[row] == (hours[row] < max(hours[:row]))


def test_first_transaction_meets_an_empty_profile() -> None:
    features = advance(Profiles(HORIZONS, 10, 0.5), ["a", None], [1.0, 2.0], [5.0, 5.0]).half.features
    assert features.counts.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert features.exposures[0] == -1.0
    assert math.isnan(features.exposures[1])


def test_rows_without_an_entity_leave_no_trace() -> None:
    profiles = Profiles(HORIZONS, 10, 0.5)
    profiles.commit(*advance(profiles, [None, None], [1.0, 2.0], [5.0, 5.0]))
    assert len(profiles) == 0
    assert not profiles.snapshot().state.pending.any()


def test_population_moves_only_at_block_boundaries() -> None:
    profiles = Profiles(HORIZONS, 4, 0.5)
    population = advance(profiles, ["a"] * 10, list(range(10)), [math.e] * 10).whole.population
    assert population.weights.tolist() == [0.0, 4.0, 6.0]
    assert population.means[1:].tolist() == pytest.approx([1.0, 1.0])
    assert population.rates[1] == pytest.approx(1 / 3600)
    assert population.first_seen[1] == pytest.approx(2 / 6)


def test_within_variance_is_that_around_each_entitys_own_mean() -> None:
    random = np.random.default_rng(3)
    ids = [f"e{number}" for number in random.integers(0, 50, 20_000)]
    centres = {name: random.normal(4.0, 1.0) for name in dict.fromkeys(ids)}
    amounts = np.exp([random.normal(centres[name], 0.3) for name in ids])
    population = advance(
        Profiles(HORIZONS, 20_000, 1.0), [*ids, "x"], [0.0] * 20_001, [*amounts, 1.0]
    ).whole.population
    assert population.within[1] == pytest.approx(0.09, rel=0.15)
    assert population.variances[1] == pytest.approx(1.09, rel=0.35)


def test_advance_without_commit_changes_nothing() -> None:
    profiles = Profiles(HORIZONS, 4, 0.5)
    profiles.commit(*advance(profiles, ["a", "b"], [0.0, 1.0], [3.0, 4.0]))
    before = profiles.snapshot()
    advance(profiles, ["a", "c", "b"], [2.0, 3.0, 4.0], [1.0, 2.0, 3.0], at=2)
    after = profiles.snapshot()
    assert len(profiles) == 2
    assert all(np.array_equal(old, new) for old, new in zip(before.state, after.state, strict=True))


def test_snapshot_is_left_alone_by_later_commits() -> None:
    profiles = Profiles(HORIZONS, 4, 0.5)
    profiles.commit(*advance(profiles, ["a"], [0.0], [3.0]))
    snapshot = profiles.snapshot()
    kept = snapshot.state.moments.copy()
    profiles.commit(*advance(profiles, ["a", "b"], [1.0, 1.0], [3.0, 1.0], at=1))
    assert np.array_equal(snapshot.state.moments, kept)
    assert len(snapshot.ids.offsets) == 2


def test_a_snapshot_holds_what_is_known_of_one_entity() -> None:
    profiles = Profiles(HORIZONS, 100, 0.5)
    profiles.commit(*advance(profiles, ["a", "a", "b"], [1.0, 1.0, 2.0], [20.0, 20.0, 5.0]))
    found = profile_of(profiles.snapshot(), "a")
    assert found is not None
    assert (found.total, found.first_time, found.last_time) == (2, HOUR, HOUR)
    assert found.counts == pytest.approx([2.0, 2.0])
    assert found.usual_amounts == pytest.approx([20.0, 20.0])
    assert profile_of(profiles.snapshot(), "nobody") is None


def test_log_amounts_leave_out_what_is_not_above_zero() -> None:
    amounts = read_only(np.array([0.0, math.e, -3.0, math.nan, 1.7e308, 5e-324]))
    found = log_amounts(amounts)
    assert np.isnan(found).tolist() == [True, False, True, True, False, False]
    assert found[[1, 4, 5]].tolist() == pytest.approx([1.0, 709.73, -744.44], abs=0.1)


def test_an_amount_of_zero_leaves_the_usual_logarithm_as_it_is() -> None:
    features = advance(
        Profiles(HORIZONS, 100, 0.5), ["a"] * 3, [0.0, 0.0, 0.0], [20.0, 0.0, 20.0]
    ).half.features
    assert features.sums[2] == pytest.approx(2 * math.log(20.0))
    assert features.amounts[2].tolist() == pytest.approx([20.0, 20.0])


def test_a_burst_of_huge_payments_does_not_become_the_habit_at_once() -> None:
    hours = [float(hour) for hour in range(40)]
    profiles = Profiles((3600.0, 1e9), 1000, 0.5)
    profiles.commit(*advance(profiles, ["a"] * 40, hours, [20.0] * 35 + [9000.0] * 5))
    found = profile_of(profiles.snapshot(), "a")
    assert found is not None
    # Capped at three times the usual each: 20 x 35 + about 60, 63, 66, 70, 73.
    assert found.usual_amounts[1] < 30.0


def test_memory_holds_what_strikes_and_fades() -> None:
    profiles = Profiles(HORIZONS, 100, 0.5)
    taken = advance(profiles, ["a", "a", "b", "a", None, "a"], [0.0, 1.0, 1.0, 2.0, 2.0, 0.5], [1.0] * 6)
    nats = np.array([10.0, 3.0, 20.0, 30.0, 30.0, 7.0])
    memory = taken.half.recall(nats, np.array([6.0, 8.0, 3600.0]))
    assert memory.tolist() == pytest.approx(
        [0.0, 4 * math.exp(-1), 0.0, 4 * math.exp(-2), 0.0, 4 * math.exp(-2) + 8]
    )
