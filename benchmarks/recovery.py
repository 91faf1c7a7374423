"""Recovery: from a profiles checkpoint and the rows stored since to a scorer that goes on."""

from __future__ import annotations

import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.harness import bench_spec, report, say
from schemas.tables import UTC_MICROS
from streaming.definition.agent_definition import AgentDefinition
from streaming.detection import checkpoints
from streaming.detection.scoring import Scorer
from streaming.store.local_folders import LocalFolders

_BLOCK = 500_000
_ROWS_SINCE = 500_000
_START = datetime(2026, 1, 1, tzinfo=UTC)


def measure(entities: int, *, as_json: bool) -> None:
    """Print `recovery_s`, made of `load_s` and `fold_s`.

    Args:
        entities: entities in the checkpoint, half of them customers and half terminals; 500,000 rows are
            folded on top, as many as are stored between two checkpoints at most by default.
    """
    spec = bench_spec(batch=_BLOCK)
    names = AgentDefinition.of(spec).contract.entity_names
    half = entities // 2
    with tempfile.TemporaryDirectory(prefix="flagstream-bench-") as folder:
        say(f"remembering {entities:,} entities")
        scorer = Scorer(spec.anew(), names)
        for first in range(0, half, _BLOCK):
            scorer.fold(payments(scorer.next_sequence, np.arange(first, min(first + _BLOCK, half))))
        folders = LocalFolders.of(Path(folder))
        saved = folders.path / checkpoints.write(scorer.snapshot(), folders)
        on_disk = sum(file.stat().st_size for file in saved.iterdir())
        since = payments(scorer.next_sequence, np.random.default_rng(7).integers(0, half, _ROWS_SINCE))
        begun, restored = time.perf_counter(), Scorer(spec.anew(), names)
        newest = checkpoints.newest(folders, restored.definition_hash).snapshot
        assert newest is not None, "it was just written"
        restored.restore(newest)
        loaded = time.perf_counter()
        restored.fold(since)
        ended = time.perf_counter()
    figures: dict[str, object] = {
        "recovery_s": round(ended - begun, 3),
        "load_s": round(loaded - begun, 3),
        "fold_s": round(ended - loaded, 3),
        "entities": 2 * half,
        "rows_since_checkpoint": _ROWS_SINCE,
        "checkpoint_bytes_per_entity": round(on_disk / (2 * half)),
    }
    report(figures, as_json=as_json)


def payments(first: int, numbers: np.ndarray) -> pa.Table:
    """Return one payment of customer n at terminal n per number, a millisecond apart, from a row on."""
    sequence = np.arange(first, first + len(numbers))
    start = int(_START.timestamp() * 1_000_000)
    texts = pa.array(numbers).cast(pa.string())
    return pa.table(
        {
            "sequence": sequence,
            "event_time": pa.array(start + sequence * 1_000, pa.int64()).cast(UTC_MICROS),
            "amount": 10.0 + (numbers % 97),
            "currency": ["EUR"] * len(numbers),
            "customer": texts,
            "terminal": texts,
        }
    )
