"""Streams that hold everything scoring must get right, and all that a scorer makes of one, to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.spec import AgentSpec
from streaming.detection.scoring import Scorer
from tests.unit.scoring_samples import SECOND, START, agent_spec, bits, table

ENTITIES = ("customer", "terminal")
BLOCK = 16
_HOUR = 3600 * SECOND
_PROFILES: dict[str, Any] = {
    "block_rows": BLOCK,
    "horizons": ["1h", "1d", "7d"],
    "idle_horizon": "8d",
    "pairs": [["customer", "terminal"]],
    "peers": {"customer": "terminal"},
    "windows": {"customer": {"horizons": ["1d"], "delay": "1h"}},
}
_DETECTORS: dict[str, Any] = {
    "counterparties": {"enabled": True, "entities": ["customer", "terminal"]},
    "habit": {"enabled": True},
    "multivariate": {"enabled": True},
}


def busy_spec(arithmetic: int) -> AgentSpec:
    """Pairs, peers, windows, small blocks and a short idle horizon under one arithmetic."""
    return agent_spec(arithmetic=arithmetic, profiles=_PROFILES, detectors=_DETECTORS)


def busy_rows(rows: int, seed: int, customers: int = 30, terminals: int = 12) -> pa.Table:
    """Refunds, rows without entities, amounts of 0 and below, late rows, and pauses that make many idle."""
    random = np.random.default_rng(seed)
    hours = np.cumsum(random.exponential(0.5, rows) + (random.random(rows) < 0.01) * 120.0)
    hours -= (random.random(rows) < 0.1) * random.integers(0, 300, rows)
    amounts = np.round(random.lognormal(3.0, 1.2, rows), 2)
    amounts[random.random(rows) < 0.15] = 0.0
    amounts[random.random(rows) < 0.05] *= -1.0
    amounts[random.random(rows) < 0.02] *= 1e6
    made = table(
        START + (hours * _HOUR).astype(np.int64),
        amounts,
        customer=_names("c", random, rows, customers),
        terminal=_names("t", random, rows, terminals),
    )
    directions = np.where(random.random(rows) < 0.25, "refund", "payment")
    return made.append_column("direction", pa.array(directions))


def busy_labels(rows: pa.Table, seed: int) -> pa.Table:
    """Labels on a third of the rows, by ascending position; some frauds are taken back later."""
    random = np.random.default_rng(seed)
    count = max(rows.num_rows // 3, 1)
    places, blames = random.integers(0, rows.num_rows, count), random.choice([0.0, 0.7, 1.0], count)
    again = np.flatnonzero(random.random(count) < 0.3)
    known_at = places + random.integers(1, 60, count)
    positions = np.concatenate([known_at, known_at[again] + random.integers(0, 40, len(again))])
    order = np.argsort(positions, kind="stable")
    columns = {
        "position": np.minimum(positions, rows.num_rows - 1),
        "blame": np.concatenate([blames, -blames[again]]),
        "first": np.arange(len(positions)) < count,
    }
    known = rows.take(pa.array(np.concatenate([places, places[again]])[order]))
    known = known.select(["event_time", "direction", *ENTITIES])
    for name, values in columns.items():
        known = known.append_column(name, pa.array(values[order]))
    return known


def scored_bits(scorer: Scorer, rows: pa.Table, labels: pa.Table, cuts: Iterable[int]) -> tuple[bytes, ...]:
    """Return what a scorer makes of a stream that is cut into batches there."""
    bounds, batches = [0, *sorted({cut for cut in cuts if 0 < cut < rows.num_rows}), rows.num_rows], []
    positions = labels["position"].to_numpy()
    for start, stop in pairwise(bounds):
        due = labels.filter(pa.array((positions >= start) & (positions < stop)))
        batches.append(scorer.score(rows.slice(start, stop - start), due))
        scorer.commit(batches[-1])
    return bits(batches)


def state_bits(scorer: Scorer) -> list[bytes]:
    """Return all state of a scorer, as its checkpoint holds it.

    Memory is given back between batches, so the places of entities depend on where a stream was cut.
    """
    held = scorer.snapshot()
    arrays = [part for kind in held.profiles.values() for part in (*kind.ids, *kind.state)]
    arrays += [part for tails in held.tails.values() for part in tails]
    arrays += [*held.histogram, *held.pace]
    saved = [batch.to_pydict() for parts in held.detectors.values() for batch in parts.values()]
    return [held.definition_hash.encode(), *(part.tobytes() for part in arrays), repr(saved).encode()]


def digest_of(found: Iterable[bytes]) -> str:
    """Return one hash of all of it."""
    whole = hashlib.sha256()
    for part in found:
        whole.update(part)
    return whole.hexdigest()


def _names(letter: str, random: np.random.Generator, rows: int, entities: int) -> list[str | None]:
    # The first of them takes a third of all rows.
    numbers = np.where(random.random(rows) < 0.3, 0, random.integers(0, entities, rows))
    missing = random.random(rows) < 0.1
    return [None if gone else f"{letter}{number}" for gone, number in zip(missing, numbers, strict=True)]
