from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from schemas.alert import ALERTS
from schemas.errors import DataLossError
from schemas.loading import parse_document
from schemas.spec import AgentSpec
from schemas.tables import (
    BATCHES,
    COORDINATES,
    DUPLICATES,
    FAULTS,
    HEADERS,
    LATE,
    LEDGER,
    MONITORING,
    QUARANTINE,
    UTC_MICROS,
    transactions_schema,
)
from streaming.batch.decision import CurrentBatch, Decision
from streaming.batch.store import store
from streaming.delta.lake import Lake
from streaming.delta.lake_table import Stamp
from streaming.events.filtered import NOTHING_FILTERED
from streaming.labels.entity_labels import entity_labels_schema
from streaming.labels.label_pins import LabelPin
from streaming.store.place import Place

START = datetime(2026, 1, 1, tzinfo=UTC)
DECODED = pa.schema(
    [("transaction_id", pa.string()), ("event_time", UTC_MICROS), *((f.name, f.type) for f in COORDINATES)]
)
SPEC = parse_document(
    {
        "name": "tester",
        "version": "1.0.0",
        "data_sources": {"transactions": {"contract": "simulator", "topic": "in"}},
        "alerts": {"topic": "out"},
    },
    AgentSpec,
    where="test",
)


class SeenIds:
    """Marks repeated ids within one claim, which is all these tests need."""

    def claim(self, valid: pa.Table) -> npt.NDArray[np.bool_]:
        ids = valid["transaction_id"].to_pylist()
        return np.array([ids.index(each) == place for place, each in enumerate(ids)], dtype=np.bool_)

    def settle(self, stored: pa.Table) -> int | None:
        return pc.max(stored["kafka_timestamp"].cast(pa.int64())).as_py()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    schemas = {
        "transactions": transactions_schema(DECODED),
        "quarantine": QUARANTINE,
        "duplicates": DUPLICATES,
        "alerts": ALERTS,
        "monitoring": MONITORING,
        "ledger": LEDGER,
        "late": LATE,
        "batches": BATCHES,
    }
    return Lake.open(Place.local(tmp_path), SPEC, schemas, retention=timedelta(days=30))


def no_labels(first: int) -> tuple[LabelPin, pa.Table]:
    return LabelPin(first, 7, first), entity_labels_schema(()).empty_table()


def stored_by(
    lake: Lake,
    batch: CurrentBatch,
    valid: pa.Table,
    rejected: pa.Table,
    filtered: pa.Table = NOTHING_FILTERED,
) -> tuple[Decision, pa.Table]:
    stored = store(lake, batch, valid, rejected, SeenIds(), no_labels, filtered)
    return stored.decision, stored.rows


def batch(read: int, *, first_sequence: int = 0, watermark: datetime = START) -> CurrentBatch:
    return CurrentBatch(
        stamp=Stamp("tester/q", 0),
        read=read,
        query_id="q",
        opened_at=START,
        first_sequence=first_sequence,
        watermark_us=int(watermark.timestamp() * 1_000_000),
        labels=LabelPin(0, 4, 2),
        offsets={"in": {"0": read}},
        pins={"spec": {}},
    )


def decoded(*rows: tuple[str, int, int]) -> pa.Table:
    """Rows of (transaction id, seconds after START, offset)."""
    return pa.table(
        {
            "transaction_id": [identifier for identifier, _, _ in rows],
            "event_time": [START + timedelta(seconds=seconds) for _, seconds, _ in rows],
            "topic": ["in"] * len(rows),
            "partition": [0] * len(rows),
            "offset": [offset for _, _, offset in rows],
            "kafka_timestamp": [START] * len(rows),
            "faults": [["memo: cut at 9"] if seconds % 2 else None for _, seconds, _ in rows],
        },
        schema=pa.schema([*DECODED, FAULTS]),
    )


def rejected(*offsets: int) -> pa.Table:
    count = len(offsets)
    return pa.table(
        {
            "key": [b"k"] * count,
            "value": [b"not json"] * count,
            "headers": pa.nulls(count, HEADERS),
            "topic": ["in"] * count,
            "partition": pa.array([0] * count, pa.int32()),
            "offset": list(offsets),
            "kafka_timestamp": pa.array([START] * count, UTC_MICROS),
            "reason": ["malformed_json"] * count,
            "detail": ["line 1"] * count,
        }
    )


def test_rows_are_numbered_by_event_time_then_place(lake: Lake) -> None:
    rows = decoded(("a", 5, 0), ("b", 1, 1), ("c", 1, 2))
    decision, stored = stored_by(lake, batch(3, first_sequence=10), rows, rejected())
    assert stored["transaction_id"].to_pylist() == ["b", "c", "a"]
    assert stored["sequence"].to_pylist() == [10, 11, 12]
    assert (decision.first_sequence, decision.next_sequence, decision.stored) == (10, 13, 3)
    assert decision.watermark_us == int((START + timedelta(seconds=5)).timestamp() * 1_000_000)


def test_rows_older_than_what_was_stored_before_are_late(lake: Lake) -> None:
    rows = decoded(("a", 5, 0), ("b", 1, 1))
    _, stored = stored_by(lake, batch(2, watermark=START + timedelta(seconds=3)), rows, rejected())
    assert stored["late"].to_pylist() == [True, False]


def test_every_record_ends_in_exactly_one_table(lake: Lake) -> None:
    rows = decoded(("a", 1, 0), ("a", 2, 1), ("b", 3, 2))
    decision, stored = stored_by(lake, batch(5), rows, rejected(3, 4))
    assert (decision.stored, decision.duplicates, decision.quarantined) == (2, 1, 2)
    assert lake.quarantine.count() == 2
    assert lake.duplicates.read("offset", 0)["offset"].to_pylist() == [1]
    assert lake.transactions.count() == stored.num_rows


def test_counts_that_do_not_add_up_stop_the_batch(lake: Lake) -> None:
    with pytest.raises(DataLossError, match="4 records read"):
        stored_by(lake, batch(4), decoded(("a", 1, 0)), rejected(1))
    assert lake.transactions.count() == 0


def test_a_retry_keeps_what_an_earlier_attempt_quarantined(lake: Lake) -> None:
    """The contract may change between two attempts: nothing may be lost or counted twice for it."""
    with pytest.raises(DataLossError):
        stored_by(lake, batch(99), decoded(("a", 1, 0)), rejected(1, 2))
    rows = decoded(("a", 1, 0), ("b", 2, 1))
    decision, stored = stored_by(lake, batch(4), rows, rejected(2, 3))
    assert stored["transaction_id"].to_pylist() == ["a"]
    assert lake.quarantine.read("offset", 0)["offset"].to_pylist() == [1, 2, 3]
    assert (decision.read, decision.stored, decision.quarantined) == (4, 1, 3)


def test_what_is_filtered_is_counted_unless_an_earlier_attempt_recorded_it(lake: Lake) -> None:
    with pytest.raises(DataLossError):
        stored_by(lake, batch(99), decoded(("a", 1, 0), ("a", 2, 1)), rejected(2))
    filtered = rejected(1, 2, 3, 4).select(NOTHING_FILTERED.column_names)
    decision, _ = stored_by(lake, batch(5), decoded(("a", 1, 0)), rejected(), filtered)
    assert (decision.stored, decision.duplicates, decision.quarantined) == (1, 1, 1)
    assert (decision.filtered, decision.filtered_by_reason) == (2, {"malformed_json": 2})
    assert Decision.from_metadata(decision.to_metadata()) == decision


def test_a_retry_does_not_quarantine_a_recorded_duplicate(lake: Lake) -> None:
    with pytest.raises(DataLossError):
        stored_by(lake, batch(99), decoded(("a", 1, 0), ("a", 1, 1)), rejected())
    decision, _ = stored_by(lake, batch(2), decoded(("a", 1, 0)), rejected(1))
    assert (decision.stored, decision.duplicates, decision.quarantined) == (1, 1, 0)
    assert lake.quarantine.count() == 0


def test_a_decision_survives_the_commit_metadata(lake: Lake) -> None:
    decision, _ = stored_by(lake, batch(1), decoded(("a", 1, 0)), rejected())
    kept = lake.transactions.newest_metadata()
    assert kept is not None
    assert Decision.from_metadata(kept) == decision


def test_a_batch_pins_the_labels_its_rows_know_and_one_without_rows_those_of_the_batch_before(
    lake: Lake,
) -> None:
    with_rows, _ = stored_by(lake, batch(1, first_sequence=10), decoded(("a", 1, 0)), rejected())
    assert with_rows.labels == LabelPin(10, 7, 10)
    assert Decision.from_metadata(with_rows.to_metadata()).labels == with_rows.labels


def test_a_batch_without_rows_takes_no_labels(lake: Lake) -> None:
    without_rows, _ = stored_by(lake, batch(1, first_sequence=10), decoded(), rejected(0))
    assert without_rows.labels == LabelPin(10, 4, 2)
