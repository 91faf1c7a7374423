"""Whatever passes by itself never ends labels, and none that was polled is lost; what lasts is raised."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition
from deltalake import write_deltalake
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.errors import DataLossError, DiskError, RetryableError
from schemas.label import GIVEN, LABEL_REJECTS
from schemas.tables import LABELS_QUARANTINE
from streaming.delta.whole_tables import read_stored
from streaming.labels import label_follower, label_topic, topic_labels
from streaming.labels.book import LabelBook
from streaming.labels.label_follower import LabelFollower
from streaming.labels.label_parsing import parse_labels
from streaming.labels.label_pins import LabelPins
from streaming.labels.label_topic import LabelTopic, PartitionOfLabels, PolledLabels
from streaming.labels.recorded import Recorded
from streaming.service import worker
from streaming.service.health import Health
from streaming.store.place import Place
from tests.unit.streaming.labels.test_entity_labels import LakeOfTen

SECONDS = 20.0
KEEP = timedelta(days=30)


class Panic(BaseException):
    """What a compiled library raises where it meets what it thought impossible."""


PASSING: list[BaseException] = [
    RetryableError("away"),
    DiskError("full"),
    OSError("no disk"),
    ValueError("a surprise"),
    KafkaException(KafkaError(KafkaError._SSL, "handshake")),
    Panic("index out of range"),
]


class FaultySource:
    """A labels topic that raises what a test wants, when polled or when its labels are recorded."""

    def __init__(
        self, polling: Sequence[BaseException] = (), recording: Sequence[BaseException] = ()
    ) -> None:
        self.polling, self.recording = list(polling), list(recording)
        self.handed_out = 0
        self.recorded: list[str] = []
        self.two_recorded = threading.Event()

    def poll(self, limit: int = 10_000, wait: float = 0.0) -> PolledLabels:  # noqa: ARG002 -- the signature
        if self.polling:
            raise self.polling.pop(0)
        self.handed_out += 1
        empty = GIVEN.empty_table(), LABELS_QUARANTINE.empty_table()
        return PolledLabels((PartitionOfLabels(f"poll {self.handed_out}", 0, 0, *empty),))

    def record(self, polled: PolledLabels) -> Recorded:
        if self.recording:
            raise self.recording.pop(0)
        self.recorded += [each.source for each in polled.partitions]
        if len(self.recorded) > 1:
            self.two_recorded.set()
        return Recorded(0, 0, LABEL_REJECTS.empty_table())


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_SHORTEST_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(label_follower, "_ROUND_SECONDS", 0.0)


@hypothesis_settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    polling=st.lists(st.sampled_from(PASSING), max_size=4),
    recording=st.lists(st.sampled_from(PASSING), max_size=4),
)
def test_passing_faults_never_end_labels_and_what_was_polled_is_recorded(
    polling: list[BaseException], recording: list[BaseException]
) -> None:
    source, health = FaultySource(polling, recording), Health()
    with TemporaryDirectory() as folder:
        following = LabelFollower(
            LakeOfTen(Path(folder)).entity_labels, LabelPins.of(), lambda: 10, source, health
        )
        following.start()
        assert source.two_recorded.wait(SECONDS), health.active
        assert following.take(10)[0].through == 0, "a batch is not concerned"
        following.close()
    wanted = [f"poll {number}" for number in range(1, source.handed_out + 1)]
    assert source.recorded == wanted[: len(source.recorded)], "in order, none left out, none twice"
    assert len(wanted) - len(source.recorded) <= 1, "at most the current one is still to come"


def test_a_fault_is_a_condition_until_following_goes_on(tmp_path: Path) -> None:
    lake, told = LakeOfTen(tmp_path), list[str | None]()
    health = Health(changed=lambda _, state: told.append(state and state.cause))
    source = FaultySource([RetryableError("away"), RetryableError("away")], [OSError("no disk")])
    lake.say(("t1", True))
    following = LabelFollower(lake.entity_labels, LabelPins.of(), lambda: 10, source, health)
    following.start()
    assert source.two_recorded.wait(SECONDS)
    following.close()
    assert following.take(10)[1].num_rows == 1
    assert told == ["away", "no disk", None]


def test_a_lasting_fault_stops_the_next_batch_and_an_idle_agent(tmp_path: Path) -> None:
    source = FaultySource([DataLossError("labels were dropped")])
    following = LabelFollower(LakeOfTen(tmp_path).entity_labels, LabelPins.of(), lambda: 10, source)
    following.start()
    following.close()
    for call in (following.check, lambda: following.take(10)):
        with pytest.raises(DataLossError, match="labels were dropped"):
            call()


class ScriptedConsumer:
    """A consumer of one partition that gives records and faults by turns; a fault unnerves it for good."""

    records = tuple(
        json.dumps({"transaction_id": f"t{n}", "is_fraud": True, "decided_by": "ann"}).encode()
        for n in range(6)
    )

    stamp = int(datetime(2024, 5, 2, tzinfo=UTC).timestamp() * 1_000)

    def __init__(self, faults: list[int]) -> None:
        self.faults = faults
        self.place, self.broken = 0, False

    def assign(self, places: list[TopicPartition]) -> None:
        self.place = places[0].offset

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return 0, len(self.records)

    def consume(self, _: int, __: float) -> list[Message]:
        if self.broken or self.place == len(self.records):
            return []
        given = Message(
            topic="labels",
            partition=0,
            offset=self.place,
            value=self.records[self.place],
            timestamp=(1, self.stamp),
        )
        self.place += 1
        if not self.faults:
            return [given]
        self.broken = True
        return [given, Message(topic="labels", partition=0, error=KafkaError(self.faults.pop(0), "no"))]

    def close(self) -> None:
        self.broken = True


def test_a_fault_that_the_broker_reports_costs_one_call_and_no_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError._MAX_POLL_EXCEEDED, KafkaError._FATAL]
    monkeypatch.setattr(label_topic, "_consumer", lambda _: ScriptedConsumer(faults))
    monkeypatch.setattr(label_topic, "partitions_of", lambda *_: [TopicPartition("labels", 0, 0)])
    book = LabelBook(Place.local(tmp_path / "labels"), retention=KEEP)
    with LabelTopic(
        "nowhere", "labels", book, rejects=Place.local(tmp_path / "rejects"), retention=KEEP
    ) as topic:
        refused = 0
        for _ in range(len(faults) + len(ScriptedConsumer.records)):
            try:
                topic.record(topic.poll())
            except RetryableError:
                refused += 1
    assert (refused, book.position("labels/0")) == (3, 6)
    assert book.since(0)["transaction_id"].to_pylist() == [f"t{n}" for n in range(6)]


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("stamp", [ScriptedConsumer.stamp, 2**62])
def test_no_record_keeps_others_from_being_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamp: int
) -> None:
    said = [
        f'{{"transaction_id": {nested(300)}, "is_fraud": 1}}',
        f'{{"transaction_id": "t", "is_fraud": {nested(900)}}}',
        '{"transaction_id": "t", "is_fraud": 1, "decided_at": "0001-01-01T00:00:00+23:59"}',
        '{"transaction_id": "t", "is_fraud": 1, "decided_at": "9999-12-31T23:59:59-23:59"}',
        '{"transaction_id": "last", "is_fraud": 1, "decided_at": "2024-05-02T00:00:00Z"}',
    ]
    monkeypatch.setattr(ScriptedConsumer, "records", tuple(each.encode() for each in said))
    monkeypatch.setattr(ScriptedConsumer, "stamp", stamp)
    monkeypatch.setattr(label_topic, "_consumer", lambda _: ScriptedConsumer([]))
    monkeypatch.setattr(label_topic, "partitions_of", lambda *_: [TopicPartition("labels", 0, 0)])
    now = datetime(2026, 5, 1, tzinfo=UTC)
    book = LabelBook(Place.local(tmp_path / "labels"), retention=KEEP, clock=lambda: now)
    rejects = tmp_path / "rejects"
    with LabelTopic("nowhere", "labels", book, rejects=Place.local(rejects), retention=KEEP) as topic:
        for _ in said:
            topic.record(topic.poll())
    assert book.since(0)["transaction_id"].to_pylist() == ["last"]
    kept = read_stored(Place.local(rejects))
    assert kept is not None
    assert sorted(kept["offset"].to_pylist()) == [0, 1, 2, 3]
    assert all(isinstance(each, datetime) for each in kept["kafka_timestamp"].to_pylist())
    assert set(kept["recorded_at"].to_pylist()) == {now}  # whatever the sender's stamp says


def test_a_table_of_an_earlier_version_is_given_the_time_of_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {"topic": "labels", "partition": 0, "offset": -1, "query_id": "labels", "batch_id": -1}
    rejects = tmp_path / "rejects"
    write_deltalake(rejects, pa.Table.from_pylist([before], schema=pa.schema(list(LABELS_QUARANTINE)[:-1])))
    monkeypatch.setattr(ScriptedConsumer, "records", (b"no label",))
    monkeypatch.setattr(label_topic, "_consumer", lambda _: ScriptedConsumer([]))
    monkeypatch.setattr(label_topic, "partitions_of", lambda *_: [TopicPartition("labels", 0, 0)])
    book = LabelBook(Place.local(tmp_path / "labels"), retention=KEEP)
    for _ in range(2):  # and is opened again
        with LabelTopic("nowhere", "labels", book, rejects=Place.local(rejects), retention=KEEP) as topic:
            topic.record(topic.poll())
    kept = read_stored(Place.local(rejects))
    assert kept is not None
    times = {row["offset"]: row["recorded_at"] for row in kept.to_pylist()}
    assert times[-1] is None
    assert times[0] is not None


def test_records_that_were_dropped_unread_are_told_by_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = [KafkaError._AUTO_OFFSET_RESET]
    monkeypatch.setattr(label_topic, "_consumer", lambda _: ScriptedConsumer(faults))
    monkeypatch.setattr(label_topic, "partitions_of", lambda *_: [TopicPartition("labels", 0, 0)])
    book = LabelBook(Place.local(tmp_path / "labels"), retention=KEEP)
    with LabelTopic(
        "nowhere", "labels", book, rejects=Place.local(tmp_path / "rejects"), retention=KEEP
    ) as topic:
        topic.record(topic.poll())
        for _ in range(2):
            with pytest.raises(DataLossError, match="dropped before they were read"):
                topic.poll()


@pytest.mark.long
def test_a_disk_that_is_full_while_labels_are_recorded_costs_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label_topic, "_consumer", lambda _: ScriptedConsumer([]))
    monkeypatch.setattr(label_topic, "partitions_of", lambda *_: [TopicPartition("labels", 0, 0)])
    real, faults = LabelBook.record, [DiskError("No space left on device"), OSError(28, "No space left")]

    def record(book: LabelBook, labels: pa.Table, **more: Any) -> Recorded:
        if faults:
            raise faults.pop(0)
        return real(book, labels, **more)

    monkeypatch.setattr(LabelBook, "record", record)
    lake = LakeOfTen(tmp_path)
    with LabelTopic(
        "nowhere", "labels", lake.book, rejects=Place.local(tmp_path / "rejects"), retention=KEEP
    ) as topic:
        following = LabelFollower(lake.entity_labels, LabelPins.of(), lambda: 10, topic)
        following.start()
        latest = time.monotonic() + SECONDS
        while lake.book.position("labels/0") < len(ScriptedConsumer.records):
            assert time.monotonic() < latest
            following.take(10)  # the next batch, which must not fail
        following.close()
    assert lake.book.since(0)["transaction_id"].to_pylist() == [f"t{n}" for n in range(6)]


class NamelessHeader(Message):
    """A record with a header whose name is not UTF-8, as the client gives it."""

    def headers(self) -> Any:
        raise SystemError("returned a result with an exception set")


class AllAtOnce(ScriptedConsumer):
    """Gives all records with the first call; those named have a header that cannot be read."""

    nameless: frozenset[int] = frozenset()

    def consume(self, _: int, __: float) -> list[Message]:
        given = [
            (NamelessHeader if n in self.nameless else Message)(
                topic="labels", partition=0, offset=n, value=self.records[n], timestamp=(1, self.stamp)
            )
            for n in range(self.place, len(self.records))
        ]
        self.place = len(self.records)
        return given


@pytest.fixture
def topic_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LabelTopic]:
    monkeypatch.setattr(label_topic, "_consumer", lambda _: AllAtOnce([]))
    monkeypatch.setattr(label_topic, "partitions_of", lambda *_: [TopicPartition("labels", 0, 0)])
    book = LabelBook(Place.local(tmp_path / "labels"), retention=KEEP)
    rejects = Place.local(tmp_path / "rejects")
    with LabelTopic("nowhere", "labels", book, rejects=rejects, retention=KEEP) as topic:
        yield topic


def test_a_header_without_a_readable_name_keeps_no_label_from_being_read(
    topic_of_all: LabelTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AllAtOnce, "nameless", frozenset({1, 2}))
    monkeypatch.setattr(AllAtOnce, "records", (*AllAtOnce.records[:2], b"no label"))
    polled = topic_of_all.poll()
    assert polled.labels["transaction_id"].to_pylist() == ["t0", "t1"]
    assert polled.rejected.select(["offset", "headers"]).to_pylist() == [{"offset": 2, "headers": None}]


def test_a_record_that_nobody_has_foreseen_is_a_reject_alone(
    topic_of_all: LabelTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = parse_labels

    def parse(said: pl.DataFrame, by: str) -> tuple[pa.Table, pa.Table]:
        if "t3" in said["transaction_id"]:
            raise OverflowError("date value out of range")
        return real(said, by)

    monkeypatch.setattr(topic_labels, "parse_labels", parse)
    polled = topic_of_all.poll()
    assert polled.labels["transaction_id"].to_pylist() == ["t0", "t1", "t2", "t4", "t5"]
    assert polled.rejected.select(["offset", "detail"]).to_pylist() == [
        {"offset": 3, "detail": "OverflowError"}
    ]
    assert topic_of_all.record(polled).stored == 5


def test_records_that_could_not_be_read_are_given_by_the_next_poll(
    topic_of_all: LabelTopic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(label_topic, "read_labels", failing)
        with pytest.raises(MemoryError):
            topic_of_all.poll()
    assert topic_of_all.record(topic_of_all.poll()).stored == 6
    assert topic_of_all.poll().partitions == ()


def failing(*_: object) -> tuple[pa.Table, pa.Table]:
    raise MemoryError


@pytest.mark.parametrize(
    "moment",
    ["0000-01-01T00:00:00Z", "+10000-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "-0001-01-01T00:00:00Z"],
)
def test_a_wrong_field_is_told_beside_a_time_that_python_has_not(moment: str) -> None:
    wrong = {"transaction_id": ["t"], "is_fraud": ["maybe"], "decided_at": [moment]}
    said = pl.DataFrame({"source_position": [4], **wrong})
    labels, rejects = parse_labels(said, "ann")
    assert labels.num_rows == 0
    assert rejects.to_pylist()[0]["reason"].startswith("is_fraud is 'maybe'")
