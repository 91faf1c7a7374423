from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from schemas.contract import load_contract
from schemas.errors import ConfigurationError
from streaming.files.event_files import open_events
from streaming.kafka.feeds import (
    event_time_bounds,
    simulate_to_file,
    simulate_to_topic,
)

NOW = datetime(2025, 3, 1, 15, 45, tzinfo=UTC)


def sent_events(path: Path) -> list[tuple[bytes | None, Any]]:
    batches = open_events(path, load_contract("simulator")).keyed()
    return [(key, orjson.loads(value)) for each in batches for key, value in zip(*each, strict=True)]


@pytest.mark.parametrize("compress", [1.0, 1.5, 60.0, 2880.0])
def test_event_time_reaches_the_clock_and_never_passes_it(compress: float) -> None:
    bounds = event_time_bounds(NOW, 0.2, 300, compress)
    turns = [NOW + timedelta(seconds=0.2 * block) for block in range(300)]
    assert all(a < b for a, b in pairwise(bounds))
    assert all(end <= turn for end, turn in zip(bounds[1:], turns, strict=True))
    assert bounds[-1] == turns[-1]
    assert bounds[-1] - bounds[0] == pytest.approx(timedelta(seconds=60 * compress), abs=timedelta(seconds=1))


def test_event_time_does_not_run_slower_than_the_clock() -> None:
    with pytest.raises(ConfigurationError, match="compress"):
        event_time_bounds(NOW, 0.2, 300, 0.5)


def test_simulated_files_hold_events_with_labels(tmp_path: Path) -> None:
    parquet, text = tmp_path / "stream.parquet", tmp_path / "stream.csv"
    first = simulate_to_file(parquet, rate=1_000, seconds=120, seed=5)
    again = simulate_to_file(text, rate=1_000, seconds=120, seed=5)
    table = pq.read_table(parquet)
    fields = load_contract("simulator").raw_fields
    assert set(table.column_names) == {*fields, "is_fraud", "fraud_type"}
    assert table.num_rows == first.events == first.records == 120_000
    assert sum(table["is_fraud"].to_pylist()) == first.frauds == pytest.approx(600, rel=0.25)
    assert first.labels == parquet
    assert first.truth.equals(again.truth)
    assert sent_events(parquet) == sent_events(text)


def test_the_same_seed_writes_the_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.csv", "b.csv", "c.csv")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        simulate_to_file(path, rate=100, seconds=3, seed=seed)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()


@pytest.mark.parametrize(("name", "rate"), [("s.json", 1.0), ("none/s.csv", 1.0), ("s.csv", 0.0)])
def test_simulations_that_cannot_be_written_are_refused(tmp_path: Path, name: str, rate: float) -> None:
    with pytest.raises(ConfigurationError):
        simulate_to_file(tmp_path / name, rate=rate, seconds=1, seed=1)


def test_a_simulation_checks_its_numbers_before_the_broker() -> None:
    with pytest.raises(ConfigurationError, match="rate"):
        simulate_to_topic("127.0.0.1:1", "nowhere", rate=0, seconds=1, seed=1)
