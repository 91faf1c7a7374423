"""Transactions and specs for the scoring tests."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.spec import AgentSpec
from streaming.detection import checkpoints
from streaming.detection.checkpoints import Skipped
from streaming.detection.scored import ScoredBatch
from streaming.detection.scoring import Scorer
from streaming.profiles.block_clock import BlockClock
from streaming.profiles.frame import Frame
from streaming.store.local_folders import LocalFolders

START = 1_600_000_000_000_000
SECOND = 1_000_000


def agent_spec(**changes: Any) -> AgentSpec:
    """A spec with small blocks, so that short streams cross many boundaries."""
    return AgentSpec.model_validate(
        {
            "name": "sample",
            "version": "1.0.0",
            "data_sources": {"transactions": {"contract": "sample", "topic": "transactions"}},
            "alerts": {"topic": "alerts"},
            "profiles": {"block_rows": 16},
            **changes,
        }
    )


def table(times: Any, amounts: Any, first_sequence: int = 0, **entities: Any) -> pa.Table:
    """Transactions at `times` (microseconds) with the given entity columns."""
    rows = len(times)
    return pa.table(
        {
            "sequence": pa.array(range(first_sequence, first_sequence + rows), pa.int64()),
            "event_time": pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC")),
            "amount": pa.array(amounts, pa.float64()),
            "currency": pa.array(["EUR"] * rows, pa.string()),
            **{name: pa.array(ids, pa.string()) for name, ids in entities.items()},
        }
    )


def frame_of(rows: pa.Table, labels: pa.Table | None = None, idle: int | None = None) -> Frame:
    """The rows of table() as detectors see them."""
    first = rows["sequence"][0].as_py() if rows.num_rows else 0
    return Frame.of(rows, labels, first, {}, BlockClock(16, idle))[0]


def stream(rows: int, seed: int = 0, customers: int = 40, terminals: int = 20) -> pa.Table:
    """A steady stream of log-normal amounts, about one a minute, a few of them late."""
    random = np.random.default_rng(seed)
    times = START + np.cumsum(random.integers(1, 120, rows)) * SECOND
    times -= (random.random(rows) < 0.05) * random.integers(1, 86_400, rows) * SECOND
    return table(
        times,
        np.exp(random.normal(3.0, 1.0, rows)),
        customer=[f"c{number}" for number in random.integers(0, customers, rows)],
        terminal=[f"t{number}" for number in random.integers(0, terminals, rows)],
    )


def save(scorer: Scorer, folder: Path) -> Path:
    """Write a scorer's checkpoint, as an agent does."""
    return folder / checkpoints.write(scorer.snapshot(), LocalFolders.of(folder))


def load(scorer: Scorer, folder: Path, *, through: int | None = None) -> tuple[Skipped, ...]:
    """Bring a scorer to the newest usable checkpoint, as recovery does; return those passed over."""
    found = checkpoints.newest(LocalFolders.of(folder), scorer.definition_hash, through=through)
    if found.snapshot is not None:
        scorer.restore(found.snapshot)
    return found.skipped


def run(scorer: Scorer, rows: pa.Table, cuts: list[int]) -> list[ScoredBatch]:
    """Score and commit rows batch by batch, cut at these places."""
    bounds, batches = [0, *sorted(cuts), rows.num_rows], []
    for start, stop in pairwise(bounds):
        batches.append(scorer.score(rows.slice(start, stop - start)))
        scorer.commit(batches[-1])
    return batches


def bits(batches: list[ScoredBatch]) -> tuple[bytes, ...]:
    """Return everything that batches have scored, to the bit."""
    names = ("score", "log_odds", "base", "evidence", "contributions", "late")
    found = [np.concatenate([getattr(batch, name) for batch in batches]) for name in names]
    features = np.concatenate([batch.features() for batch in batches])
    return tuple(each.tobytes() for each in (*found, features))
