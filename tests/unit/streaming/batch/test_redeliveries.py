"""Redeliveries through the pipeline: stamps ahead and restarts let none through; refused horizons."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
import yaml

from schemas.contract import CONTRACTS
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.batch.backfill_mark import newest_decision
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.testing.live_lake import DAY, TOPIC, agent, events, records, without_broker
from streaming.versions.clients import Clients

ROWS = 400


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    without_broker(monkeypatch)
    return Settings.load(tmp_path / "home", {})


def spec_with(folder: Path, horizon: str, max_ahead: str) -> AgentSpec:
    content = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8"))
    content["duplicates"] = {"horizon": horizon}
    content["event_time"] = {**content["event_time"], "max_ahead": max_ahead}
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    source: dict[str, Any] = {"contract": str(path), "topic": TOPIC}
    return agent(data_sources={"transactions": source}, rules=[])


def stream() -> pa.Table:
    """A payment a minute, each sent again twenty minutes later; one in fifty is stamped an hour ahead."""
    first = records(events(ROWS))
    again = first.slice(0, ROWS - 20)
    stamps = first["timestamp"].to_pylist()
    stamps = [each + timedelta(hours=number % 50 == 30) for number, each in enumerate(stamps)]
    sent = [*stamps, *(each + timedelta(minutes=20, seconds=1) for each in stamps[: ROWS - 20])]
    arrival = [number * 60 for number in range(ROWS)] + [
        (number + 20) * 60 + 1 for number in range(ROWS - 20)
    ]
    both = pa.concat_tables([first, again])
    both = both.set_column(
        both.schema.get_field_index("timestamp"), "timestamp", pa.array(sent, both["timestamp"].type)
    )
    both = both.take(pa.array(sorted(range(len(arrival)), key=arrival.__getitem__)))
    return both.set_column(both.schema.get_field_index("offset"), "offset", pa.array(range(both.num_rows)))


def process(
    settings: Settings, spec: AgentSpec, rows: pa.Table, sizes: list[int], restart: bool
) -> list[bool]:
    """Run batches of these sizes; return which payments were stored, by offset."""
    parts, place = [], 0
    while place < rows.num_rows:
        size = sizes[len(parts) % len(sizes)]
        parts.append((len(parts), rows.slice(place, size)))
        place += size
    rounds = [[part] for part in parts] if restart else [parts]
    for some in rounds:
        with (
            Clients(settings, "none") as clients,
            open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients) as on,
        ):
            for number, part in some:
                end = {TOPIC: {"0": part["offset"][-1].as_py() + 1}}
                on.pipeline.process(lambda part=part: part, "live", number, lambda end=end: end)
    stored = read_stored(settings.lake(spec.name) / "transactions", ["offset"])
    assert stored is not None
    kept = set(stored["offset"].to_pylist())
    return [offset in kept for offset in range(rows.num_rows)]


@pytest.mark.long
@pytest.mark.parametrize(("sizes", "restart"), [([60], False), ([150, 37], True), ([781], False)])
def test_stamps_ahead_and_restarts_let_no_redelivery_through(
    settings: Settings, tmp_path: Path, sizes: list[int], restart: bool
) -> None:
    """Two horizons are less than the hour by which a stamp may be ahead, as only older lakes have it."""
    spec, rows = spec_with(tmp_path, "25m", "2h"), stream()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streaming.definition.agent_definition._check_horizon", lambda *_: None)
        stored = process(settings, spec, rows, sizes, restart)
    assert sum(stored) == ROWS
    decision = newest_decision(PlacedAgent(settings, spec))
    assert decision is not None
    assert decision.broker_us is not None
    reached = DAY + timedelta(microseconds=decision.broker_us - int(DAY.timestamp() * 1e6))
    assert DAY + timedelta(minutes=ROWS - 64) < reached < DAY + timedelta(minutes=ROWS)
    batches = pl.DataFrame(read_stored(settings.lake(spec.name) / "batches"))
    assert batches["duplicates"].sum() == ROWS - 20


def test_a_horizon_shorter_than_stamps_may_be_ahead_is_refused(settings: Settings, tmp_path: Path) -> None:
    spec = spec_with(tmp_path, "2m", "5m")
    told = r"duplicates.horizon is 2m, .* event_time.max_ahead, 5m, .*: give a horizon of at least 5m"
    with pytest.raises(ConfigurationError, match=told):
        AgentDefinition.load(spec, "spec.yaml")
    with pytest.raises(ConfigurationError, match=told):
        process(settings, spec, stream(), [200], restart=False)
    AgentDefinition.load(spec_with(tmp_path, "5m", "5m"))


def test_a_lake_that_began_with_such_a_horizon_goes_on(settings: Settings, tmp_path: Path) -> None:
    spec, rows = spec_with(tmp_path, "2m", "2h"), stream()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("streaming.definition.agent_definition._check_horizon", lambda *_: None)
        process(settings, spec, rows.slice(0, 200), [100], restart=False)
    process(settings, spec, rows.slice(0, 400), [100], restart=False)
    assert len(read_stored(settings.lake(spec.name) / "batches")) == 4
    with pytest.raises(ConfigurationError, match=r"duplicates\.horizon is 3m"):
        process(settings, spec_with(tmp_path, "3m", "2h"), rows, [100], restart=False)
