"""Streams labelled history through the live scorer, each label known only from its own moment on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.combination import blame_of
from streaming.compilation import Flags, Floats, Ints
from streaming.features import Features
from streaming.scoring import ScoredBatch, Scorer

_SLICE_ROWS = 50_000


@dataclass(frozen=True)
class History:
    """Transactions in processing order and what is known of them.

    Attributes:
        transactions: what Scorer.score wants.
        frauds: bool[n].
        known_at: int64[n], microseconds since 1970; when the verdict on a row became known, or NEVER.
    """

    transactions: pa.Table
    frauds: Flags
    known_at: Ints

    @property
    def times(self) -> Ints:
        """Event times, int64[n], microseconds since 1970."""
        return np.asarray(self.transactions["event_time"].cast(pa.int64()).to_numpy())


NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Run:
    """What the scorer said of each row, and the features it went by; features are None unless asked for."""

    scores: Floats
    features: Features | None


def run_history(
    scorer: Scorer,
    history: History,
    *,
    with_features: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Run:
    """Score the rows in order; a verdict counts from the first row on whose moment has reached `known_at`.

    Args:
        scorer: as new; it is moved past all rows.
        history: what happened.
        with_features: also keep the features of all rows.
        on_progress: called with the rows done so far.
    """
    schedule = _Schedule(history)
    scores: list[Floats] = []
    features: list[Features] = []
    for start, end in schedule.slices():
        rows = history.transactions.slice(start, end - start)
        scored = scorer.score(rows, schedule.due(end))
        schedule.learn(start, _blames(scored))
        scores.append(scored.score)
        if with_features:
            features.append(scored.features())
        scorer.commit(scored)
        on_progress(end)
    return Run(np.concatenate(scores), np.vstack(features) if features else None)


def _blames(scored: ScoredBatch) -> Floats:
    # As in the lake, where own evidence is on record for alerts alone.
    alerted = scored.score >= scored.threshold
    return np.where(alerted, blame_of(scored.own_evidence()), 1.0)


class _Schedule:
    """Which verdicts become known with which row."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._blames = np.zeros(len(history.frauds))
        reached = np.searchsorted(np.maximum.accumulate(history.times), history.known_at)
        self._by_row = np.maximum(reached, np.arange(len(reached)) + 1)
        self._rows = np.argsort(self._by_row, kind="stable")
        self._positions = self._by_row[self._rows]
        self._next = 0

    def slices(self) -> Iterator[tuple[int, int]]:
        """Cut the rows so that no verdict counts within the slice of its own row, not blamed yet."""
        start, rows = 0, len(self._by_row)
        while start < rows:
            stop = min(start + _SLICE_ROWS, rows)
            earliest = np.minimum.accumulate(self._by_row[start:stop])
            end = start + 1 + int(np.flatnonzero(earliest >= np.arange(start + 1, stop + 1))[-1])
            yield start, end
            start = end

    def due(self, end: int) -> pa.Table:
        """Return the verdicts that become known before row `end` and have not been returned."""
        until = int(np.searchsorted(self._positions, end))
        rows, positions = self._rows[self._next : until], self._positions[self._next : until]
        self._next = until
        known = self._history.transactions.take(pa.array(rows))
        blames = np.where(self._history.frauds[rows], self._blames[rows], 0.0)
        columns = {"position": positions, "blame": blames, "first": np.ones(len(rows), np.bool_)}
        for name, values in columns.items():
            known = known.append_column(name, pa.array(values))
        return known

    def learn(self, start: int, blames: Floats) -> None:
        self._blames[start : start + len(blames)] = blames
