from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.detection import ProfileSettings, WindowedProfile
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.arrays.arrow_arrays import Saved
from streaming.detection.scoring import Scorer
from streaming.detection.windows import WindowAdvance, Windows
from streaming.profiles.frame import Frame
from tests.unit.scoring_samples import agent_spec, frame_of, load, save, table
from tests.unit.scoring_samples import stream as transactions

HORIZONS = (2.0, 5.0, 11.0)
DELAY = 4.0
LATENESS = 3.0
SECOND = 1_000_000


@dataclass(frozen=True)
class Row:
    entity: str | None
    time: float
    amount: float = 1.0
    fraud_known_after: int | None = None


Flow = list[Row]

rows = st.builds(
    Row,
    st.sampled_from(["a", "b", "c", None]),
    st.integers(0, 40).map(float),
    st.sampled_from([0.0, 0.1, 0.25, 3.3, 57.16, 1e9, -4.2]),
    st.one_of(st.none(), st.integers(1, 6)),
)


def busy_stream(seed: int) -> Flow:
    """A hundred rows: ties, rows late by more than a window, steps that empty some windows and not others."""
    random = np.random.default_rng(seed)
    times = np.cumsum(random.integers(0, 3, 100)) - (random.random(100) < 0.3) * random.integers(1, 25, 100)
    names = ["a", "b", None] if seed % 2 else ["a"]
    amounts = np.round(random.lognormal(3.0, 2.0, 100), 2).tolist()
    waits = [None if wait > 6 else wait for wait in random.integers(1, 12, 100).tolist()]
    entities = [names[number] for number in random.integers(0, len(names), 100)]
    return [Row(*each) for each in zip(entities, times.astype(float).tolist(), amounts, waits, strict=True)]


# Short streams shrink to readable examples; busy ones reach every way in which positions move.
streams = st.one_of(st.lists(rows, max_size=40), st.integers(0, 2**32 - 1).map(busy_stream))


def windows(
    horizons: tuple[float, ...] = HORIZONS,
    *,
    delay: float | None = DELAY,
    lateness: float = LATENESS,
    current: bool = True,
) -> Windows:
    chosen = WindowedProfile(
        horizons=tuple(timedelta(seconds=each) for each in horizons),
        delay=None if delay is None else timedelta(seconds=delay),
        lateness=timedelta(seconds=lateness),
        current=current,
    )
    return Windows("customer", chosen)


def labels(flow: Flow, start: int, end: int) -> pa.Table:
    """Labels that become known with one of the rows from `start` up to `end`."""
    due = sorted(
        (place + row.fraud_known_after, place)
        for place, row in enumerate(flow)
        if row.fraud_known_after is not None and start <= place + row.fraud_known_after < end
    )
    return said([(position, flow[place], 0.5) for position, place in due])


def said(known: list[tuple[int, Row, float]]) -> pa.Table:
    times = [int(row.time * SECOND) for _, row, _ in known]
    return pa.table(
        {
            "position": pa.array([position for position, *_ in known], pa.int64()),
            "event_time": pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "blame": pa.array([blame for *_, blame in known], pa.float64()),
            "first": pa.array([blame > 0 for *_, blame in known], pa.bool_()),
            "customer": pa.array([row.entity for _, row, _ in known], pa.string()),
        }
    )


def frame(part: Flow, start: int, known: pa.Table | None = None) -> Frame:
    times = [int(row.time * SECOND) for row in part]
    rows = table(times, [row.amount for row in part], start, customer=[row.entity for row in part])
    return frame_of(rows, known)


def stream(flow: Flow, sliding: Windows, cuts: tuple[int, ...] = (), first: int = 0) -> list[WindowAdvance]:
    found = []
    edges = [first, *sorted(cut for cut in set(cuts) if first < cut < len(flow)), len(flow)]
    for start, end in pairwise(edges):
        advance = sliding.advance(frame(flow[start:end], start, labels(flow, start, end)))
        found.append(advance)
        sliding.commit(advance)
    return found


def joined(parts: list[WindowAdvance]) -> tuple[Any, ...]:
    names = ("counts", "sums", "delayed_counts", "frauds")
    return tuple(np.concatenate([getattr(part, name) for part in parts]) for name in names)


def naive(flow: Flow, *, current: bool, lateness: float = LATENESS) -> tuple[Any, ...]:
    """Read all earlier rows for each row, as the definition says; sums are exact fractions."""
    keep = max(HORIZONS) + DELAY + lateness
    counts, sums, delayed, frauds = [], [], [], []
    for place, row in enumerate(flow):
        known = [] if row.entity is None else list(enumerate(flow[: place + 1 if current else place]))
        own = [(spot, each) for spot, each in known if each.entity == row.entity]
        times = [each.time for each in flow[: place + 1] if each.entity == row.entity]
        oldest = max(times) - keep if times else 0.0
        per_span: list[list[Any]] = [[], [], [], []]
        for horizon in HORIZONS:
            now = [each for _, each in own if max(row.time - horizon, oldest) < each.time <= row.time]
            per_span[0].append(len(now))
            per_span[1].append(float(sum((Fraction(each.amount) for each in now), Fraction(0))))
            low, high = max(row.time - DELAY - horizon, oldest), row.time - DELAY
            then = [(spot, each) for spot, each in own if low < each.time <= high]
            per_span[2].append(len(then))
            after = ((spot, each.fraud_known_after) for spot, each in then)
            per_span[3].append(sum(1 for spot, wait in after if wait is not None and spot + wait <= place))
        for whole, part in zip((counts, sums, delayed, frauds), per_span, strict=True):
            whole.append(part)
    shape = (len(flow), len(HORIZONS))
    return tuple(np.array(each).reshape(shape) for each in (counts, sums, delayed, frauds))


@given(streams, st.booleans(), st.sampled_from([0.0, LATENESS, 50.0]))
@settings(deadline=None, derandomize=True, max_examples=150)
def test_windows_hold_what_their_definition_says(flow: Flow, current: bool, lateness: float) -> None:
    found = joined(stream(flow, windows(current=current, lateness=lateness))) if flow else None
    if found is not None:
        counts, sums, delayed, frauds = naive(flow, current=current, lateness=lateness)
        assert np.array_equal(found[0], counts)
        assert np.allclose(found[1], sums, rtol=1e-15, atol=1e-14)
        assert np.array_equal(found[2], delayed)
        assert np.array_equal(found[3], frauds)


@given(streams, st.booleans(), st.lists(st.integers(1, 40), max_size=8))
@settings(deadline=None, derandomize=True, max_examples=100)
def test_cutting_a_stream_into_other_batches_changes_no_bit(
    flow: Flow, current: bool, cuts: list[int]
) -> None:
    whole, cut = windows(current=current), windows(current=current)
    if flow:
        ours, theirs = joined(stream(flow, whole)), joined(stream(flow, cut, tuple(cuts)))
        assert all(one.tobytes() == other.tobytes() for one, other in zip(ours, theirs, strict=True))
        assert same(whole.snapshot(), cut.snapshot())


@given(streams, st.integers(0, 40))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_restored_windows_go_on_as_if_nothing_had_happened(flow: Flow, at: int) -> None:
    if at < len(flow):
        first, second = windows(), windows()
        stream(flow[:at] or [Row(None, 0.0)], first)
        second.restore(first.snapshot())
        ours, theirs = stream(flow, first, first=at), stream(flow, second, first=at)
        assert all(np.array_equal(*pair) for pair in zip(joined(ours), joined(theirs), strict=True))
        assert same(first.snapshot(), second.snapshot())


def same(one: Saved, other: Saved) -> bool:
    return all(one[name].equals(other[name]) for name in ("entities", "transactions", "frauds"))


def test_a_window_is_open_at_its_old_end_and_closed_at_its_new_one() -> None:
    flow = [Row("a", 0.0, 1.0), Row("a", 2.0, 10.0), Row("a", 2.0, 100.0), Row("a", 4.0, 1000.0)]
    counts, sums, *_ = joined(stream(flow, windows()))
    assert counts[:, 0].tolist() == [1, 1, 2, 1]
    assert sums[:, 0].tolist() == [1.0, 10.0, 110.0, 1000.0]
    assert counts[3].tolist() == [1, 4, 4]


def test_a_row_counts_in_its_own_windows_only_where_asked() -> None:
    flow = [Row("a", 0.0, 5.0), Row("a", 1.0, 7.0)]
    parts = stream(flow, windows(current=False))
    assert parts[0].counts.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert np.column_stack(parts[0].features())[:, 3:6].tolist() == [[0.0] * 3, [5.0] * 3]


def test_delayed_windows_count_frauds_once_their_labels_is_known() -> None:
    flow = [Row("a", 0.0, 1.0, 3), Row("a", 0.0), Row("a", 4.0), Row("a", 5.0), Row("b", 5.0)]
    features = stream(flow, windows())[0]
    assert features.delayed_counts[:, 0].tolist() == [0, 0, 2, 2, 0]
    assert features.frauds[:, 0].tolist() == [0, 0, 0, 1, 0]
    assert np.column_stack(features.features())[3, 9:].tolist() == [0.5] * 3


def test_a_labels_taken_back_counts_no_longer() -> None:
    sliding, fraud = windows(), Row("a", 0.0)
    known = said([(1, fraud, 0.5), (3, fraud, -0.5)])
    flow = [fraud, Row("a", 4.0), Row("a", 4.0), Row("a", 4.0)]
    assert sliding.advance(frame(flow, 0, known)).frauds[:, 0].tolist() == [0, 1, 1, 0]


def test_a_late_row_sees_its_own_time_and_is_seen_by_later_rows() -> None:
    flow = [Row("a", 10.0, 1.0), Row("a", 9.0, 2.0), Row("a", 10.5, 4.0)]
    counts, sums, *_ = joined(stream(flow, windows()))
    assert counts[:, 0].tolist() == [1, 1, 3]
    assert sums[:, 0].tolist() == [1.0, 2.0, 7.0]


def test_rows_beyond_what_is_kept_count_nowhere() -> None:
    keep = max(HORIZONS) + DELAY + LATENESS
    flow = [Row("a", 100.0), Row("a", 100.0 - keep), Row("a", 100.0 - keep + 1), Row("a", 100.0)]
    assert joined(stream(flow, windows()))[0].tolist() == [[1] * 3, [0] * 3, [1] * 3, [2] * 3]


def test_windows_longer_than_all_time_hold_all_rows() -> None:
    chosen = WindowedProfile(horizons=(timedelta.max,), delay=timedelta.max, lateness=timedelta.max)
    flow = [Row("a", 0.0), Row("a", 1e9), Row("a", 1.0)]
    (found,) = stream(flow, Windows("customer", chosen))
    assert found.counts.tolist() == [[1], [2], [2]]
    assert found.delayed_counts.tolist() == [[0], [0], [0]]


def test_advance_without_commit_changes_nothing() -> None:
    sliding = windows()
    stream([Row("a", 1.0, 3.0), Row("b", 2.0, 4.0)], sliding)
    before = sliding.snapshot()
    sliding.advance(frame([Row("a", 90.0), Row("new", 1e-6, 2.0)], 2))
    assert len(sliding) == 2
    assert same(before, sliding.snapshot())


def test_a_snapshot_is_left_alone_by_later_commits() -> None:
    sliding = windows()
    flow = [Row("a", 1.0, 3.0), Row("a", 2.0, 4.0)]
    stream(flow[:1], sliding)
    snapshot = sliding.snapshot()
    stream(flow, sliding, first=1)
    assert snapshot["transactions"]["amount"].to_pylist() == [3.0]
    assert sliding.snapshot()["transactions"]["amount"].to_pylist() == [3.0, 4.0]


def test_what_left_a_window_leaves_no_trace_in_its_sum() -> None:
    flow = [Row("a", 0.0, 0.1), Row("a", 0.0, 1e15), Row("a", 1.0, 0.2), Row("a", 2.5, 0.3), Row("a", 4.0)]
    sums = joined(stream(flow, windows()))[1]
    assert sums[3, 0] == 0.2 + 0.3
    assert sums[4, 0] == 0.3 + 1.0


def test_amounts_beyond_the_range_and_no_numbers_count_as_told() -> None:
    flow = [Row("a", 0.0, 1e300), Row("b", 0.0, float("nan")), Row("b", 0.0, 2.0), Row("c", 0.0, -1e300)]
    counts, sums, *_ = joined(stream(flow, windows()))
    assert counts[:, 0].tolist() == [1, 1, 2, 1]
    assert sums[:, 0].tolist() == [1e15, 0.0, 2.0, -1e15]


def test_memory_follows_the_entries_and_not_the_rows_ever_seen() -> None:
    entities, sliding = 50, windows((10.0,), delay=None, lateness=0.0)
    for start in range(0, 400, 20):
        moments = range(start, start + 20)
        part = [Row(f"e{number}", float(time)) for time in moments for number in range(entities)]
        sliding.commit(sliding.advance(frame(part, start * entities)))
    entries = sliding.snapshot()["transactions"].num_rows
    assert entries == 10 * entities
    assert sliding.held_bytes < 16 * 2.5 * entries + 64 * 1.25 * entities + 64 * 1024


@pytest.mark.parametrize(
    "wrong", [{"horizons": []}, {"horizons": ["0s"]}, {"horizons": ["1s", "1s"]}, {"delay": "-1s"}]
)
def test_windows_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"windows.customer.{next(iter(wrong))}"):
        parse_document({"windows": {"customer": wrong}}, ProfileSettings, where="spec.yaml")


def test_windows_of_an_entity_without_a_profile_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no entity 'costumer' has a profile; did you mean"):
        Scorer(agent_spec(profiles={"windows": {"costumer": {}}}), ("customer",))


def test_windows_are_features_of_the_scorer_and_part_of_its_checkpoints(tmp_path: Path) -> None:
    chosen = {"customer": {"horizons": ["1h"]}, "terminal": {"horizons": ["1d"], "delay": "7d"}}
    spec = agent_spec(profiles={"block_rows": 16, "windows": chosen})
    running, resumed = (Scorer(spec, ("customer", "terminal")) for _ in range(2))
    assert running.definition_hash != Scorer(agent_spec(), ("customer", "terminal")).definition_hash
    rows = transactions(300)
    running.fold(rows.slice(0, 200))
    save(running, tmp_path)
    assert load(resumed, tmp_path) == ()
    one, other = (each.score(rows.slice(200)) for each in (running, resumed))
    assert np.array_equal(one.features(), other.features(), equal_nan=True)
    column = running.feature_names.index("window_count.customer.1_hour")
    seen = Counter(rows["customer"].to_pylist()[: 200 + 1])[rows["customer"][200].as_py()]
    assert 1 <= one.features()[0, column] <= seen
