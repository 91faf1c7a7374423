"""De-duplication: exact horizons, the order of first sighting, and a memory that can be rebuilt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import FlagstreamError
from schemas.tables import UTC_MICROS
from streaming.arrays.median_clock import WINDOW, MedianClock
from streaming.events.duplicates import Deduplicator

HORIZON = timedelta(microseconds=100)
Sighting = tuple[str, int]


def rows(
    sightings: Sequence[Sighting], topics: Sequence[str] | None = None, first_offset: int = 0
) -> pa.Table:
    count = len(sightings)
    return pa.table(
        {
            "transaction_id": pa.array([name for name, _ in sightings], pa.string()),
            "kafka_timestamp": pa.array([stamp for _, stamp in sightings], UTC_MICROS),
            "topic": pa.array(topics or ["events"] * count, pa.string()),
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(first_offset, first_offset + count), pa.int64()),
        }
    )


def seen(memory: Deduplicator, *sightings: Sighting) -> list[bool]:
    """Claim and commit; True where a row is a first sighting."""
    return claimed(memory, list(sightings))[0]


@pytest.mark.parametrize("apart", [0, 1, 99, 100])
def test_an_id_within_the_horizon_is_a_redelivery_whichever_came_earlier(apart: int) -> None:
    for stamp in (1_000 + apart, 1_000 - apart):
        memory = Deduplicator(HORIZON)
        assert seen(memory, ("a", 1_000)) == [True]
        assert seen(memory, ("a", stamp), ("b", stamp)) == [False, True]


def test_an_id_beyond_the_horizon_is_new_and_counts_from_then() -> None:
    memory = Deduplicator(HORIZON)
    assert seen(memory, ("a", 1_000)) == [True]
    assert seen(memory, ("a", 1_101)) == [True]
    assert seen(memory, ("a", 1_201)) == [False]
    assert seen(memory, ("a", 1_202)) == [True]


def test_a_redelivery_does_not_prolong_the_horizon() -> None:
    memory = Deduplicator(HORIZON)
    assert seen(memory, ("a", 1_000)) == [True]
    assert seen(memory, ("a", 1_090)) == [False]
    assert seen(memory, ("a", 1_101)) == [True]


def test_a_straggler_does_not_bring_back_what_was_seen_later() -> None:
    memory = Deduplicator(HORIZON)
    assert seen(memory, ("a", 1_000)) == [True]
    assert seen(memory, ("a", 850)) == [True]
    assert seen(memory, ("a", 1_000)) == [False]


def test_among_rows_of_one_batch_the_earliest_by_time_and_place_is_first() -> None:
    memory = Deduplicator(HORIZON)
    assert memory.claim(rows([("a", 30), ("a", 10), ("a", 20)])).tolist() == [False, True, False]
    same_time = rows([("a", 10), ("a", 10), ("a", 10)], topics=["z", "b", "b"], first_offset=5)
    assert memory.claim(same_time).tolist() == [False, True, False]
    assert memory.claim(same_time.take([2, 0, 1])).tolist() == [False, False, True]


def test_only_equal_ids_are_equal() -> None:
    names = ["", "a", "A", "ä", "a\u0308", "a\x00", "a ", "aa", "\U0001f600"]
    memory = Deduplicator(HORIZON)
    assert seen(memory, *((name, 5) for name in names)) == [True] * len(names)
    assert seen(memory, *((name, 5) for name in names)) == [False] * len(names)


def test_a_claim_without_commit_leaves_no_trace() -> None:
    memory = Deduplicator(HORIZON)
    seen(memory, ("a", 1_000))
    for _ in range(2):
        assert memory.claim(rows([("a", 1_050), ("b", 1_050)])).tolist() == [False, True]
        assert len(memory) == 1
    memory.commit()
    assert len(memory) == 2


def test_there_must_be_a_claim_to_commit() -> None:
    memory = Deduplicator(HORIZON)
    with pytest.raises(FlagstreamError, match="no claim"):
        memory.commit()
    seen(memory, ("a", 1))
    with pytest.raises(FlagstreamError, match="no claim"):
        memory.commit()


def test_an_empty_batch_changes_nothing() -> None:
    memory = Deduplicator(HORIZON)
    assert seen(memory) == []
    seen(memory, ("a", 1_000))
    assert seen(memory) == []
    assert seen(memory, ("a", 1_000)) == [False]


def test_restoring_nothing_forgets_everything() -> None:
    memory = Deduplicator(HORIZON)
    seen(memory, ("a", 1_000))
    memory.restore(rows([]), MedianClock.blank())
    assert len(memory) == 0
    assert seen(memory, ("a", 1_000)) == [True]


def test_memory_stays_bounded_and_old_ids_count_as_new() -> None:
    memory = Deduplicator(HORIZON)
    sizes = []
    for batch in range(200):
        names = [(f"t{batch}-{number}", batch * 20 + number) for number in range(20)]
        assert all(seen(memory, *names))
        sizes.append(len(memory))
    assert max(sizes) <= 20 * (3 * 100 // 20 + 4), "the clock is half a window of 64 rows behind"
    assert min(sizes[20:]) >= 20 * (2 * 100 // 20)
    assert seen(memory, ("t0-0", 0), ("t199-0", 3_980)) == [True, False]


def test_the_same_id_is_counted_alike_before_and_after_its_memory_is_cleared() -> None:
    """Older than two horizons means forgotten at once, not when memory happens to be cleared."""
    memory = Deduplicator(HORIZON)
    seen(memory, ("a", 1_000), ("b", 1_000), *((f"now{number}", 1_201) for number in range(64)))
    assert len(memory) == 66
    assert seen(memory, ("a", 1_000)) == [True]


def test_many_ids_survive_growth_and_clearing() -> None:
    memory = Deduplicator(timedelta(microseconds=20_000))
    names = [(f"t{number}", number) for number in range(100_000)]
    for first in range(0, len(names), 7_000):
        assert all(seen(memory, *names[first : first + 7_000]))
    kept = names[-20_000:]
    assert not any(seen(memory, *kept))


def test_a_memory_restored_from_more_than_two_horizons_knows_the_latest_sighting() -> None:
    stored = [("a", 1_000), *((f"now{number}", 1_210) for number in range(64)), ("a", 1_050)]
    live, restored = Deduplicator(HORIZON), Deduplicator(HORIZON)
    assert [seen(live, each) for each in stored] == [[True]] * len(stored)
    stamps = np.array([stamp for _, stamp in stored])
    restored.restore(rows(stored), MedianClock.after(stamps[-WINDOW:], None))
    assert seen(live, ("a", 1_060)) == seen(restored, ("a", 1_060)) == [False]


# Few ids and times around the horizon, so that everything collides; enough rows that the clock moves on.
Batches = list[list[Sighting]]


@st.composite
def _stream(draw: st.DrawFn) -> Batches:
    """Batches of a stream whose time goes on, some stamps far ahead of it or behind."""
    ids = st.sampled_from("abcdefgh")
    apart = st.integers(-150, 150) | st.sampled_from([-100, 100, 101, 5_000])
    steps = draw(st.lists(st.lists(st.tuples(ids, apart), max_size=12), min_size=1, max_size=16))
    ticks = draw(st.integers(0, 20))
    return [
        [(name, 40 * number + off) for name, off in batch]
        + [(f"{number}-{tick}", 40 * number) for tick in range(ticks)]
        for number, batch in enumerate(steps)
    ]


def claimed(memory: Deduplicator, batch: list[Sighting]) -> tuple[list[bool], pa.Table, int | None]:
    taken = rows(batch)
    first = memory.claim(taken)
    stored = taken.filter(pa.array(first))
    reached = memory.settle(stored)
    memory.commit()
    return first.tolist(), stored, reached


@pytest.mark.long
@settings(max_examples=150, deadline=None, derandomize=True)
@given(_stream(), st.integers(0, 16))
def test_a_memory_restored_from_stored_rows_decides_as_the_live_one(batches: Batches, restart: int) -> None:
    live, stored, reached = Deduplicator(HORIZON), rows([]), None
    for batch in batches[:restart]:
        _, fresh, reached = claimed(live, batch)
        stored = pa.concat_tables([stored, fresh])
    stamps = stored["kafka_timestamp"].cast(pa.int64()).to_numpy()
    clock = MedianClock.after(stamps[-WINDOW:], reached)
    restored = Deduplicator(HORIZON)
    recent = np.flatnonzero(stamps >= clock.now - 200)
    restored.restore(stored.take(pa.array(recent[::-1])), clock)
    for batch in batches[restart:]:
        assert claimed(restored, batch)[0] == claimed(live, batch)[0]


def reached_by(stamps: list[int]) -> float:
    """The clock in plain Python."""
    window = [-math.inf] * 64
    shown = [-math.inf]
    for stamp in stamps:
        window = [*window[1:], stamp]
        shown.append(sorted(window)[31])
    return max(shown)


@pytest.mark.long
@settings(max_examples=150, deadline=None, derandomize=True)
@given(_stream())
def test_decisions_are_those_of_a_plain_reading_of_the_rule(batches: Batches) -> None:
    memory, latest, stamps = Deduplicator(HORIZON), dict[str, int](), list[int]()
    for batch in batches:
        first = [False] * len(batch)
        now = reached_by(stamps)
        known = {name: stamp for name, stamp in latest.items() if stamp >= now - 200}
        for row in sorted(range(len(batch)), key=lambda row: (batch[row][1], row)):
            name, stamp = batch[row]
            if name not in known or abs(stamp - known[name]) > 100:
                first[row] = True
                known[name] = max(stamp, known.get(name, stamp))
        assert claimed(memory, batch)[0] == first
        latest |= known
        stamps += [stamp for (_, stamp), new in zip(batch, first, strict=True) if new]


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(5, 40), min_size=3, max_size=8),
    st.integers(0, 100),
    st.integers(100, 10_000),
    st.booleans(),
)
def test_records_stamped_ahead_let_no_redelivery_within_the_horizon_through(
    sizes: list[int], after: int, ahead: int, restarts: bool
) -> None:
    """However the stream is cut, and after a restart: every sixteenth record is stamped `ahead`."""
    memory, now, sent, stored = Deduplicator(HORIZON), 0, list[Sighting](), rows([])
    for size in sizes * 5:
        fresh = [(f"t{now + 3 * each}", now + 3 * each + ahead * (each % 16 == 5)) for each in range(size)]
        due = range(now - after, now + 3 * size - after)
        again = [(name, stamp + after) for name, stamp in sent if stamp in due]
        found, added, reached = claimed(memory, [*fresh, *again])
        assert found == [True] * len(fresh) + [False] * len(again)
        sent, now, stored = [*sent, *fresh], now + 3 * size, pa.concat_tables([stored, added])
        if restarts:
            stamps = stored["kafka_timestamp"].cast(pa.int64()).to_numpy()
            memory = Deduplicator(HORIZON)
            memory.restore(stored, MedianClock.after(stamps[-WINDOW:], reached))
