"""The label book: what is known of transactions, kept in Delta in the order in which they were recorded.

Unlike the tables that one driver takes over, this one is written by several processes side by side: the agent
that reads the labels topic, and imports from files while it runs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa

from schemas.instants import Clock, micros_of, utc_now
from schemas.label import LABELS
from streaming.delta.data_files import scanned
from streaming.delta.key_index import KeyIndex
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.delta.table_versions import open_for_reading
from streaming.labels.recorded import (
    BEGINNING,
    MOMENT,
    ROW,
    LabelStatus,
    Recorded,
    numbered,
    rejects_table,
    sound_labels,
)
from streaming.store.place import Place

_IMPORTS = "labels/import"
_TOPICS = "labels/topic"
_LABEL = ["transaction_id", "is_fraud", "kind", "decided_by"]
_DATED = [*_LABEL, "decided_at"]
_DECIDER = ["transaction_id", "decided_by"]
_FEW = 10_000


@dataclass(frozen=True)
class _Sifted:
    fresh: pl.DataFrame
    repeated: int
    rejects: pa.Table


class LabelBook:
    """Records labels once each and answers which label is in force.

    Args:
        place: where the labels table lies; created when absent.
        retention: how long versions of the table stay readable.
        clock: current time in UTC; undated labels are decided then.

    Raises:
        ConfigurationError: the table exists with another schema.
    """

    def __init__(self, place: Place, *, retention: timedelta, clock: Clock = utc_now) -> None:
        self._table, self._clock = SharedTable(place, LABELS, retention), clock
        self._by_transaction = KeyIndex(self._table, "transaction_id", "label_sequence")

    @property
    def place(self) -> Place:
        """Where the table lies."""
        return self._table.place

    @property
    def version(self) -> int:
        """The table version last seen."""
        return self._table.version

    @property
    def next_sequence(self) -> int:
        """The label_sequence that follows the last label seen; pin it to select the same labels again."""
        return self._table.next_number("label_sequence")

    def refreshed(self) -> int:
        """Return next_sequence as it is after all recordings so far, other processes' included."""
        self._table.refresh()
        return self.next_sequence

    def now(self) -> datetime:
        """Return the book's current time."""
        return self._clock()

    def position(self, source: str) -> int:
        """Return the offset after the last one recorded of a topic's partition, 0 for none.

        Args:
            source: topic/partition.
        """
        return self._table.last_batch(f"{_TOPICS}/{source}") + 1

    def record(self, labels: pa.Table, *, source: str, through: int | None = None) -> Recorded:
        """Store the labels that are not on record yet, in one commit, in the order given.

        A dated label repeats when one of the same transaction, is_fraud, kind, decider and time is on record.
        An undated one (null `decided_at`) is decided now, and repeats when it is what the same decider said
        last about the transaction. Of several undated ones by one decider on one transaction the last counts.

        Args:
            labels: a table of schema `GIVEN`.
            source: the file's name, or topic/partition.
            through: for a topic, the last offset that `labels` accounts for, its rejects included; it is kept
                in the same commit, and rows up to an offset kept earlier count as repeated.
        """
        return self._table.by_turns(lambda: self._record(labels, source, through))

    def latest(self, as_of: datetime | None = None, through: int | None = None) -> pa.Table:
        """Return the label in force on each transaction: the latest decided, of those the last recorded.

        Args:
            as_of: count only labels decided at or before this time.
            through: count only labels with a lower `label_sequence`.

        Returns:
            A table of schema `LABELS`, one row per transaction, in `label_sequence` order.
        """
        self._table.refresh()
        return _as_labels(_latest(self._chosen(as_of, through)).sort("label_sequence").collect())

    def latest_on(self, transactions: pl.Series, through: int) -> pl.DataFrame:
        """Return transaction_id and the is_fraud in force of those transactions that have a label.

        Memory is bounded by the transactions asked about, and not by the labels on record. Few of them are
        found by their index, of many all labels are read once.

        Args:
            transactions: ids.
            through: count only labels with a lower `label_sequence`.
        """
        ids = transactions.drop_nulls().unique()
        columns = ["transaction_id", "is_fraud", "decided_at", "label_sequence"]
        if ids.len() <= _FEW:
            keys = ids.to_arrow().cast(pa.string())
            rows = pl.DataFrame(self._by_transaction.rows(keys, columns)).lazy()
        else:
            wanted = pl.LazyFrame({"transaction_id": ids})
            rows = self._scan(columns).join(wanted, on="transaction_id", how="semi")
        latest = _latest(rows.filter(pl.col("label_sequence") < through))
        return latest.select("transaction_id", "is_fraud").collect()

    def all_on(self, transaction: str) -> pl.DataFrame:
        """Return every label of a transaction, with the columns `LABELS`, in `label_sequence` order."""
        self._table.refresh()
        return pl.DataFrame(self._by_transaction.rows(pa.array([transaction], pa.string()), LABELS.names))

    def in_force_on(self, transaction: str) -> pl.DataFrame:
        """Return the label in force on a transaction, with the columns `LABELS`; no row where it has none."""
        return _latest(self.all_on(transaction).lazy()).collect()

    def since(self, label_sequence: int, through: int | None = None) -> pa.Table:
        """Return the labels from a `label_sequence` on, below `through` if given, in that order."""
        self._table.refresh()
        return self._table.read("label_sequence", label_sequence, through)

    def history(self, label_sequence: int, through: int) -> pl.DataFrame:
        """Return every label below `through` on the transactions judged from a `label_sequence` on.

        Returns:
            label_sequence, transaction_id, is_fraud, decided_at and recorded_at, in no useful order.
        """
        self._table.refresh()
        judged = self._table.read("label_sequence", label_sequence, through, ["transaction_id"])
        columns = ["label_sequence", "transaction_id", "is_fraud", "decided_at", "recorded_at"]
        rows = pl.DataFrame(self._by_transaction.rows(judged["transaction_id"], columns))
        return rows.filter(pl.col("label_sequence") < through).select(columns)

    def status(self) -> LabelStatus:
        """Count labels, and those in force."""
        self._table.refresh()
        latest = _latest(self._scan(LABELS.names)).select("is_fraud", "decided_at", "recorded_at").collect()
        if latest.height == 0:
            return LabelStatus()
        decided, recorded = latest.select(pl.max("decided_at", "recorded_at")).row(0)
        frauds, count = int(latest["is_fraud"].sum()), latest.height
        return LabelStatus(self._table.count(), count, frauds, frauds / count, decided, recorded)

    def _record(self, labels: pa.Table, source: str, through: int | None) -> Recorded:
        self._table.refresh()
        now = self._clock()
        sound, unsound = sound_labels(labels, now)
        ahead, known = self._unread(numbered(sound), source, through)
        sifted = self._sifted(ahead)
        rows = self._numbered(sifted.fresh, now, source)
        if rows.num_rows or through is not None:
            self._table.append(rows, self._stamp(source, through))
            self._table.tidy()
        rejects = pa.concat_tables([unsound, sifted.rejects]).sort_by("source_position")
        return Recorded(rows.num_rows, sifted.repeated + known, rejects)

    def _stamp(self, source: str, through: int | None) -> Stamp:
        if through is not None:
            return Stamp(f"{_TOPICS}/{source}", through)
        return Stamp(_IMPORTS, self._table.last_batch(_IMPORTS) + 1)

    def _unread(self, labels: pl.DataFrame, source: str, through: int | None) -> tuple[pl.DataFrame, int]:
        if through is None:
            return labels, 0
        unread = labels.filter(pl.col("source_position") >= self.position(source))
        return unread, labels.height - unread.height

    def _sifted(self, labels: pl.DataFrame) -> _Sifted:
        dated = labels.filter(pl.col("decided_at").is_not_null())
        undated = labels.filter(pl.col("decided_at").is_null())
        last, rejects = _last_undated(undated)
        new_dated, new_undated = self._new_dated(dated), self._new_undated(last)
        fresh = pl.concat([new_dated, new_undated]).sort(ROW)
        return _Sifted(fresh, labels.height - fresh.height - rejects.num_rows, rejects)

    def _new_dated(self, labels: pl.DataFrame) -> pl.DataFrame:
        if labels.height == 0:
            return labels
        first, last = labels.select(low=pl.min("decided_at"), high=pl.max("decided_at")).row(0)
        known = self._scan(_DATED, first, last).collect()
        new = labels.unique(_DATED, keep="first", maintain_order=True)
        return new.join(known, on=_DATED, how="anti", nulls_equal=True)

    def _new_undated(self, labels: pl.DataFrame) -> pl.DataFrame:
        if labels.height == 0:
            return labels
        ids = labels["transaction_id"].to_arrow().cast(pa.string())
        found_rows = pl.DataFrame(self._by_transaction.rows(ids, [*_DATED, "label_sequence"]))
        known = found_rows.lazy().join(labels.lazy(), on=_DECIDER, how="semi")
        said = _latest(known, _DECIDER).select(_LABEL).collect()
        return labels.join(said, on=_LABEL, how="anti", nulls_equal=True)

    def _numbered(self, fresh: pl.DataFrame, now: datetime, source: str) -> pa.Table:
        first = self.next_sequence
        return _as_labels(
            fresh.sort(ROW).with_columns(
                pl.int_range(first, first + fresh.height, dtype=pl.Int64, eager=True).alias("label_sequence"),
                pl.col("decided_at").fill_null(pl.lit(now, MOMENT)),
                pl.lit(now, MOMENT).alias("recorded_at"),
                pl.lit(source).alias("source"),
            )
        )

    def _chosen(self, as_of: datetime | None, through: int | None) -> pl.LazyFrame:
        rows = self._scan(LABELS.names, None, as_of)
        return rows if through is None else rows.filter(pl.col("label_sequence") < through)

    def _scan(
        self, columns: list[str], first: datetime | None = None, last: datetime | None = None
    ) -> pl.LazyFrame:
        """Read columns of the labels decided from `first` to `last`, both included, in no useful order."""
        low = micros_of(first or BEGINNING)
        files = self._table.files("decided_at", low, None if last is None else micros_of(last) + 1)
        if not files:
            return _EMPTY.lazy().select(columns)
        rows = scanned(files).filter(pl.col("decided_at") >= pl.lit(first or BEGINNING, MOMENT))
        if last is not None:
            rows = rows.filter(pl.col("decided_at") <= pl.lit(last, MOMENT))
        return rows.select(columns)


def label_status(place: Place, retention: timedelta) -> LabelStatus:
    """Return the status of a labels table; all zero when there is none, and none is made."""
    if open_for_reading(place) is None:
        return LabelStatus()
    return LabelBook(place, retention=retention).status()


_EMPTY = pl.DataFrame(LABELS.empty_table())


def _as_labels(rows: pl.DataFrame) -> pa.Table:
    return rows.select(LABELS.names).to_arrow().cast(LABELS)


def _latest(labels: pl.LazyFrame, per: list[str] | None = None) -> pl.LazyFrame:
    """Keep the last label per transaction, or per whatever else is named."""
    ordered = labels.sort("decided_at", "label_sequence")
    return ordered.unique(per or ["transaction_id"], keep="last", maintain_order=True)


def _last_undated(labels: pl.DataFrame) -> tuple[pl.DataFrame, pa.Table]:
    """Keep the last label per transaction and decider, and reject earlier ones that say something else."""
    last = labels.unique(_DECIDER, keep="last", maintain_order=True)
    earlier = labels.join(last, on=_LABEL, how="anti", nulls_equal=True)
    reason = pl.lit("undated, and the same decider says otherwise further down").alias("reason")
    return last, rejects_table(earlier.sort(ROW).select("source_position", reason))
