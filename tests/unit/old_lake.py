"""The lake of November 2026, unpacked: what the code of that day left behind."""

from __future__ import annotations

import json
import tarfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.spec import AgentSpec
from schemas.tables import HEADERS, UTC_MICROS
from streaming.home.settings import Settings
from streaming.testing.live_lake import TOPIC, agent
from streaming.versions.renewal import spec_in_force

FOLDER = Path(__file__).parents[1] / "fixtures" / "lake_of_2026_11"
NAME = "cards"
NEXT_BATCH = 8


def unpacked(state: str, folder: Path) -> Settings:
    """Return the settings of a home that holds the lake, `unfinished` or `closed`."""
    with tarfile.open(FOLDER / f"{state}.tar.gz") as packed:
        packed.extractall(folder, filter="data")
    return Settings.load(folder / "home", {})


def spec_of(settings: Settings) -> AgentSpec:
    """Return the version that its registry has promoted."""
    return spec_in_force(settings, agent(name=NAME))


def noted(name: str) -> list[dict[str, Any]]:
    """Return the content of one of the JSON files."""
    found: list[dict[str, Any]] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def next_records() -> pa.Table:
    """Return the records that followed, as they come from the topic."""
    records = noted("next_records")
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
