"""Alerts of a real lake on a real broker, read as the programs of others read them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from schemas.alert_documents import alert_documents
from schemas.errors import ConfigurationError, RetryableError
from streaming.consume import Alert, alerts
from streaming.delta.whole_tables import read_stored
from streaming.home.brokers import connection
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord, PublisherSettings
from streaming.kafka.publish import Publisher
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.small_lake import BUSY_ALERTS, build_lake, spec_of

ROOT = Path(__file__).resolve().parents[2]
CALL_SECONDS = 30.0


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The alerts of a real lake, as rows."""
    settings, spec = Settings.load(tmp_path_factory.mktemp("lake"), {}), spec_of()
    build_lake(PlacedAgent(settings, spec))
    stored = read_stored(settings.lake(spec.name) / "alerts")
    assert stored is not None
    assert stored.num_rows >= BUSY_ALERTS
    return list(stored.sort_by("outbox_seq").to_pylist())


@pytest.fixture(scope="module")
def documents(rows: list[dict[str, Any]]) -> list[OutboxRecord]:
    """The same as an agent sends them: each alert, then late answers to the first ten."""
    import pyarrow as pa  # noqa: PLC0415 -- only here

    from schemas.alert import ALERTS  # noqa: PLC0415 -- only here

    late = [
        {**row, "revision": 2, "outbox_seq": len(rows) + place, "classification": "account_takeover"}
        for place, row in enumerate(rows[:10])
    ]
    table = pa.Table.from_pylist([*rows, *late], schema=ALERTS)
    keys = table["transaction_id"].to_pylist()
    return [
        OutboxRecord(number, key.encode(), document)
        for number, (key, document) in enumerate(zip(keys, alert_documents(table), strict=True))
    ]


@pytest.fixture
def lane(bootstrap: str, topic: Callable[[str], str]) -> PublisherSettings:
    name = topic("alerts")
    ensure_topic(bootstrap, name, partitions=3)
    return PublisherSettings(bootstrap, name, f"agent-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def published(lane: PublisherSettings, documents: list[OutboxRecord]) -> PublisherSettings:
    """A topic that holds all of them, and behind them what a driver has left open when it died."""
    publish(lane, documents)
    return lane


def publish(lane: PublisherSettings, records: list[OutboxRecord]) -> None:
    with closing(Publisher(lane)) as publisher:
        publisher.open(0)
        publisher.publish(records)


def group() -> str:
    return f"desk-{uuid.uuid4().hex[:8]}"


def read(lane: PublisherSettings, name: str, **options: Any) -> Iterator[Alert]:
    return alerts(lane.topic, group=name, brokers=lane.bootstrap, follow=False, **options)


def committed(lane: PublisherSettings, name: str) -> int:
    """How many records of all partitions the group has done."""
    consumer = Consumer({**connection(lane.bootstrap), "group.id": name})
    try:
        places = [TopicPartition(lane.topic, each) for each in range(3)]
        return sum(max(0, each.offset) for each in consumer.committed(places, timeout=CALL_SECONDS))
    finally:
        consumer.close()


def keep(kept: dict[str, int], alert: Alert) -> None:
    kept[alert["alert_id"]] = max(alert["revision"], kept.get(alert["alert_id"], 0))


def test_each_alert_comes_in_its_newest_revision_and_later_ones_where_the_group_was(
    lane: PublisherSettings, rows: list[dict[str, Any]], documents: list[OutboxRecord]
) -> None:
    name, kept = group(), dict[str, int]()
    publish(lane, documents[: len(rows)])
    for alert in read(lane, name):
        keep(kept, alert)
    assert kept == {row["alert_id"]: 1 for row in rows}
    publish(lane, documents)
    late = list(read(lane, name))
    assert [alert["revision"] for alert in late] == [2] * 10
    assert {alert["alert_id"] for alert in late} == {row["alert_id"] for row in rows[:10]}
    assert {alert["classification"] for alert in late} == {"account_takeover"}
    assert list(read(lane, name)) == []


def test_an_alert_is_done_when_the_next_one_is_asked_for(published: PublisherSettings) -> None:
    name, seen = group(), list[tuple[str, int]]()
    for alert in read(published, name):
        seen.append((alert["alert_id"], alert["revision"]))
        if len(seen) == 5:
            break
    with closing(read(published, name)) as again:
        first = next(again)
    assert (first["alert_id"], first["revision"]) in seen, "it was being worked on when the loop was left"
    kept = dict[str, int]()
    for key in seen:
        kept[key[0]] = key[1]
    for alert in read(published, name):
        keep(kept, alert)
    everything = dict[str, int]()
    for alert in read(published, group()):
        keep(everything, alert)
    assert kept == everything


def test_a_program_that_fails_loses_none_however_often(published: PublisherSettings) -> None:
    name, kept, failures = group(), dict[str, int](), 0
    while True:
        try:
            for place, alert in enumerate(read(published, name)):
                if place == 12:
                    raise ZeroDivisionError
                keep(kept, alert)
        except ZeroDivisionError:
            failures += 1
            continue
        break
    everything = dict[str, int]()
    for alert in read(published, group()):
        keep(everything, alert)
    assert kept == everything
    assert failures >= 2


def test_what_a_dead_driver_has_left_open_is_not_seen(
    published: PublisherSettings, documents: list[OutboxRecord]
) -> None:
    before = sum(1 for _ in read(published, group()))
    dead = Producer({**connection(published.bootstrap), "transactional.id": published.transactional_id})
    dead.init_transactions(CALL_SECONDS)
    dead.begin_transaction()
    dead.produce(published.topic, documents[0].value.replace(b'"revision":1', b'"revision":9'))
    assert dead.flush(CALL_SECONDS) == 0
    assert sum(1 for _ in read(published, group())) == before
    dead.abort_transaction(CALL_SECONDS)
    assert sum(1 for _ in read(published, group())) == before


def test_what_is_no_alert_is_passed_over_and_a_later_version_stops_the_reader(
    published: PublisherSettings, documents: list[OutboxRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    before = sum(1 for _ in read(published, group()))
    producer = Producer(connection(published.bootstrap))
    for value in (None, b"\xff", b"[]", b'{"alert_id": 7}', b"{}"):
        producer.produce(published.topic, value)
    assert producer.flush(CALL_SECONDS) == 0
    assert sum(1 for _ in read(published, group())) == before
    assert capsys.readouterr().err.count(" no_alert: ") == 5
    producer.produce(published.topic, documents[0].value.replace(b'"alert_version":1', b'"alert_version":2'))
    assert producer.flush(CALL_SECONDS) == 0
    with pytest.raises(ConfigurationError, match="an alert of version 2, and version 1 is known here"):
        list(read(published, group()))


def test_alerts_of_one_agent_are_chosen_by_its_name(
    published: PublisherSettings, documents: list[OutboxRecord]
) -> None:
    other = PublisherSettings(published.bootstrap, published.topic, "another")
    publish(other, [replace(each, outbox_seq=number) for number, each in enumerate(documents[20:23])])
    assert sum(1 for _ in read(published, group(), agent="another")) == 3
    name = group()
    assert sum(1 for _ in read(published, name, agent="nobody")) == 0
    assert committed(published, name) >= len(documents) + 3, "what is another's counts as done"


def test_a_follower_waits_for_the_topic_and_ends_when_it_is_asked_to(
    bootstrap: str, topic: Callable[[str], str], documents: list[OutboxRecord]
) -> None:
    name = topic("alerts")
    with pytest.raises(RetryableError, match=f"there is no topic {name}"):
        list(alerts(name, group=group(), brokers=bootstrap, follow=False))
    ensure_topic(bootstrap, name, partitions=1)
    publish(PublisherSettings(bootstrap, name, "payments"), documents[:2])
    asked = iter([False] * 40 + [True] * 1_000)
    assert len(list(alerts(name, group=group(), brokers=bootstrap, stop=lambda: next(asked)))) == 2


def test_the_file_that_agents_are_given_serves_readers_too(
    published: PublisherSettings, tmp_path: Path
) -> None:
    file = tmp_path / "client.properties"
    file.write_text(f"bootstrap.servers={published.bootstrap}\nclient.id=desk\n", encoding="utf-8")
    found = alerts(published.topic, group=group(), config=file, follow=False)
    assert len(list(found)) == len(list(read(published, group())))
    file.write_text(f"bootstrap.servers={published.bootstrap}\nisolation.level=read_uncommitted\n", "utf-8")
    with pytest.raises(ConfigurationError, match=r"isolation\.level: is set by flagstream"):
        alerts(published.topic, group=group(), config=file)


def test_ten_lines_without_flagstream_do_the_same(
    published: PublisherSettings, rows: list[dict[str, Any]]
) -> None:
    page = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
    (program,) = (each for each in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "Consumer(" in each)
    assert len(program.strip().splitlines()) <= 12
    for shown, meant in (
        ("127.0.0.1:9092", published.bootstrap),
        ('"alerts"', f'"{published.topic}"'),
        ("my-desk", group()),
    ):
        assert shown in program
        program = program.replace(shown, meant)
    kept, expected = dict[str, int](), dict[str, int]()
    for alert in read(published, group()):
        keep(expected, alert)

    class EnoughError(Exception):
        pass

    def handle(alert: Alert) -> None:
        keep(kept, alert)
        if kept == expected:
            raise EnoughError

    with pytest.raises(EnoughError):
        exec(compile(program, "docs/integrations.md", "exec"), {"handle": handle})
    assert len(kept) == len(rows)


def test_islice_takes_as_many_as_wanted(published: PublisherSettings) -> None:
    name = group()
    assert len(list(islice(read(published, name), 4))) == 4
