"""Labels derived from labels: what counts, from which row on, and how much."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from schemas.label import GIVEN
from schemas.tables import UTC_MICROS
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels, at_positions, blame_of
from streaming.labels.label_follower import LabelFollower
from streaming.labels.label_pins import LabelPin, LabelPins
from streaming.store.place import Place

START = datetime(2024, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ALERTS = pa.schema(
    [
        pa.field("transaction_id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("own_evidence", pa.float64()),
        pa.field("sequence", pa.int64()),
        pa.field("revision", pa.int32()),
    ]
)


class Clock:
    """Shows the time it is set to."""

    def __init__(self) -> None:
        self.now = START + 9 * DAY

    def __call__(self) -> datetime:
        return self.now


class LakeOfTen:
    """Transactions t0 … t9 of c0 and c1 by turns, an alert on t4, an absence after t5, and a label book."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.book = LabelBook(Place.local(folder / "labels"), retention=30 * DAY, clock=self.clock)
        self.folder = folder
        self.store(0, 10)
        alerts = {
            "transaction_id": ["t4", "t5"],
            "kind": ["transaction", "absence.unconfirmed"],
            "own_evidence": [9.0, 9.0],
            "sequence": [4, 5],
            "revision": [1, 1],
        }
        write_deltalake(folder / "alerts", pa.table(alerts, schema=ALERTS))
        self.entity_labels = EntityLabels(
            self.book, Place.local(folder / "transactions"), Place.local(folder / "alerts"), ("customer",)
        )

    def store(self, first: int, end: int) -> None:
        rows = range(first, end)
        columns = {
            "transaction_id": [f"t{row}" for row in rows],
            "sequence": pa.array(rows, pa.int64()),
            "event_time": pa.array([START + timedelta(minutes=row) for row in rows], UTC_MICROS),
            "customer": [f"c{row % 2}" for row in rows],
        }
        write_deltalake(self.folder / "transactions", pa.table(columns), mode="append")

    def say(self, *labels: tuple[str, bool], days: float = 1.0) -> None:
        """Record labels, all decided so many days after the start."""
        count = len(labels)
        columns: dict[str, Any] = {
            "transaction_id": [name for name, _ in labels],
            "is_fraud": [fraud for _, fraud in labels],
            "kind": pa.nulls(count, pa.string()),
            "decided_at": pa.array([START + days * DAY] * count, UTC_MICROS),
            "decided_by": ["desk"] * count,
            "source_position": pa.array(range(count), pa.int64()),
        }
        self.book.record(pa.table(columns).select(GIVEN.names).cast(GIVEN), source="test")

    def said(self, pins: Sequence[LabelPin], since: int = 0) -> list[tuple[Any, ...]]:
        found = self.entity_labels.derive(since, LabelPins.of(pins)).table
        columns = ("position", "customer", "blame", "first")
        return list(zip(*(found[name].to_pylist() for name in columns), strict=True))


@pytest.fixture
def lake(tmp_path: Path) -> LakeOfTen:
    return LakeOfTen(tmp_path)


def test_a_fraud_blames_its_entities_unless_its_own_evidence_gave_it_away(lake: LakeOfTen) -> None:
    lake.say(("t1", True), ("t2", False), ("t4", True))
    given_away = float(blame_of(np.array([9.0]))[0])
    assert given_away < 0.2
    expected = [(10, "c1", 1.0, True), (10, "c0", 0.0, True), (10, "c0", given_away, True)]
    assert lake.said([LabelPin(10, 3, 10)]) == expected
    lake.say(("t5", True))
    assert lake.said([LabelPin(10, 4, 10)]) == [*expected, (10, "c1", 1.0, True)], "no alert of its own"
    found = lake.entity_labels.derive(0, LabelPins.of([LabelPin(10, 3, 10)])).table
    assert found["event_time"].to_pylist()[0] == START + timedelta(minutes=1)


def test_of_a_changed_labels_only_the_change_counts(lake: LakeOfTen) -> None:
    lake.say(("t1", True))
    lake.say(("t1", False), days=2)
    lake.say(("t1", True), days=1.5)
    pins = [LabelPin(10, 1, 10), LabelPin(20, 3, 20)]
    assert lake.said(pins) == [(10, "c1", 1.0, True), (20, "c1", -1.0, False)]
    assert lake.said(pins, since=1) == [(20, "c1", -1.0, False)]
    lake.say(("t1", True), days=3)
    assert lake.said([*pins, LabelPin(30, 4, 30)], since=3) == [(30, "c1", 1.0, False)]


def test_labels_count_from_the_row_their_pin_names_however_much_is_derived_at_once(lake: LakeOfTen) -> None:
    lake.say(*[(f"t{row}", row % 3 == 0) for row in range(9)])
    pins = LabelPins.of([LabelPin(10, 2, 10), LabelPin(15, 3, 12), LabelPin(40, 9, 33)])
    whole = lake.entity_labels.derive(0, pins).table
    assert whole["position"].to_pylist() == [10] * 2 + [15] + [40] * 6
    parts = [lake.entity_labels.between(pins, first, end) for first, end in ((0, 15), (15, 40), (40, 99))]
    assert pa.concat_tables(parts).equals(whole)
    assert at_positions(whole, 15, 40).equals(parts[1])


def test_labels_on_transactions_beyond_the_pinned_bound_count_for_nothing(lake: LakeOfTen) -> None:
    lake.say(("t8", True), ("t1", True), ("t77", True))
    found = lake.entity_labels.derive(0, LabelPins.of([LabelPin(8, 3, 8)]))
    assert found.table["position"].to_pylist() == [8]
    assert sorted(found.unmatched["label_sequence"].to_list()) == [0, 2]
    # A later label on it is then the first that counts.
    lake.say(("t8", True), days=2)
    pins = [LabelPin(8, 3, 8), LabelPin(12, 4, 12)]
    assert lake.said(pins, since=3) == [(12, "c0", 1.0, True)]


def test_no_labels_and_no_pins_make_no_labels(lake: LakeOfTen) -> None:
    assert lake.entity_labels.derive(0, LabelPins.of()).table.equals(lake.entity_labels.schema.empty_table())
    assert lake.entity_labels.between(LabelPins.of([LabelPin(4, 0, 0)]), 0, 9).num_rows == 0


def follower(lake: LakeOfTen, settled: int = 10, pins: Sequence[LabelPin] = ()) -> LabelFollower:
    return LabelFollower(lake.entity_labels, LabelPins.of(pins), lambda: settled)


def test_the_follower_offers_what_is_new_once_and_the_same_follows_from_its_pins(lake: LakeOfTen) -> None:
    following = follower(lake)
    assert following.take(10)[0].through == 0
    lake.say(("t1", True), ("t2", False))
    following.round()
    lake.say(("t3", True))
    first, labels = following.take(12)
    assert (first, labels["position"].to_pylist()) == (LabelPin(12, 2, 10), [12, 12])
    assert following.take(14) == (first._replace(first=14), labels.slice(0, 0))
    following.round()
    second, more = following.take(16)
    assert second == LabelPin(16, 3, 10)
    assert pa.concat_tables([labels, more]).equals(
        lake.entity_labels.derive(0, LabelPins.of([first, second])).table
    )


def test_what_was_offered_but_not_taken_is_found_by_the_next_driver(lake: LakeOfTen) -> None:
    lake.say(("t1", True))
    lost = follower(lake)
    lost.round()
    following = follower(lake)
    following.round()
    assert following.take(10)[1].num_rows == 1
    again = follower(lake, pins=[LabelPin(10, 1, 10)])
    again.round()
    assert again.take(11)[1].num_rows == 0


def test_a_label_ahead_of_its_transaction_is_waited_for_a_minute(lake: LakeOfTen) -> None:
    settled = [10]
    following = LabelFollower(lake.entity_labels, LabelPins.of(), lambda: settled[0])
    lake.say(("t1", True), ("t11", True), ("t2", True))
    following.round()
    assert following.take(10)[1]["customer"].to_pylist() == ["c1"]
    lake.store(10, 12)
    settled[0] = 12
    following.round()
    assert following.take(12)[1]["customer"].to_pylist() == ["c1", "c0"]
    lake.say(("t99", True), ("t3", True))
    following.round()
    assert following.take(13)[1].num_rows == 0
    lake.clock.now += timedelta(seconds=61)
    following.round()
    assert following.take(14)[1]["customer"].to_pylist() == ["c1"]


def test_the_thread_follows_until_it_is_closed(lake: LakeOfTen) -> None:
    following = follower(lake)
    following.start()
    lake.say(("t1", True))
    found = 0
    deadline = datetime.now(UTC) + timedelta(seconds=20)
    while not found:
        assert datetime.now(UTC) < deadline
        found = following.take(10)[1].num_rows
    following.close()
    assert found == 1


def test_pins_of_a_year_are_shared_and_small(lake: LakeOfTen) -> None:
    count = 100_000
    rows = np.arange(10, 10 + count)
    pins = LabelPins(rows, np.arange(2 - count, 2), rows)
    lake.say(("t1", True))
    following = LabelFollower(lake.entity_labels, pins, lambda: 10)
    tracemalloc.start()
    try:
        for _ in range(3):
            following.round()
        assert following.take(10 + count)[0].through == 1
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < 200_000, "nothing is copied to find that nothing is new"
    assert sum(each.nbytes for each in (pins.firsts, pins.throughs, pins.belows)) == 24 * count
