"""Alerts leave once, whatever topic a spec names next and however many wait."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from schemas import instants
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec, TableNames
from streaming.batch import outbox
from streaming.batch.alerts_lane import AlertsLane, LaneChange, choose_lane, lanes_of, unseen
from streaming.batch.outbox import Outbox
from streaming.batch.steps import BatchStep
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord, PublisherSettings
from streaming.run import alerts_end, opening
from streaming.run.surroundings import Hooks
from streaming.store.place import Place
from streaming.testing.live_lake import TOPIC, QuietLane, agent, events, records
from streaming.testing.small_lake import RETENTION
from streaming.testing.streams import stored
from streaming.versions.clients import Clients

Sent = dict[str, list[int]]


class Topics:
    """Topics of alerts that outlive the drivers which send to them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sent: Sent = {}
        self.gone: set[str] = set()
        sent = self.sent

        class Lane(QuietLane):
            def __init__(self, settings: PublisherSettings, **_: object) -> None:
                super().__init__()
                self._first, self._sent = settings.first, sent.setdefault(settings.topic, [])

            def open(self, stored_next: int) -> None:  # noqa: ARG002 -- as of any lane
                self.marker = max([self._first, *(number + 1 for number in self._sent)])

            def publish(self, records: Iterable[OutboxRecord]) -> int:
                taken = [each.outbox_seq for each in records if each.outbox_seq >= self.marker]
                self._sent += taken
                self.marker += len(taken)
                return len(taken)

        patch.setattr(alerts_end, "Publisher", Lane)
        patch.setattr(alerts_end, "topic_exists", lambda _, topic: topic not in self.gone)


def run(
    settings: Settings,
    spec: AgentSpec,
    first: int,
    number: int,
    *,
    move: bool = False,
    rows: int = 200,
    hooks: Hooks = Hooks(),  # noqa: B008 -- frozen and without state
) -> None:
    """Run an agent over one batch of payments that begins at an offset."""
    told = records(events(first + rows)[first:], first)
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(
            PlacedAgent(settings, spec), "127.0.0.1:1", clients, hooks, move_alerts=move
        ) as on,
    ):
        on.pipeline.process(lambda: told, "live", number, lambda: {TOPIC: {"0": first + rows}})


def on_topic(name: str) -> AgentSpec:
    return agent(alerts={"topic": name})


@pytest.mark.long
def test_a_topic_of_another_name_sends_no_alert_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics(monkeypatch)
    run(settings, on_topic("before"), 0, 0)
    count = len(topics.sent["before"])
    assert count > 3
    with pytest.raises(ConfigurationError, match="--move-alerts") as refused:
        run(settings, on_topic("after"), 200, 1)
    assert "before" in str(refused.value)
    run(settings, on_topic("after"), 200, 1, move=True)
    run(settings, on_topic("after"), 400, 2)
    total = stored(settings.lake("tester"), "alerts", "outbox_seq").num_rows
    assert topics.sent == {"before": list(range(count)), "after": list(range(count, total))}
    assert total > count + 3
    lanes = lanes_of(LakeReader(settings.lake("tester"), TableNames()), "after")
    assert lanes == [AlertsLane("before"), AlertsLane("after", count)]
    with pytest.raises(ConfigurationError, match="--move-alerts"):
        run(settings, on_topic("before"), 600, 3)
    run(settings, on_topic("before"), 600, 3, move=True)
    together = sorted(number for sent in topics.sent.values() for number in sent)
    assert together == list(range(stored(settings.lake("tester"), "alerts", "outbox_seq").num_rows))


def test_a_move_is_on_record_before_any_batch_follows(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics(monkeypatch)
    run(settings, on_topic("before"), 0, 0)
    count = len(topics.sent["before"])
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(
            PlacedAgent(settings, on_topic("after")), "127.0.0.1:1", clients, move_alerts=True
        ),
    ):
        pass
    run(settings, on_topic("after"), 200, 1)
    assert topics.sent["after"][0] == count
    stream = stored(settings.lake("tester"), "batches", "closed_at").to_pylist()
    assert [each["query_id"].partition("-")[0] for each in stream] == ["live", "move", "live"]


def test_a_move_holds_where_the_clock_is_set_back(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics(monkeypatch)
    run(settings, on_topic("before"), 0, 0)
    earlier = datetime.now(UTC) - timedelta(hours=1)
    monkeypatch.setattr(instants, "datetime", SimpleNamespace(now=lambda _: earlier))
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(
            PlacedAgent(settings, on_topic("after")), "127.0.0.1:1", clients, move_alerts=True
        ),
    ):
        pass
    run(settings, on_topic("after"), 200, 1)
    total = stored(settings.lake("tester"), "alerts", "outbox_seq").num_rows
    assert sorted(topics.sent["before"] + topics.sent["after"]) == list(range(total))


def test_a_topic_that_is_gone_can_be_left_behind(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    topics = Topics(monkeypatch)
    run(settings, on_topic("before"), 0, 0)
    count = len(topics.sent["before"])
    topics.gone.add("before")
    run(settings, on_topic("after"), 200, 1, move=True)
    assert topics.sent["after"][0] == count


def test_without_alerts_a_topic_may_be_named_anew() -> None:
    def never(_: AlertsLane) -> int:
        raise AssertionError("nobody is asked")

    before = AlertsLane("before")
    assert choose_lane("after", before, 0, move=False, left=never) == LaneChange(AlertsLane("after"))
    assert choose_lane("after", None, 3, move=False, left=never) == LaneChange(AlertsLane("after"))
    kept = AlertsLane("after", 7)
    assert choose_lane("after", kept, 9, move=True, left=never) == LaneChange(kept)


def test_only_topics_of_before_that_are_gone_are_not_looked_at() -> None:
    lanes = [AlertsLane("a"), AlertsLane("b", 4), AlertsLane("c", 9)]
    assert unseen(lanes, {"a", "b", "c"}) == []
    assert unseen(lanes, {"c"}) == [range(4), range(4, 9)]
    assert unseen(lanes, {"a"}) == [range(4, 9)]


def waiting(path: Path, count: int) -> LakeTable:
    """Return a table of alerts that have not left, with no more of them than their numbers."""
    schema = pa.schema([("outbox_seq", pa.int64()), ("transaction_id", pa.string())])
    table = LakeTable(Place.local(path), schema, "tester/epoch", RETENTION)
    table.claim(1)
    for batch, first in enumerate(range(0, count, 500)):
        numbers = range(first, min(first + 500, count))
        rows = [{"outbox_seq": number, "transaction_id": f"t{number}"} for number in numbers]
        table.append(pa.Table.from_pylist(rows, schema=schema), Stamp("tester/q", batch))
    return table


class Weighing(QuietLane):
    """Notes how much it is handed at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.kept = 0

    def open(self, stored_next: int) -> None:
        """Nothing has left before."""

    def publish(self, records: Iterable[OutboxRecord]) -> int:
        self.sizes.append(super().publish(records))
        return self.sizes[-1]

    def keep_marker(self) -> None:
        self.kept += 1


def test_alerts_that_wait_are_read_and_sent_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_SLICE", 300)
    monkeypatch.setattr(outbox, "alert_documents", lambda rows: [b"{}"] * rows.num_rows)
    lane = Weighing()
    lanes = Outbox("tester", waiting(tmp_path / "alerts", 1_400), lane, AlertsLane("alerts"))  # type: ignore[arg-type]  # a stand-in
    lanes.open()
    lanes.publish()
    assert lane.sizes == [300, 300, 300, 300, 200]


def test_the_marker_is_kept_once_a_day_on_an_idle_topic(tmp_path: Path) -> None:
    lane, now = Weighing(), [0.0]
    lanes = Outbox("tester", waiting(tmp_path / "alerts", 0), lane, AlertsLane("alerts"), lambda: now[0])  # type: ignore[arg-type]  # a stand-in
    lanes.open()
    for _ in range(10 * 24):
        lanes.check()
        now[0] += 3_600.0
    assert lane.kept == 10


class _EndedError(Exception):
    """The process is gone."""


def ended_after(steps: int) -> Hooks:
    """End the process after so many steps of batches."""
    left = [steps]

    def reached(_: BatchStep) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise _EndedError

    return Hooks(reached=reached)


STORED_NOT_SENT, RECOVERED_NOT_CLOSED, MOVE_CLOSED = 7, 2, 12


@pytest.mark.long
@pytest.mark.parametrize("left_behind", [False, True], ids=["there", "gone"])
@pytest.mark.parametrize("steps", [RECOVERED_NOT_CLOSED, MOVE_CLOSED])
def test_a_move_that_a_crash_cuts_off_sends_every_alert_once_wherever_they_leave_next(
    steps: int, left_behind: bool, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics = Topics(monkeypatch)
    run(settings, on_topic("before"), 0, 0)
    with pytest.raises(_EndedError):
        run(settings, on_topic("before"), 200, 1, hooks=ended_after(STORED_NOT_SENT))
    pending = stored(settings.lake("tester"), "alerts", "outbox_seq").num_rows
    assert pending > len(topics.sent["before"]) + 3
    topics.gone |= {"before"} if left_behind else set()
    with pytest.raises(_EndedError):
        run(settings, on_topic("after"), 400, 2, move=True, hooks=ended_after(steps))
    run(settings, on_topic("after" if left_behind else "before"), 400, 2, move=True)
    total = stored(settings.lake("tester"), "alerts", "outbox_seq").num_rows
    assert total > pending
    assert sorted(number for sent in topics.sent.values() for number in sent) == list(range(total))
