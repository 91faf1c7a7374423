"""How an agent is: lag by partition from what a broker said, which nobody waits for, and latency."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from schemas.lake_tables import Table
from streaming.delta import lake_reader
from streaming.delta.lake_reader import LakeReader, open_declared
from streaming.delta.stored import StoredTable
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.input_now import InputNow
from streaming.serve.broker_watch import BrokerWatch, SeenInput
from streaming.serve.served_system import ServedSystem
from streaming.serve.system_figures import lake_figures
from streaming.service.health import Health
from streaming.store.place import Place
from streaming.testing.small_lake import BUSY_ALERTS, DAY, build_lake, next_batch, spec_of

SPEC = spec_of()


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> PlacedAgent:
    found = PlacedAgent(Settings.load(tmp_path_factory.mktemp("lake") / "home", {}), SPEC)
    build_lake(found)
    return found


def test_lag_is_what_the_topic_has_beyond_the_closed_batches(agent: PlacedAgent) -> None:
    seen = SeenInput(InputNow({"events": {"0": (100, 700), "10": (0, 5), "2": (0, 0)}}), 1.5)
    found = lake_figures(agent, LakeReader.of(agent), seen, DAY)
    assert found.broker_seconds == 1.5
    assert [(each.partition, each.reached, each.lag) for each in found.partitions] == [
        (0, None, 600),
        (2, None, 0),
        (10, None, 5),
    ]


def test_latency_counts_from_the_event_and_never_below_zero(agent: PlacedAgent) -> None:
    found = lake_figures(agent, LakeReader.of(agent), None, DAY + timedelta(days=9))
    assert (found.latency.alerts, found.latency.p50, found.latency.p99) == (BUSY_ALERTS, 0.0, 0.0)
    assert found.newest_record_at is not None
    assert found.newest_record_at - DAY == timedelta(seconds=86_000)
    assert found.labels.labels == 2
    assert json.loads(found.model_dump_json())["broker_seconds"] is None


def test_latency_is_from_the_time_on_kafka_until_the_batch_was_closed(tmp_path: Path) -> None:
    placed, late = PlacedAgent(Settings.load(tmp_path / "home", {}), SPEC), timedelta(days=1, seconds=7)
    build_lake(placed, closed_at=DAY + late)
    reader = LakeReader(placed.lake, SPEC.tables)
    times = dict(reader.frame("transactions", ["transaction_id", "kafka_timestamp"]).iter_rows())
    alerted = reader.frame("alerts", ["transaction_id"])["transaction_id"]
    seconds = [(late - (times[each] - DAY)).total_seconds() for each in alerted]
    assert min(seconds) > 400
    found = lake_figures(placed, LakeReader.of(placed), None, DAY + timedelta(days=9)).latency
    assert found.alerts == BUSY_ALERTS == len(seconds)
    assert [found.p50, found.p99] == pytest.approx(np.percentile(seconds, (50, 99)).tolist())


def test_who_looks_again_opens_no_table_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent, opened = PlacedAgent(Settings.load(tmp_path / "home", {}), SPEC), list[str]()
    build_lake(agent)

    def counted(place: Place, table: Table) -> StoredTable | None:
        opened.append(table)
        return open_declared(place, table)

    monkeypatch.setattr(lake_reader, "open_declared", counted)
    system = ServedSystem(agent, Health())
    system._read()
    first, before = system._lake, set(opened)
    opened.clear()
    next_batch(agent)
    system._read()
    there = {each.name for each in agent.lake.path.iterdir()}
    assert not {each for each in opened if str(getattr(agent.spec.tables, each)) in there}
    assert before >= {"transactions", "alerts", "batches"}
    assert first is not None and system._lake is not None
    assert len(system._lake.batches) == len(first.batches) + 1, "and sees what has come since"


def test_a_broker_that_is_away_holds_nobody_up_and_is_not_asked_twice_at_once() -> None:
    answered, asked = threading.Event(), list[int]()

    def ask() -> InputNow | None:
        asked.append(1)
        answered.wait(30)
        return InputNow({"events": {"0": (0, 7)}})

    now = [0.0]
    watch = BrokerWatch(ask, lambda: now[0])
    assert watch.newest() is None
    assert watch.newest() is None
    assert len(asked) == 1
    answered.set()
    seen = watch.newest()
    assert seen is not None
    assert seen.found == InputNow({"events": {"0": (0, 7)}})
    assert (watch.newest(), len(asked)) == (seen, 1)
    now[0] = 6.0
    again = watch.newest()
    assert (again, len(asked)) == (SeenInput(seen.found, 0.0), 2)
