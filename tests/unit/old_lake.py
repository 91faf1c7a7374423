"""Lakes of earlier code, unpacked: what it left behind, and what it decided next."""

from __future__ import annotations

import json
import math
import tarfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from schemas.spec import AgentSpec
from schemas.tables import HEADERS, UTC_MICROS
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.whole_tables import read_stored
from streaming.history.replay import Replayer
from streaming.history.replay_runs import ReplaySpan
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.opening import open_agent
from streaming.testing.live_lake import TOPIC, agent
from streaming.versions.clients import Clients
from streaming.versions.registry_watch import spec_in_force

WHOLE = ReplaySpan()
FIXTURES = Path(__file__).parents[1] / "fixtures"


@dataclass(frozen=True)
class OldLake:
    """A lake among the fixtures.

    Attributes:
        folder: below the fixtures.
        name: of its agent.
        next_batch: number of the batch that comes next.
    """

    folder: str
    name: str
    next_batch: int

    def unpacked(self, state: str, folder: Path) -> Settings:
        """Return the settings of a home that holds the lake, `unfinished` or `closed`."""
        with tarfile.open(FIXTURES / self.folder / f"{state}.tar.gz") as packed:
            packed.extractall(folder, filter="data")
        return Settings.load(folder / "home", {})

    def spec_of(self, settings: Settings) -> AgentSpec:
        """Return the version that its registry has promoted."""
        return spec_in_force(PlacedAgent(settings, agent(name=self.name)))

    def noted(self, name: str) -> list[dict[str, Any]]:
        """Return the content of one of the JSON files."""
        found: list[dict[str, Any]] = json.loads(
            (FIXTURES / self.folder / f"{name}.json").read_text(encoding="utf-8")
        )
        return found

    def next_records(self) -> pa.Table:
        """Return the records that followed, as they come from the topic."""
        records = self.noted("next_records")
        count = len(records)
        return pa.table(
            {
                "key": pa.array([each["key"].encode() for each in records], pa.binary()),
                "value": pa.array([each["value"].encode() for each in records], pa.binary()),
                "headers": pa.nulls(count, HEADERS),
                "topic": [TOPIC] * count,
                "partition": pa.array([0] * count, pa.int32()),
                "offset": pa.array([each["offset"] for each in records], pa.int64()),
                "timestamp": pa.array(
                    [datetime.fromisoformat(each["timestamp"]) for each in records], UTC_MICROS
                ),
            }
        )

    def run(self, settings: Settings, *parts: pa.Table) -> None:
        """Open the agent, which finishes what is open, and give it batches."""
        with (
            Clients(settings, "auto") as clients,
            open_agent(PlacedAgent(settings, self.spec_of(settings)), "127.0.0.1:1", clients) as on,
        ):
            for number, part in enumerate(parts, self.next_batch):
                end = {TOPIC: {"0": part["offset"][-1].as_py() + 1}}
                on.pipeline.process(lambda part=part: part, "live", number, lambda end=end: end)

    def alerts_since(self, settings: Settings, outbox_seq: int) -> list[dict[str, Any]]:
        """Return its alerts from a number on, in their order."""
        rows = pl.DataFrame(read_stored(settings.lake(self.name) / "alerts")).sort("outbox_seq")
        return rows.filter(pl.col("outbox_seq") >= outbox_seq).to_dicts()

    def replayed_exactly(self, settings: Settings, span: ReplaySpan = WHOLE) -> tuple[int, int]:
        """Replay without a difference; return how many rows and alerts."""
        spec = self.spec_of(settings)
        history = span.history(PlacedAgent(settings, spec))
        contract = AgentDefinition.of(spec).contract
        found = Replayer(settings, AgentDefinition.pinned(spec, contract), history).exactly(history.whole)
        assert found.differences == ()
        assert found.tolerated is None, "no machine was noted before, and this one since"
        return found.rows, found.alerts


OF_2026_11 = OldLake("lake_of_2026_11", "cards", 8)
BEFORE_FORMATS = OldLake("lake_before_formats", "house", 11)


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """Compare by what was noted; the last bits of a logarithm differ between processors."""
    assert [each["alert_id"] for each in found] == [each["alert_id"] for each in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name, value in theirs.items():
            if isinstance(value, float):
                assert math.isclose(ours[name], value, rel_tol=1e-9, abs_tol=1e-12), name
            elif name == "created_at":
                assert ours[name].isoformat() == value
            else:
                assert ours[name] == value, name
