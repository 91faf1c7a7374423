"""Growth: what lies on disk, and what an append takes, over many small batches of the real pipeline.

Only Kafka is left out. Versions are kept for seconds instead of a month, so what is to go is due.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import median
from typing import TypeVar
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from benchmarks.harness import bench_spec, report, say
from schemas.spec import AgentSpec
from streaming.delta.maintenance import Maintenance, MaintenanceLimits, tables_below
from streaming.events.record_table import record_table
from streaming.events.simulated_json import json_keys, json_lines
from streaming.events.simulator import Simulator, SimulatorSettings
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord
from streaming.run import alerts_end, opening
from streaming.versions.clients import Clients

Given = TypeVar("Given")
_KEPT = timedelta(seconds=2)
_LIMITS = MaintenanceLimits(least_age=timedelta(0))
_BEGUN = datetime(2026, 5, 1, tzinfo=UTC)
_ROWS = 20
_ROUND_EVERY = 50
# By how much the median of the second half's points may exceed that of the first half's: files and entries go
# up and down with each clearing, so that single points say little.
_FLAT = {"files": 1.5, "log_entries": 1.5, "transactions": 1.1, "bytes_per_row": 1.2, "batch_ms": 1.25}


@dataclass(frozen=True)
class Point:
    """All tables of a lake together after so many batches; `batch_ms` is the median since the last point.

    `bytes_per_row` counts live files alone, by the rows of `transactions`.
    """

    batches: int
    rows: int
    files: int
    live_files: int
    log_entries: int
    transactions: int
    megabytes: float
    bytes_per_row: float
    batch_ms: float


def measure(batches: int, *, as_json: bool) -> None:
    """Print ten points, by how much those of the second half exceed the others, and what is not flat.

    Args:
        batches: how many; 20,000 take an hour or two on two cores.
    """
    with tempfile.TemporaryDirectory(prefix="flagstream-bench-") as folder:
        settings = Settings.load(Path(folder), {})
        points = []
        for point in growth(settings, batches, max(batches // 10, 1)):
            say(str(asdict(point)))
            points.append(point)
    figures: dict[str, object] = {f"after_{each.batches}": asdict(each) for each in points}
    ratios = growth_ratios(points)
    figures |= {f"{name}_ratio": ratio for name, ratio in ratios.items()}
    figures["not_flat"] = [name for name, ratio in ratios.items() if ratio > _FLAT[name]]
    figures["rows_too_many"] = sum(max(point.rows - _ROWS * point.batches, 0) for point in points)
    report(figures, as_json=as_json)


def growth_ratios(points: Sequence[Point]) -> dict[str, float]:
    """Return by how much the second half's median of each measure exceeds the first half's."""
    middle = max(len(points) // 2, 1)
    halves = points[:middle], points[middle:] or points
    early, late = ({name: median(getattr(each, name) for each in half) for name in _FLAT} for half in halves)
    return {name: round(late[name] / max(early[name], 1e-9), 2) for name in _FLAT}


def growth(settings: Settings, batches: int, every: int) -> Iterator[Point]:
    """Run an agent over simulated payments; yield where it stands every so many batches."""
    spec = bench_spec(batch=_ROWS).model_copy(update={"replay_horizon": _KEPT})
    lake = settings.lake(spec.name)
    maintenance = Maintenance(partial(tables_below, lake), _LIMITS, _KEPT)
    with (
        mock.patch.object(alerts_end, "Publisher", _Nowhere),
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, spec), "", clients) as agent,
    ):
        took: list[float] = []
        for number, records in enumerate(_batches(batches)):
            offsets = {_topic(spec): {"0": (number + 1) * _ROWS}}
            begun = time.perf_counter()
            agent.pipeline.process(partial(_same, records), "bench", number, partial(_same, offsets))
            took.append(time.perf_counter() - begun)
            if (number + 1) % _ROUND_EVERY == 0:
                for _ in tables_below(lake):
                    maintenance.round()
            if (number + 1) % every == 0:
                yield _point(lake.path, number + 1, took[-every:])


def _same(given: Given) -> Given:
    return given


def _point(lake: Path, batches: int, took: list[float]) -> Point:
    tables = [log.parent for log in lake.glob("*/_delta_log")]
    opened = [DeltaTable(path) for path in tables]
    rows = DeltaTable(lake / "transactions").to_pyarrow_dataset().count_rows()
    live = sum(sum(pa.table(table.get_add_actions())["size_bytes"].to_pylist()) for table in opened)
    return Point(
        batches=batches,
        rows=rows,
        files=sum(len(list(path.glob("*.parquet"))) for path in tables),
        live_files=sum(len(table.file_uris()) for table in opened),
        log_entries=sum(len(list((path / "_delta_log").iterdir())) for path in tables),
        transactions=sum(_kept_transactions(path) for path in tables),
        megabytes=round(sum(file.stat().st_size for file in lake.rglob("*") if file.is_file()) / 1e6, 1),
        bytes_per_row=round(live / max(rows, 1), 1),
        batch_ms=round(median(took) * 1000, 1),
    )


def _kept_transactions(path: Path) -> int:
    """Count the application transactions that a table's newest checkpoint keeps for good."""
    checkpoints = sorted((path / "_delta_log").glob("*.checkpoint.parquet"))
    if not checkpoints:
        return 0
    rows = pq.read_table(checkpoints[-1], columns=["txn"])["txn"]
    return int(len(rows) - rows.null_count)


def _batches(count: int) -> Iterator[pa.Table]:
    simulator = Simulator(SimulatorSettings(duplicate_share=0.02, malformed_share=0.01))
    for number in range(count):
        start = _BEGUN + timedelta(minutes=number)
        end = start + timedelta(minutes=1)
        block = simulator.block(_ROWS, start, end)
        values, keys = json_lines(block), json_keys(block)
        yield record_table(keys, values, topic="bench", first=number * _ROWS, sent_at=end)


def _topic(spec: AgentSpec) -> str:
    return spec.data_sources.transactions.subscription.first


class _Nowhere:
    """Stands where the alerts topic would."""

    def __init__(self, *_: object, **__: object) -> None:
        self.marker = 0

    def open(self, stored_next: int) -> None:
        self.marker = stored_next

    def publish(self, records: Iterable[OutboxRecord]) -> int:
        sent = sum(record.outbox_seq >= self.marker for record in records)
        self.marker += sent
        return sent

    def keep_marker(self) -> None:
        pass

    def close(self) -> None:
        pass
