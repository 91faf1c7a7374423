"""Entities that stay away are forgotten, at the same row however the stream is cut."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.detection import ProfileSettings
from schemas.errors import ConfigurationError
from schemas.instants import micros_of
from schemas.loading import parse_document
from streaming.detection.scoring import Scorer
from streaming.profiles.block_clock import BlockClock
from streaming.profiles.profile_kernels import NEVER
from tests.unit.scoring_samples import SECOND, START, agent_spec, load, save, table

HOUR = 3600
IDLE_HOURS = 24
BLOCK = 8


def scorer(idle: str | None = f"{IDLE_HOURS}h", **profiles: Any) -> Scorer:
    chosen = {"block_rows": BLOCK, "horizons": ["1h", "1d"], "idle_horizon": idle, **profiles}
    windows = {"customer": {"horizons": ["1d"]}, "terminal": {"horizons": ["1h"], "delay": "2h"}}
    return Scorer(agent_spec(profiles={"windows": windows, **chosen}), ("customer", "terminal"))


def rows_of(seed: int, rows: int = 240) -> pa.Table:
    """Half an hour apart; each customer is there for a while, most stay away for longer than the horizon."""
    random = np.random.default_rng(seed)
    hours = np.cumsum(random.integers(0, 2, rows))
    hours -= (random.random(rows) < 0.1) * random.integers(0, 40, rows)
    phase = np.arange(rows) // 30 % 3
    return table(
        START + hours * HOUR * SECOND,
        np.round(random.lognormal(3.0, 1.0, rows), 2),
        customer=[f"c{number}" for number in 3 * random.integers(0, 4, rows) + phase],
        terminal=[f"t{number}" for number in random.integers(0, 9, rows)],
    )


def labels_on(rows: pa.Table, seed: int) -> pa.Table:
    random = np.random.default_rng(seed)
    places = np.sort(random.choice(rows.num_rows, 60, replace=False))
    positions = np.maximum.accumulate(np.minimum(places + random.integers(1, 80, 60), rows.num_rows - 1))
    known = rows.take(pa.array(places)).select(["event_time", "customer", "terminal"])
    blames, firsts = random.integers(0, 2, 60) * 0.5, np.ones(60, np.bool_)
    for name, values in (("blame", blames), ("first", firsts), ("position", positions)):
        known = known.append_column(name, pa.array(values))
    return known


def streamed(scoring: Scorer, rows: pa.Table, labels: pa.Table, cuts: list[int]) -> list[bytes]:
    features, log_odds = [], []
    for start, end in pairwise([0, *sorted({cut for cut in cuts if 0 < cut < rows.num_rows}), rows.num_rows]):
        positions = labels["position"].to_numpy()
        due = labels.filter(pa.array((positions >= start) & (positions < end)))
        scored = scoring.score(rows.slice(start, end - start), due)
        features.append(scored.features())
        log_odds.append(scored.log_odds)
        scoring.commit(scored)
    return [np.vstack(features).tobytes(), np.concatenate(log_odds).tobytes()]


@pytest.mark.long
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 239), max_size=40))
@settings(deadline=None, derandomize=True, max_examples=12)
def test_cutting_and_giving_memory_back_change_no_bit(seed: int, cuts: list[int]) -> None:
    rows = rows_of(seed)
    labels = labels_on(rows, seed)
    # In one piece, memory is given back after the last row only; row by row, again and again.
    whole = streamed(scorer(), rows, labels, [])
    assert streamed(scorer(), rows, labels, cuts) == whole
    assert streamed(scorer(), rows, labels, list(range(240))) == whole


@given(st.integers(0, 2**32 - 1), st.integers(1, 239))
@settings(deadline=None, derandomize=True, max_examples=10)
def test_a_checkpoint_in_between_changes_no_bit(tmp_path_factory: Any, seed: int, at: int) -> None:
    folder, rows = tmp_path_factory.mktemp("checkpoints"), rows_of(seed)
    running, resumed = scorer(), scorer()
    running.fold(rows.slice(0, at))
    save(running, folder)
    assert load(resumed, folder) == ()
    one, other = running.score(rows.slice(at)), resumed.score(rows.slice(at))
    assert one.features().tobytes() == other.features().tobytes()
    assert one.log_odds.tobytes() == other.log_odds.tobytes()


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, derandomize=True, max_examples=10)
def test_labels_that_change_what_was_forgotten_leave_every_score_a_number(seed: int) -> None:
    rows, random = rows_of(seed), np.random.default_rng(seed)
    labels = labels_on(rows, seed)
    changes = {"first": random.random(60) < 0.3, "blame": random.choice([-0.5, 0.5, 1.0], 60)}
    for name, values in changes.items():
        labels = labels.set_column(labels.schema.get_field_index(name), name, pa.array(values))
    scoring = scorer()
    scored = scoring.score(rows, labels)
    assert np.isfinite(scored.log_odds).all()
    assert np.isfinite(scored.evidence).all()
    assert ((scored.score >= 0.0) & (scored.score <= 1.0)).all()


def visits(hours: list[int]) -> pa.Table:
    """One customer at these hours; others in between keep the clock going, a block per hour."""
    moments, names = [], []
    for hour in range(max(hours) + 1):
        own = [("regular", hour)] * hours.count(hour)
        for name, moment in [*own, *((f"other{each}", hour) for each in range(BLOCK - len(own)))]:
            names.append(name)
            moments.append(START + moment * HOUR * SECOND)
    return table(moments, [5.0] * len(names), customer=names, terminal=["t"] * len(names))


@pytest.mark.parametrize(("away", "known"), [(IDLE_HOURS, True), (IDLE_HOURS + 1, False)])
def test_who_stays_away_beyond_the_horizon_is_new_again(away: int, known: bool) -> None:
    rows, scoring = visits([0, 1, 2, 2 + away]), scorer()
    scored = scoring.score(rows)
    column = scoring.feature_names.index("age.customer")
    back = max(row for row, name in enumerate(rows["customer"].to_pylist()) if name == "regular")
    assert scored.features()[back, column] == ((2 + away) * HOUR if known else -1.0)
    assert (scored.features()[back, scoring.feature_names.index("count.customer.1_day")] > 0.0) == known


def test_memory_is_given_back() -> None:
    kept, growing = scorer(), scorer(idle=None)
    for hour in range(0, 200, 10):
        moments = [START + (hour + row // BLOCK) * HOUR * SECOND for row in range(10 * BLOCK)]
        names = [f"{hour}-{row}" for row in range(10 * BLOCK)]
        rows = table(moments, [5.0] * len(names), hour * BLOCK, customer=names, terminal=names)
        for scoring in (kept, growing):
            scoring.fold(rows)
    entities = [scoring.snapshot().profiles["customer"].state.clocks.shape[0] for scoring in (kept, growing)]
    assert entities[1] == 200 * BLOCK
    assert entities[0] < 2 * IDLE_HOURS * BLOCK
    windows = kept.snapshot().detectors["windows-customer"]["entities"]
    assert windows.num_rows < 2 * IDLE_HOURS * BLOCK


def test_a_few_dates_far_ahead_make_nobody_idle() -> None:
    clock = BlockClock(5, HOUR * SECOND)
    ahead = START + 10**15
    times = np.array([START, START + 1, ahead, START + 2, ahead, START + 3], np.int64)
    forgotten, clock.ticks = clock.advance(times, 0)
    assert forgotten.tolist() == [NEVER, START + 2 - HOUR * SECOND]
    assert clock.forgotten == START + 2 - HOUR * SECOND


def test_a_horizon_beyond_all_time_forgets_nobody() -> None:
    clock = BlockClock(2, 999_999_999 * 24 * HOUR * SECOND)
    times = np.array([START, START + 1, START + 2, START + 3, START + 4], np.int64)
    forgotten, clock.ticks = clock.advance(times, 0)
    assert max(*forgotten.tolist(), clock.forgotten) < micros_of(datetime.min.replace(tzinfo=UTC))


def test_a_horizon_that_forgets_within_a_window_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected an idle_horizon of at least the longest"):
        parse_document({"idle_horizon": "1d"}, ProfileSettings, where="spec.yaml")
    assert parse_document({"idle_horizon": None}, ProfileSettings, where="spec.yaml").idle_horizon is None
