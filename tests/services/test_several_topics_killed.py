"""Drivers killed while they read several topics, or take records of several out of the quarantine."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from schemas.spec import AgentSpec, load_spec
from streaming.batch.steps import BatchStep
from streaming.delta.lake_reader import AgentLake
from streaming.history.reconcile import reconcile
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.quarantine.choosing import RecordFilter
from streaming.quarantine.inspection import Quarantine
from streaming.testing.drivers import Drivers
from streaming.testing.killable_driver import MID_PUBLISH
from streaming.testing.streams import Stream, folded_scores, published, stored, write_spec
from streaming.versions.registry import Author
from tests.crash.test_requeue import contract_file
from tests.crash_chain import HOUR, LIVE, REPAIR

pytestmark = pytest.mark.timeout(900)  # chains of drivers, each with a JVM of its own
CHAIN = [
    (BatchStep.STORE.value, LIVE),
    (BatchStep.SCORE.value, REPAIR),
    (MID_PUBLISH, LIVE),
    (BatchStep.CLOSE.value, LIVE),
]
Topic = Callable[[str], str]


@pytest.fixture
def drivers(settings: Settings, bootstrap: str) -> Iterator[Drivers]:
    started = Drivers(settings, bootstrap)
    yield started
    started.end()


class Streams:
    """Events of two topics, of which one has two partitions."""

    def __init__(self, bootstrap: str, topic: Topic) -> None:
        self.topics = [topic("a"), topic("b")]
        self.stream = Stream(bootstrap, self.topics[0])
        for name, partitions in zip(self.topics, (2, 1), strict=True):
            ensure_topic(bootstrap, name, partitions)

    def send(self, count: int) -> None:
        for name in self.topics:
            self.stream.topic = name
            self.stream.send(count)


def assert_whole(settings: Settings, spec: AgentSpec, bootstrap: str, streams: Streams) -> None:
    """Everything is stored once, in an order without gaps, scored as one stream, and sent once."""
    lake = settings.lake(spec.name)
    rows = stored(lake, "transactions", "sequence")
    assert Counter(rows["transaction_id"].to_pylist()) == Counter(streams.stream.sent_ids)
    assert rows["sequence"].to_pylist() == list(range(rows.num_rows))
    assert set(rows["topic"].to_pylist()) == set(streams.topics)
    table = stored(lake, "alerts", "outbox_seq")
    keys = list(zip(table["alert_id"].to_pylist(), table["revision"].to_pylist(), strict=True))
    sent = [(each["alert_id"], each["revision"]) for each in published(bootstrap, spec.alerts.topic)]
    assert sent == keys
    assert len(set(keys)) == len(keys) > len(CHAIN)
    assert set(folded_scores(spec, rows)) == set(table["transaction_id"].to_pylist())
    found = reconcile(AgentLake(lake, spec), bootstrap, HOUR)
    assert (found.differences, found.requeued_twice) == (0, 0), found


def test_a_chain_of_killed_drivers_over_two_topics_loses_and_doubles_nothing(
    drivers: Drivers, settings: Settings, bootstrap: str, topic: Topic, tmp_path: Path
) -> None:
    streams = Streams(bootstrap, topic)
    source = {"contract": "simulator", "topics": streams.topics, "max_records_per_batch": 400}
    spec_file = write_spec(tmp_path, topic, limit=30, data_sources={"transactions": source})
    for place, live in CHAIN:
        streams.send(120)
        assert drivers.run(spec_file, place, live=live) == -signal.SIGKILL, (place, drivers.outputs[-1])
    streams.send(60)
    assert drivers.run(spec_file) == 0, drivers.outputs[-1]
    assert_whole(settings, load_spec(spec_file), bootstrap, streams)
    quarantine = stored(settings.lake("tester"), "quarantine", "offset")
    places = {tuple(row.values()) for row in quarantine.select(["topic", "partition", "offset"]).to_pylist()}
    assert len(places) == quarantine.num_rows == streams.stream.malformed


def test_records_of_two_topics_are_taken_out_of_the_quarantine_by_drivers_that_are_killed(
    drivers: Drivers, settings: Settings, bootstrap: str, topic: Topic, tmp_path: Path
) -> None:
    """The first request names the records of one topic, the next one those of both: none is taken twice."""
    streams = Streams(bootstrap, topic)
    wrong, right = (contract_file(tmp_path, amount) for amount in ("amuont", "amount"))
    source = {"contract": wrong, "topics": streams.topics, "max_records_per_batch": 400}
    spec_file = write_spec(tmp_path, topic, limit=30, data_sources={"transactions": source})
    quarantine = Quarantine(PlacedAgent(settings, load_spec(spec_file)))
    streams.send(120)
    assert drivers.run(spec_file) == 0, drivers.outputs[-1]
    everything = len(streams.stream.sent_ids)
    for place, name in ((BatchStep.STORE.value, streams.topics[1]), (MID_PUBLISH, None)):
        wanted = RecordFilter(("missing_field",), topic=name)
        quarantine.requeue(wanted, right, Author("anna", "the contract was wrong"), dry_run=False)
        assert drivers.run(spec_file, place, live=LIVE) == -signal.SIGKILL, (place, drivers.outputs[-1])
    assert drivers.run(spec_file) == 0, drivers.outputs[-1]
    asked = quarantine.requests()
    assert [each["state"] for each in asked] == ["done", "done"]
    assert sum(each["stored"] for each in asked) == everything
    assert_whole(settings, load_spec(spec_file), bootstrap, streams)
