"""Labels on a real broker: each recorded once, wherever the reader was killed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from deltalake import DeltaTable

from schemas.errors import DataLossError
from streaming.home.brokers import connection
from streaming.kafka.topic_admin import ensure_topic
from streaming.labels.book import LabelBook
from streaming.labels.label_topic import LabelTopic, PolledLabels
from streaming.labels.recorded import Recorded
from streaming.store.place import Place

KEEP = timedelta(days=30)
SECONDS = 30.0


@contextmanager
def reader(bootstrap: str, topic: str, folder: Path) -> Iterator[tuple[LabelTopic, LabelBook]]:
    book = LabelBook(Place.local(folder / "labels"), retention=KEEP)
    with LabelTopic(
        bootstrap, topic, book, rejects=Place.local(folder / "labels_quarantine"), retention=KEEP
    ) as labels:
        yield labels, book


def send(
    bootstrap: str, topic: str, values: list[bytes | None], partition: int = 0, transactional_id: str = ""
) -> None:
    more = {"transactional.id": transactional_id} if transactional_id else {}
    producer = Producer({**connection(bootstrap), "enable.idempotence": True, **more})
    if more:
        producer.init_transactions(SECONDS)
        producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=partition)
    if more:
        producer.commit_transaction(SECONDS)
    assert producer.flush(SECONDS) == 0


def label(number: int, **more: object) -> bytes:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number)
    content = {"transaction_id": f"t{number}", "is_fraud": number % 2 == 0, "decided_at": moment.isoformat()}
    return json.dumps({**content, "decided_by": "ann", **more}).encode()


def polled(labels: LabelTopic, records: int) -> list[PolledLabels]:
    """Poll until this many records came."""
    found: list[PolledLabels] = []
    deadline = time.monotonic() + SECONDS
    while sum(each.labels.num_rows + each.rejected.num_rows for each in found) < records:
        assert time.monotonic() < deadline, "the records did not arrive"
        found.append(labels.poll(wait=0.2))
    return found


def recorded(labels: LabelTopic, records: int) -> list[Recorded]:
    return [labels.record(each) for each in polled(labels, records)]


@pytest.fixture
def name(bootstrap: str, topic: Callable[[str], str]) -> str:
    found = topic("labels")
    ensure_topic(bootstrap, found, partitions=2)
    return found


def test_labels_of_all_partitions_are_recorded_and_what_is_none_is_kept_aside(
    bootstrap: str, name: str, tmp_path: Path
) -> None:
    send(bootstrap, name, [label(0), b"{torn", None, label(1, kind="skimming")])
    send(bootstrap, name, [label(2, is_fraud="maybe"), label(3, decided_at="2999-01-01"), label(4)], 1)
    send(bootstrap, name, [b'{"transaction_id": 5, "is_fraud": 1}'], 1)
    before = datetime.now(UTC) + timedelta(seconds=5)
    with reader(bootstrap, name, tmp_path) as (labels, book):
        done = recorded(labels, 8)
        assert (sum(each.stored for each in done), sum(each.rejected for each in done)) == (4, 4)
        rows = {row["transaction_id"]: row for row in book.since(0).to_pylist()}
    assert rows["t1"]["kind"] == "skimming"
    assert (rows["t0"]["source"], rows["t1"]["source_position"]) == (f"{name}/0", 3)
    assert (rows["5"]["decided_by"], rows["5"]["source"]) == ("unknown", f"{name}/1")
    assert before - timedelta(minutes=5) < rows["5"]["decided_at"] < before
    kept = DeltaTable(tmp_path / "labels_quarantine").to_pyarrow_table().to_pylist()
    assert {(row["partition"], row["offset"], row["value"]) for row in kept} == {
        (0, 1, b"{torn"),
        (0, 2, None),
        (1, 0, label(2, is_fraud="maybe")),
        (1, 1, label(3, decided_at="2999-01-01")),
    }
    assert all(row["reason"] == "bad_label" and row["detail"] for row in kept)


def test_a_reader_killed_between_poll_and_record_or_between_two_commits_loses_and_doubles_nothing(
    bootstrap: str, name: str, tmp_path: Path
) -> None:
    values: list[bytes | None] = [label(number) if number % 5 else b"no label" for number in range(40)]
    send(bootstrap, name, values)
    with reader(bootstrap, name, tmp_path) as (labels, _):
        polled(labels, 40)
    with reader(bootstrap, name, tmp_path) as (labels, _):
        part = labels.poll(limit=15, wait=SECONDS)
        labels._keep_rejected(part.partitions[0])
    with reader(bootstrap, name, tmp_path) as (labels, _):
        labels.record(labels.poll(limit=7, wait=SECONDS))
    with reader(bootstrap, name, tmp_path) as (labels, _):
        twice = labels.poll(limit=9, wait=SECONDS)
        first, again = labels.record(twice), labels.record(twice)
        assert (again.stored, again.repeated) == (0, first.stored)
    with reader(bootstrap, name, tmp_path) as (labels, book):
        while book.position(f"{name}/0") < 40:
            labels.record(labels.poll(limit=5, wait=0.2))
        rows = book.since(0)
    assert rows["label_sequence"].to_pylist() == list(range(32))
    assert rows["source_position"].to_pylist() == [number for number in range(40) if number % 5]
    kept = DeltaTable(tmp_path / "labels_quarantine").to_pyarrow_table()["offset"].to_pylist()
    assert sorted(kept) == list(range(0, 40, 5))


def test_an_import_in_between_is_no_obstacle_and_repeats_are_told(
    bootstrap: str, name: str, tmp_path: Path
) -> None:
    with reader(bootstrap, name, tmp_path) as (labels, book):
        send(bootstrap, name, [label(0), label(1)])
        batch = polled(labels, 2)
        rows = batch[-1].labels
        assert (
            LabelBook(Place.local(tmp_path / "labels"), retention=KEEP).record(rows, source="file").stored
            == rows.num_rows
        )
        done = [labels.record(each) for each in batch]
        assert sum(each.repeated for each in done) == rows.num_rows
        assert book.since(0)["label_sequence"].to_pylist() == [0, 1]


def test_marks_that_transactions_leave_behind_are_passed(bootstrap: str, name: str, tmp_path: Path) -> None:
    send(bootstrap, name, [label(0), label(1)], transactional_id=name)
    with reader(bootstrap, name, tmp_path) as (labels, book):
        recorded(labels, 2)
        deadline = time.monotonic() + SECONDS
        while book.position(f"{name}/0") < 3:
            assert time.monotonic() < deadline, "the end of the transaction was not passed"
            labels.record(labels.poll(wait=0.2))
    with reader(bootstrap, name, tmp_path) as (labels, book):
        send(bootstrap, name, [label(2)])
        assert sum(each.stored for each in recorded(labels, 1)) == 1


def test_a_poll_that_was_never_recorded_stops_the_next_record(
    bootstrap: str, name: str, tmp_path: Path
) -> None:
    send(bootstrap, name, [label(number) for number in range(10)])
    with reader(bootstrap, name, tmp_path) as (labels, _):
        labels.poll(limit=3, wait=SECONDS)
        with pytest.raises(DataLossError, match="not recorded"):
            labels.record(labels.poll(limit=3, wait=SECONDS))


def test_a_topic_made_anew_is_noticed(bootstrap: str, name: str, tmp_path: Path) -> None:
    with reader(bootstrap, name, tmp_path) as (labels, _):
        send(bootstrap, name, [label(number) for number in range(4)])
        recorded(labels, 4)
    admin = AdminClient(connection(bootstrap))
    admin.delete_topics([name])[name].result(SECONDS)
    deadline = time.monotonic() + SECONDS
    while name in admin.list_topics(timeout=SECONDS).topics:
        assert time.monotonic() < deadline, "the topic was not deleted"
    ensure_topic(bootstrap, name, partitions=2)
    with pytest.raises(DataLossError, match="made anew"), reader(bootstrap, name, tmp_path):
        pass
