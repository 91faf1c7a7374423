"""Exact counts and sums over sliding windows, per entity: what decayed profiles only come close to.

A window of a row at time t is (t - horizon, t], a delayed one (t - delay - horizon, t - delay], both over the
rows of its entity that came before it in `sequence` order, and the row itself where that is asked for. A
delayed window also counts the frauds among its transactions, by the labels known when the row comes.
They are features for rules and trained models; no detector of its own goes by them.

A late row, older than an earlier one of its entity, has the windows of its own event time over what is known
by then; later rows count it where its event time falls. What lies `keep` = longest horizon + delay + lateness
or more behind an entity's newest row counts nowhere and is forgotten. So windows are exact for rows late by
up to `lateness`; of later ones, those lose their oldest part that reach beyond it. None of this depends on
how a stream was cut into batches.

Sums are exact to 2^-52 per amount (see window_kernels). An entity takes 16 bytes per transaction within its
last `keep`, 64 bytes beside them, and its id; with the room left to grow, up to 2.5 times as much is held.
An entity that stays away keeps its last entries until it is forgotten; see streaming.profiles.block_clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from schemas.detection import WindowedProfile
from streaming.arrays.arrow_arrays import Saved, id_column, ids_of, kept_ids, worth_packing
from streaming.arrays.compilation import Codes, Floats, Ints, read_only
from streaming.arrays.entity_index import EncodedColumn, EntityIndex
from streaming.detection.entry_store import EntryStore, KeptEntries
from streaming.detection.features import window_feature_names
from streaming.detection.window_kernels import Additions, Entries, Spans, slide
from streaming.profiles.block_clock import LONGEST_SPAN
from streaming.profiles.entity_half import KnownLabels
from streaming.profiles.frame import Frame

_SECOND = 1_000_000


@dataclass(frozen=True)
class WindowAdvance:
    """What the windows of each row of a batch hold, and the entries that the batch leads to.

    Zeros stand where a row names no entity.

    Attributes:
        counts: int64[n, horizons], transactions.
        sums: float64[n, horizons], sum of their amounts.
        delayed_counts: int64[n, horizons], transactions in the delayed windows; [n, 0] without a delay.
        frauds: float64[n, horizons], those of them known to be frauds; [n, 0] without a delay.
        encoded, slots, new_transactions, new_frauds: what committing the batch adds to the memory.
    """

    counts: Ints
    sums: Floats
    delayed_counts: Ints
    frauds: Floats
    encoded: EncodedColumn
    slots: Ints
    new_transactions: Entries
    new_frauds: Entries
    nats: Mapping[str, Floats] = field(default_factory=dict)

    def features(self) -> list[Floats]:
        """Return counts and mean amounts, then counts and shares of frauds of the delayed windows."""
        means, shares = _ratios(self.sums, self.counts), _ratios(self.frauds, self.delayed_counts)
        return [
            *self.counts.astype(np.float64).T,
            *means.T,
            *self.delayed_counts.astype(np.float64).T,
            *shares.T,
        ]

    def sentences(self, _: Ints) -> Mapping[str, list[str]]:
        """See stateful.DetectorResult."""
        return {}


class Windows:
    """The sliding windows of one kind of entities, a StatefulDetector without reasons.

    Args:
        kind: the entities.
        chosen: the lengths of the windows, the delay after which labels are known, and more.
    """

    def __init__(self, kind: str, chosen: WindowedProfile) -> None:
        self._kind, self._current = kind, chosen.current
        horizons = [horizon.total_seconds() for horizon in chosen.horizons]
        delay = None if chosen.delay is None else chosen.delay.total_seconds()
        self._horizons = len(horizons)
        self.name: str = f"windows-{kind}"
        self.columns: tuple[str, ...] = ()
        self.reason_names: tuple[str, ...] = ()
        self.rivals: Mapping[str, str] = {}
        self.feature_names = window_feature_names(kind, horizons, delayed=delay is not None)
        keep = _microseconds(max(horizons) + (delay or 0.0) + chosen.lateness.total_seconds())
        plain = [(0.0, horizon) for horizon in horizons]
        delayed = [] if delay is None else [(delay, horizon) for horizon in horizons]
        self._all_spans, self._delayed_spans = _spans(plain + delayed, keep), _spans(delayed, keep)
        self._index = EntityIndex()
        self._transactions, self._frauds = EntryStore(), EntryStore()

    def __len__(self) -> int:
        """Return the number of entities seen so far."""
        return len(self._index)

    @property
    def held_bytes(self) -> int:
        """Bytes in memory, ids left out."""
        return self._transactions.held_bytes + self._frauds.held_bytes

    def advance(self, frame: Frame) -> WindowAdvance:
        """See stateful.StatefulDetector.

        Rows see the labels at or before their own position. A label counts as one fraud at its
        transaction's time, and one that is taken back counts as one less.
        """
        first, rows = frame.first_sequence, len(frame)
        column, known = frame.ids(self._kind), frame.known(self._kind)
        ids = (
            column
            if known is None
            else pa.chunked_array([*column.chunks, *known.ids(column.type)], column.type)
        )
        encoded = self._index.encode(ids)
        slots = self._index.find(encoded)
        codes = read_only(encoded.codes[:rows])
        own = _own_additions(codes, frame, first + (0 if self._current else 1))
        found = _frauds(encoded.codes[rows:], known)
        transactions, frauds = self._transactions.taken(slots, own), self._frauds.taken(slots, found)
        counts, sums = _slid(frame, codes, own, self._all_spans, transactions)
        _, fraud_counts = _slid(frame, codes, found, self._delayed_spans, frauds)
        plain = self._horizons
        columns = (counts[:, :plain], sums[:, :plain], counts[:, plain:], fraud_counts)
        return WindowAdvance(*columns, encoded, slots, transactions, frauds)

    def commit(self, advance: WindowAdvance) -> None:
        """See stateful.StatefulDetector."""
        placed = self._index.place(advance.encoded, advance.slots)
        self._transactions.put(advance.new_transactions, placed, len(self))
        self._frauds.put(advance.new_frauds, placed, len(self))

    def forget(self, until: int) -> None:
        """See stateful.StatefulDetector."""
        known, stores = len(self), self._stores.values()
        alive = np.logical_or.reduce([store.newest(known) > until for store in stores])
        if worth_packing(alive):
            self._index.restore(kept_ids(self._index.ids(), alive))
            for store in stores:
                store.keep(np.flatnonzero(alive))

    def snapshot(self) -> Saved:
        """See stateful.StatefulDetector."""
        parts = {name: store.kept(len(self)) for name, store in self._stores.items()}
        entities = {"id": id_column(self._index.ids())}
        for name, kept in parts.items():
            entities |= {
                f"{name}_lengths": pa.array(kept.lengths),
                f"{name}_frontiers": pa.array(kept.frontiers),
            }
        saved = {
            name: pa.RecordBatch.from_pydict({"time": pa.array(kept.times), "amount": pa.array(kept.amounts)})
            for name, kept in parts.items()
        }
        return {"entities": pa.RecordBatch.from_pydict(entities), **saved}

    def restore(self, saved: Saved) -> None:
        """See stateful.StatefulDetector."""
        entities = saved["entities"]
        self._index.restore(ids_of(entities["id"]))
        for name, store in self._stores.items():
            numbers = (entities[f"{name}_lengths"], entities[f"{name}_frontiers"], *saved[name].columns)
            store.replace(KeptEntries._make(each.to_numpy() for each in numbers))

    @property
    def _stores(self) -> dict[str, EntryStore]:
        return {"transactions": self._transactions, "frauds": self._frauds}


def _microseconds(seconds: float) -> int:
    return min(round(seconds * _SECOND), LONGEST_SPAN)


def _spans(spans: Sequence[tuple[float, float]], keep: int) -> Spans:
    delays, horizons = (
        np.array([_microseconds(span[place]) for span in spans], np.int64) for place in range(2)
    )
    return Spans(delays, horizons, keep)


def _own_additions(codes: Codes, frame: Frame, first: int) -> Additions:
    positions = np.arange(first, first + len(frame))
    return Additions(codes, frame.times, frame.amounts, read_only(positions))


def _frauds(codes: Codes, known: KnownLabels | None) -> Additions:
    if known is None:
        nothing = read_only(np.zeros(0, np.int64))
        return Additions(read_only(codes), nothing, read_only(np.zeros(0)), nothing)
    frauds = np.flatnonzero(known.blames != 0.0)
    times, positions = read_only(known.times[frauds]), read_only(known.positions[frauds])
    return Additions(read_only(codes[frauds]), times, read_only(np.sign(known.blames[frauds])), positions)


def _slid(
    frame: Frame, codes: Codes, additions: Additions, spans: Spans, entries: Entries
) -> tuple[Ints, Floats]:
    counts = np.empty((len(frame), len(spans.horizons)), np.int64)
    sums = np.empty(counts.shape)
    arguments = (frame.first_sequence, codes, frame.times, additions, spans, entries)
    slide(*arguments, frame.forgotten_by_row(), counts, sums)
    return counts, sums


def _ratios(parts: Floats, wholes: Ints) -> Floats:
    return np.divide(parts, wholes, out=np.zeros(wholes.shape), where=wholes > 0)
