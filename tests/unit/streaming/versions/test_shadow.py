"""Versions in shadow decide every closed batch once, beside the agent, and publish nothing."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from schemas.alert import ALERTS
from schemas.label import GIVEN
from schemas.spec import AgentSpec
from streaming.batch.engine import Engine
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import AgentLake
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.stored import open_version
from streaming.delta.whole_tables import read_stored
from streaming.history.decided import DecidedHistory
from streaming.history.replay import Replayer
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels
from streaming.run.status import read_status
from streaming.store.local_folders import LocalFolders
from streaming.store.place import Place
from streaming.testing.small_lake import CONTRACT, RETENTION, build_lake, next_batch, spec_of
from streaming.versions.shadow import AgentTables, Shadow
from tests.registry_rows import Looking, activate, entry, put

NOW = datetime(2026, 5, 2, tzinfo=UTC)
FIRST = spec_of()
LAXER = spec_of(version="1.1.0", threshold=0.9, detectors={"rate": {"enabled": False}})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(found, FIRST))
    activate(found, FIRST)
    return found


def shadow_of(settings: Settings) -> Shadow:
    lake = settings.lake("tester")
    book = LabelBook(lake / "labels", retention=RETENTION)
    entity_labels = EntityLabels(book, lake / "transactions", lake / "alerts", CONTRACT.entity_names)
    transactions, batches = (open_version(lake / name) for name in ("transactions", "batches"))
    assert transactions is not None
    assert batches is not None

    def engine_for(spec: AgentSpec) -> Engine:
        engine = Engine.on_rules(settings, AgentDefinition.pinned(spec, CONTRACT))
        return engine.saved_in(LocalFolders.of(settings.home / "beside"))

    registry = Looking(PlacedAgent(settings, FIRST))
    tables = AgentTables(transactions, batches, entity_labels)
    return Shadow(lake / "shadow", tables, registry, engine_for, RETENTION, lambda: NOW)


def shadowed(settings: Settings) -> pl.DataFrame:
    rows = read_stored(settings.lake("tester") / "shadow")
    return pl.DataFrame() if rows is None else pl.DataFrame(rows).sort("version", "first_sequence")


def begun(settings: Settings) -> Shadow:
    """A shadow that has seen version 1.1.0 come, after the first batch."""
    put(settings, entry(LAXER, "shadow", "promoted"))
    shadow = shadow_of(settings)
    shadow.round()
    return shadow


def decided_again(settings: Settings, spec: AgentSpec) -> pa.Table:
    """The alerts of all of history under another spec."""
    history = DecidedHistory(PlacedAgent(settings, FIRST))
    replayer = Replayer(settings, AgentDefinition.pinned(FIRST, CONTRACT), history)
    transactions = history.tables(history.whole).transactions
    return pa.concat_tables([alerts for _, alerts in replayer.decide(spec, transactions, history.whole)])


def test_what_was_closed_before_is_left_to_replay(settings: Settings) -> None:
    begun(settings)
    assert shadowed(settings).height == 0


def test_batches_are_decided_once_each_as_a_replay_under_the_version_decides_them(settings: Settings) -> None:
    shadow = begun(settings)
    for _ in range(2):
        next_batch(PlacedAgent(settings, FIRST))
    for _ in range(2):
        shadow.round()
    shadow_of(settings).round()  # another driver, after a crash
    found = shadowed(settings)
    assert found["next_sequence"].to_list() == [1_200, 1_800]
    again = decided_again(settings, LAXER)["sequence"].to_pylist()
    wanted = [sequence for sequence in again if sequence >= 600]
    alerted = [each["sequence"] for row in found["alerted"] for each in row]
    assert alerted == wanted
    assert len(alerted) == found["alerts"].sum() > 0


def test_nothing_is_published_and_nothing_of_the_agent_s_changes(settings: Settings) -> None:
    shadow = begun(settings)
    next_batch(PlacedAgent(settings, FIRST))
    lake = settings.lake("tester")
    before = {
        path.name: read_stored(Place.local(path)) for path in lake.path.iterdir() if path.name != "shadow"
    }
    shadow.round()
    after = {
        path.name: read_stored(Place.local(path)) for path in lake.path.iterdir() if path.name != "shadow"
    }
    assert {name: table and table.num_rows for name, table in before.items()} == {
        name: table and table.num_rows for name, table in after.items()
    }


def test_a_version_that_left_is_not_decided_under_any_more(settings: Settings) -> None:
    shadow = begun(settings)
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    put(settings, entry(LAXER, "sandbox", "rolled_back"))
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    assert shadowed(settings)["next_sequence"].to_list() == [1_200]


def test_an_engine_is_given_away_as_far_as_it_has_come(settings: Settings) -> None:
    shadow = begun(settings)
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    engine = shadow.release(LAXER.digest)
    assert engine is not None
    assert engine.memory.next_sequence == 1_200
    assert shadow.release(LAXER.digest) is None
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    assert shadowed(settings)["next_sequence"].to_list() == [1_200]


def test_the_engine_of_a_promoted_version_waits_for_who_asks_and_decides_nothing_more(
    settings: Settings,
) -> None:
    shadow = begun(settings)
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    put(settings, entry(LAXER, "canary", "promoted"))
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    assert shadowed(settings)["next_sequence"].to_list() == [1_200]
    engine = shadow.release(LAXER.digest)
    assert engine is not None
    assert engine.memory.next_sequence == 1_200


def test_a_lost_table_is_made_anew(settings: Settings) -> None:
    begun(settings)
    next_batch(PlacedAgent(settings, FIRST))
    shutil.rmtree((settings.lake("tester") / "shadow").path)
    shadow = shadow_of(settings)
    shadow.round()
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    assert shadowed(settings)["next_sequence"].to_list() == [1_200, 1_800]


def test_status_shows_both_sides_over_the_same_batches(settings: Settings) -> None:
    shadow = begun(settings)
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    lake = settings.lake("tester")
    (rows,) = shadowed(settings)["alerted"].to_list()
    labels = [
        {"transaction_id": each["transaction_id"], "is_fraud": place < 2, "decided_by": "bank",
         "source_position": place} for place, each in enumerate(rows[:4])
    ]  # fmt: skip
    LabelBook(lake / "labels", retention=RETENTION).record(
        pa.Table.from_pylist(labels, schema=GIVEN), source="more"
    )
    (found,) = read_status(AgentLake(lake, FIRST), None).beside
    assert (found.batches, found.transactions) == (1, 600)
    assert (found.published.version, found.published.alerts) == ("1.0.0", 0), "only these batches count"
    assert (found.beside.version, found.beside.alerts) == ("1.1.0", len(rows))
    assert found.beside.alerts_per_day == pytest.approx(len(rows) * 86_400 / 86_000, abs=0.01)
    assert (found.beside.judged, found.beside.precision) == (4, 0.5)
    assert found.agreement == 0.0


def test_a_version_that_decides_alike_agrees_wholly(settings: Settings) -> None:
    put(settings, entry(spec_of(version="1.1.0", rules=[], threshold=0.99), "shadow"))
    shadow = shadow_of(settings)
    shadow.round()
    next_batch(PlacedAgent(settings, FIRST))
    shadow.round()
    again = decided_again(settings, spec_of(rules=[], threshold=0.99))
    lake = settings.lake("tester")
    alerts = LakeTable(lake / "alerts", ALERTS, "tester/epoch", RETENTION)
    alerts.claim(1 + alerts.epoch)
    alerts.append(again.filter(pc.greater_equal(again["sequence"], 600)), Stamp("tester/q", 1))
    (found,) = read_status(AgentLake(lake, FIRST), None).beside
    assert (found.agreement, found.published.alerts) == (1.0, found.beside.alerts)
    assert found.beside.alerts > 0
