"""The clock that judges stamps: moved by nobody alone, and not wrong because this machine's is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.tables import UTC_MICROS
from streaming.batch import pipeline
from streaming.delta.lake_reader import AgentLake
from streaming.events.broker_clock import LAST_RECORDS, BrokerClock, Reading
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.intake import Taken
from streaming.quarantine.waiting import waiting
from streaming.run import opening
from streaming.run.opening import open_agent
from streaming.run.status import read_status
from streaming.service.health import Condition, Health
from streaming.testing.live_lake import TOPIC, agent, events, records, without_broker
from streaming.testing.streams import stored
from streaming.versions.clients import Clients

NOW = datetime(2026, 5, 2, tzinfo=UTC)
SECOND = timedelta(seconds=1)
PROPERTY = properties(deadline=None, derandomize=True)


def stamps(seconds: Sequence[float], partition: int = 0, kind: int = 0, first: int = 0) -> pa.Table:
    """Return records stamped so many seconds after NOW."""
    count = len(seconds)
    return pa.table(
        {
            "partition": pa.array([partition] * count, pa.int32()),
            "offset": range(first, first + count),
            "timestamp": pa.array([NOW + each * SECOND for each in seconds], UTC_MICROS),
            "timestampType": pa.array([kind] * count, pa.int32()),
        }
    )


@PROPERTY
@given(
    st.lists(st.lists(st.booleans(), max_size=40), min_size=1, max_size=12),
    st.integers(0, 10**8),
)
def test_a_minority_of_forged_stamps_never_moves_the_clock(batches: list[list[bool]], forged: int) -> None:
    clock, seen, spoiled = BrokerClock(), 0, 0
    for batch in batches:
        # One in three of all so far, at most, is forged.
        told = []
        for wanted in batch:
            seen += 1
            false = wanted and 3 * (spoiled + 1) <= seen
            spoiled += false
            told.append(float(forged) if false else -1.0)
        if seen > LAST_RECORDS:
            break
        reading = clock.read(stamps(told), NOW)
        assert (reading.at, reading.ahead) == (NOW, timedelta(0))


@PROPERTY
@given(st.integers(0, 10**7), st.lists(st.integers(1, 90), min_size=1, max_size=20))
def test_records_in_step_with_each_other_are_not_refused_for_this_machines_clock(
    behind: int, sizes: list[int]
) -> None:
    clock, seen = BrokerClock(), 0
    for size in sizes:
        reading = clock.read(stamps([behind] * size), NOW)
        seen += size
        expected = behind if seen >= 32 else 0
        assert reading.at == NOW + expected * SECOND
        assert reading.clock == ("records" if expected else "machine")


@PROPERTY
@given(st.integers(-(10**7), 10**7), st.integers(1, 5))
def test_the_brokers_own_stamps_judge_from_the_first_record_on(ahead: int, count: int) -> None:
    reading = BrokerClock().read(stamps([ahead] * count, kind=1), NOW)
    assert reading.at == NOW + max(ahead, 0) * SECOND


def test_a_single_record_does_not_judge_itself() -> None:
    assert BrokerClock().read(stamps([3600.0]), NOW) == Reading("machine", NOW, timedelta(0))


def test_a_busy_partition_does_not_speak_for_the_others() -> None:
    busy = stamps([7200.0] * 5_000, partition=0)
    others = [stamps([-1.0] * 200, partition=partition) for partition in (1, 2)]
    assert BrokerClock().read(pa.concat_tables([busy, *others]), NOW).at == NOW


def test_a_busy_topic_does_not_speak_for_the_others() -> None:
    topics = {"busy": stamps([7200.0] * 5_000), "calm": stamps([-1.0] * 200), "slow": stamps([-1.0] * 200)}
    told = [rows.append_column("topic", pa.array([name] * len(rows))) for name, rows in topics.items()]
    assert BrokerClock().read(pa.concat_tables(told), NOW).at == NOW


def test_the_newest_records_tell_the_time_when_much_was_left_unread() -> None:
    clock = BrokerClock()
    reading = clock.read(stamps([place / 10 - 600 for place in range(9_600)]), NOW)
    assert reading.ahead > 5 * timedelta(minutes=1)


def test_what_was_known_before_a_restart_is_known_after_it() -> None:
    assert BrokerClock(ahead=360 * SECOND).read(stamps([360.0]), NOW).at == NOW + 360 * SECOND


def run(
    settings: Settings,
    stream: pa.Table,
    now: datetime,
    health: Health,
    monkeypatch: pytest.MonkeyPatch,
    rows: int = 100,
) -> None:
    """Run an agent on a machine whose clock stands at `now`."""
    without_broker(monkeypatch)
    monkeypatch.setitem(pipeline.Pipeline.__init__.__kwdefaults__, "clock", lambda: now)
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, agent()), "127.0.0.1:1", clients, health=health) as on,
    ):
        for number, first in enumerate(range(0, stream.num_rows, rows)):
            part, end = stream.slice(first, rows), {TOPIC: {"0": first + rows}}
            on.pipeline.process(lambda part=part: Taken(part), "live", number, lambda end=end: end)


def at_once(count: int, moment: datetime, kind: int = 0) -> pa.Table:
    """Payments of a few hours that all arrive at one moment."""
    told = records(events(count))
    place = told.schema.get_field_index("timestamp")
    told = told.set_column(place, "timestamp", pa.array([moment] * count, UTC_MICROS))
    return told.append_column("timestampType", pa.array([kind] * count, pa.int32()))


@pytest.mark.parametrize("kind", [0, 1])
def test_an_agent_whose_clock_is_behind_stores_live_records_and_says_so(
    kind: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    health, lake = Health(), settings.lake("tester")
    run(settings, at_once(300, NOW, kind), NOW - timedelta(minutes=6), health, monkeypatch)
    assert stored(lake, "quarantine", "offset").num_rows == 0
    assert [each.condition for each in health.active] == [Condition.CLOCK_SKEW]
    assert "6 minutes ahead" in health.active[0].cause
    monitored = stored(lake, "monitoring", "batch_id").to_pylist()
    assert {row["status"] for row in monitored} == {"degraded"}
    assert "6 minutes ahead" in monitored[-1]["problems"]
    status = read_status(AgentLake(lake, agent()), None)
    assert (status.monitoring, status.problems) == ("degraded", monitored[-1]["problems"])


def test_a_batch_of_rejects_degrades_the_agent_until_one_is_in_order(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = at_once(300, NOW)
    values = [b"{" if 100 <= place < 121 else each for place, each in enumerate(told["value"].to_pylist())]
    told = told.set_column(told.schema.get_field_index("value"), "value", pa.array(values, pa.binary()))
    changes: list[tuple[Condition, bool]] = []
    health = Health(changed=lambda condition, state: changes.append((condition, state is not None)))
    run(settings, told, NOW, health, monkeypatch)
    monitored = stored(settings.lake("tester"), "monitoring", "batch_id").to_pylist()
    assert [row["status"] == "degraded" for row in monitored] == [False, True, False]
    assert monitored[1]["problems"] == "21 of the newest 100 records were rejected (malformed_json)"
    assert changes == [(Condition.RECORDS_REJECTED, True), (Condition.RECORDS_REJECTED, False)]


@pytest.mark.long
def test_small_batches_are_taken_together(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    told = at_once(120, NOW)
    values = [b"{" if place % 3 == 0 else each for place, each in enumerate(told["value"].to_pylist())]
    told = told.set_column(told.schema.get_field_index("value"), "value", pa.array(values, pa.binary()))
    health = Health()
    run(settings, told, NOW, health, monkeypatch, rows=6)
    monitored = stored(settings.lake("tester"), "monitoring", "batch_id").to_pylist()
    assert [row["status"] == "degraded" for row in monitored[:3]] == [False, False, True]
    assert [each.condition for each in health.active] == [Condition.RECORDS_REJECTED]


@pytest.mark.parametrize("stamp", [2**63 - 1, 9_007_199_254_740_992_000, -(2**63)])
@pytest.mark.parametrize("count", [1, 40])
def test_no_stamp_that_no_calendar_knows_stops_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamp: int, count: int
) -> None:
    """One record alone is all that a batch of an idle topic has to go by."""
    without_broker(monkeypatch)
    settings, spec = Settings.load(tmp_path, {}), agent()
    part = records(events(count))
    stamps = pa.array([stamp] * count, pa.int64()).cast(UTC_MICROS)
    part = part.set_column(part.schema.get_field_index("timestamp"), "timestamp", stamps)
    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients) as started,
    ):
        closed = started.pipeline.process(lambda: part, "live", 0, lambda: {TOPIC: {"0": count}})
    assert closed is not None
    assert closed.row["read"] == count
    lake = settings.lake(spec.name)
    waits = waiting(lake / spec.tables.quarantine, lake / spec.tables.requeues, [])
    assert len(waits.to_dicts()) == closed.row["quarantined"]
