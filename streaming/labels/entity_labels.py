"""What labels say about entities: the second fold beside the transactions, pinned batch by batch.

Every batch pins which labels count from its first row on (`through`) and among which transactions theirs are
looked for (`below`). From the pins, the labels, the transactions and the alerts, which only ever grow, the
same entity labels follow at any time: live, in a recovery and in a replay.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import ALERT_KIND
from schemas.tables import UTC_MICROS
from streaming.arrays.columns import numbers
from streaming.arrays.compilation import Floats
from streaming.delta.key_index import KeyIndex
from streaming.delta.stored import StoredTable, open_version
from streaming.labels.book import LabelBook
from streaming.labels.label_pins import LabelPins
from streaming.store.place import Place

_TRANSACTION = "transaction_id"
_GIVEN_AWAY = 7.0
_Tables = tuple[StoredTable, StoredTable, KeyIndex]


@dataclass(frozen=True)
class Derived:
    """What follows from labels for entities.

    Attributes:
        table: of schema entity_labels_schema(), in `label_sequence` order.
        unmatched: `label_sequence` and `recorded_at` of the labels whose transaction was not found.
    """

    table: pa.Table
    unmatched: pl.DataFrame


def blame_of(own_nats: Floats) -> Floats:
    """Return how much of a fraud the entities of its transaction have to answer for, float64[n] in 0..1.

    A fraud that its own evidence gives away says little of where it happened: of the explanations "this
    payment" and "this entity" the first takes the odds that its nats stand for, against 1 in 1,097 (e^7).
    """
    return np.asarray(1.0 / (1.0 + np.exp(own_nats - _GIVEN_AWAY)))


def entity_labels_schema(entities: Sequence[str]) -> pa.Schema:
    """Return the columns of entity labels, as Scorer.score takes them.

    `position` is the `sequence` of the first row that knows the label, `event_time` its transaction's;
    `blame` is 0 for genuine, up to 1 for a fraud that nothing but the entity explains. Of a changed label
    `first` is false and `blame` is by how much the last one changes.
    """
    return pa.schema(
        [
            pa.field("position", pa.int64()),
            pa.field("event_time", UTC_MICROS),
            pa.field("blame", pa.float64()),
            pa.field("first", pa.bool_()),
            *(pa.field(name, pa.string()) for name in entities),
        ]
    )


class EntityLabels:
    """Derives from the lake what labels say of entities.

    Args:
        book: the labels.
        transactions: where the transactions table lies.
        alerts: where the alerts table lies.
        entities: entity columns of the transactions, see EventContract.labelled_columns.
    """

    def __init__(self, book: LabelBook, transactions: Place, alerts: Place, entities: Sequence[str]) -> None:
        self._book, self._transactions, self._alerts = book, transactions, alerts
        self._entities = tuple(entities)
        self._lock, self._tables = threading.Lock(), cast("_Tables | None", None)
        self.schema = entity_labels_schema(entities)

    @property
    def book(self) -> LabelBook:
        """The labels."""
        return self._book

    def derive(self, since: int, pins: LabelPins) -> Derived:
        """Return what the labels from `label_sequence` `since` on say, under all pins up to the last one.

        Args:
            since: the `through` of the pin before the first one of interest.
            pins: from the very first batch on.
        """
        through = pins.newest.through
        labels = self._book.history(since, through) if since < through else None
        if labels is None or labels.height == 0:
            return Derived(self.schema.empty_table(), _NOBODY)
        rows = pins.counted(self._with_transactions(labels))
        matched = (pl.col("sequence") < pl.col("below")).fill_null(value=False)
        unmatched = rows.filter(~matched & (pl.col("label_sequence") >= since))
        changes = _changes(rows.filter(matched)).filter(pl.col("label_sequence") >= since)
        return Derived(
            changes.select(self.schema.names).to_arrow().cast(self.schema),
            unmatched.select("label_sequence", "recorded_at"),
        )

    def between(self, pins: LabelPins, first: int, end: int) -> pa.Table:
        """Return the entity labels that rows from `first` to `end` are the first to know, by position."""
        return self.derive(pins.before(first).newest.through, pins.before(end)).table

    def _with_transactions(self, labels: pl.DataFrame) -> pl.DataFrame:
        ids = labels[_TRANSACTION].unique().to_arrow().cast(pa.string())
        alerts, index = self._opened()
        rows = index.rows(ids, ["event_time", *self._entities])
        # An id that came again after the duplicates' horizon is another row; its label means the first.
        known = pl.DataFrame(rows).unique(_TRANSACTION, keep="first", maintain_order=True)
        evidence = self._evidence(alerts, ids, rows["sequence"])
        found = labels.join(known, on=_TRANSACTION, how="left").join(evidence, on=_TRANSACTION, how="left")
        return found.with_columns(pl.col("blame").fill_null(1.0)).sort("label_sequence")

    def _evidence(self, alerts: StoredTable, ids: pa.Array, sequences: pa.ChunkedArray) -> pl.DataFrame:
        columns = [_TRANSACTION, "own_evidence", "revision", "kind"]
        rows = alerts.at("sequence", numbers(sequences, pa.int64()), columns)
        # An absence is alerted some time after its transaction: it must not change what a label says by then.
        at_once = pc.and_(pc.equal(rows["kind"], ALERT_KIND), pc.is_in(rows[_TRANSACTION], ids))
        first = pl.DataFrame(rows.filter(at_once)).sort("revision", maintain_order=True)
        first = first.unique(_TRANSACTION, keep="first", maintain_order=True)
        blame = blame_of(first["own_evidence"].to_numpy())
        return first.select(_TRANSACTION).with_columns(blame=pl.Series(blame, dtype=pl.Float64))

    def _opened(self) -> tuple[StoredTable, KeyIndex]:
        """Return the alerts, and where transactions stand by their ids, as of now."""
        with self._lock:
            if self._tables is None:
                found = [open_version(place) for place in (self._transactions, self._alerts)]
                transactions, alerts = (table for table in found if table is not None)
                self._tables = transactions, alerts, KeyIndex(transactions, _TRANSACTION, "sequence")
            for table in self._tables[:2]:
                table.refresh()
            return self._tables[1:]


def at_positions(labels: pa.Table, first: int, end: int) -> pa.Table:
    """Return the entity labels with `first` <= position < `end`."""
    positions = labels["position"]
    return labels.filter(pc.and_(pc.greater_equal(positions, first), pc.less(positions, end)))


_NOBODY = pl.DataFrame(schema={"label_sequence": pl.Int64, "recorded_at": pl.Datetime("us", "UTC")})


def _changes(rows: pl.DataFrame) -> pl.DataFrame:
    """Turn labels in `label_sequence` order into changes of what stands: the label decided last."""
    stands = pl.col("decided_at") == pl.col("decided_at").cum_max().over(_TRANSACTION)
    said = pl.when(pl.col("is_fraud")).then(pl.col("blame")).otherwise(0.0)
    in_force = pl.when(stands).then(said).forward_fill().over(_TRANSACTION)
    first = pl.int_range(pl.len()).over(_TRANSACTION) == 0
    before = pl.col("in_force").shift(1).over(_TRANSACTION).fill_null(0.0)
    changes = rows.with_columns(in_force=in_force, first=first)
    changes = changes.with_columns(blame=pl.col("in_force") - before)
    return changes.filter(pl.col("first") | (pl.col("blame") != 0.0))
