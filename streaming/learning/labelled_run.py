"""Streams history through the live scorer, each label known only from its own moment on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from streaming.arrays.compilation import Flags, Floats, Ints
from streaming.detection.features import Features
from streaming.detection.scored import ScoredBatch
from streaming.detection.scoring import Scorer
from streaming.labels.entity_labels import at_positions, blame_of

_SLICE_ROWS = 50_000


@dataclass(frozen=True)
class History:
    """Transactions in processing order and what is known of them.

    Attributes:
        transactions: what Scorer.score wants.
        frauds: bool[n].
        known_at: int64[n], microseconds since 1970; when the label on a row became known, or NEVER.
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
    """What the scorer said of each row, and the features it went by, of the rows whose were to be kept."""

    scores: Floats
    features: Features


class Schedule(Protocol):
    """Which labels become known with which row."""

    def slices(self) -> Iterator[tuple[int, int]]:
        """Cut the rows into slices, first row and the one after the last."""

    def due(self, end: int) -> pa.Table:
        """Return the labels that become known before row `end` and have not been returned."""

    def learn(self, start: int, blames: Floats) -> None:
        """Note how much of a fraud the entities of the rows from `start` on would have to answer for."""


def run_history(
    scorer: Scorer,
    history: History,
    *,
    keep: Flags | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Run:
    """Score the rows in order; a label counts from the first row on whose moment has reached `known_at`.

    Args:
        scorer: as new; it is moved past all rows.
        history: what happened.
        keep: bool[n], the rows whose features are kept; by default none.
        on_progress: called with the rows done so far.
    """
    return run_schedule(scorer, history.transactions, _ByMoment(history), keep, on_progress)


def run_recorded(
    scorer: Scorer,
    transactions: pa.Table,
    labels: pa.Table,
    *,
    keep: Flags | None = None,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Run:
    """Score stored rows in order, each knowing the labels that it knew when it was first scored.

    Args:
        scorer: as new; it is moved past all rows.
        transactions: stored rows from `sequence` 0 on.
        labels: as streaming.labels.entity_labels derives them, by ascending position.
        keep, on_progress: see run_history.
    """
    return run_schedule(scorer, transactions, _AsRecorded(labels, transactions.num_rows), keep, on_progress)


def run_schedule(
    scorer: Scorer,
    transactions: pa.Table,
    schedule: Schedule,
    keep: Flags | None,
    on_progress: Callable[[int], None],
) -> Run:
    """Score the rows under a schedule of labels; see run_history."""
    scores: list[Floats] = [np.zeros(0)]
    features: list[Features] = [np.zeros((0, len(scorer.feature_names)), np.float32)]
    for start, end in schedule.slices():
        scored = scorer.score(transactions.slice(start, end - start), schedule.due(end))
        schedule.learn(start, _blames(scored))
        scores.append(scored.score)
        if keep is not None:
            features.append(scored.features()[keep[start:end]])
        scorer.commit(scored)
        on_progress(end)
    return Run(np.concatenate(scores), np.vstack(features))


def _blames(scored: ScoredBatch) -> Floats:
    # As in the lake, where own evidence is on record for alerts alone.
    alerted = scored.score >= scored.threshold
    return np.where(alerted, blame_of(scored.own_evidence()), 1.0)


class _AsRecorded:
    """The labels at the rows that were the first to know them."""

    def __init__(self, labels: pa.Table, rows: int) -> None:
        self._labels, self._rows, self._done = labels, rows, 0

    def slices(self) -> Iterator[tuple[int, int]]:
        for start in range(0, self._rows, _SLICE_ROWS):
            yield start, min(start + _SLICE_ROWS, self._rows)

    def due(self, end: int) -> pa.Table:
        start, self._done = self._done, end
        return at_positions(self._labels, start, end)

    def learn(self, start: int, blames: Floats) -> None:
        """They are in the labels already."""


class _ByMoment:
    """Each label from the first row on whose moment has reached it."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._blames = np.zeros(len(history.frauds))
        reached = np.searchsorted(np.maximum.accumulate(history.times), history.known_at)
        self._by_row = np.maximum(reached, np.arange(len(reached)) + 1)
        self._rows = np.argsort(self._by_row, kind="stable")
        self._positions = self._by_row[self._rows]
        self._next = 0

    def slices(self) -> Iterator[tuple[int, int]]:
        """Cut the rows so that no label counts within the slice of its own row, not blamed yet."""
        start, rows = 0, len(self._by_row)
        while start < rows:
            stop = min(start + _SLICE_ROWS, rows)
            earliest = np.minimum.accumulate(self._by_row[start:stop])
            end = start + 1 + int(np.flatnonzero(earliest >= np.arange(start + 1, stop + 1))[-1])
            yield start, end
            start = end

    def due(self, end: int) -> pa.Table:
        """Return the labels that become known before row `end` and have not been returned."""
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
