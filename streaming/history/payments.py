"""The payments of entities: read from the whole table once, or found by an index that is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Protocol

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import NotFoundError, RetryableError
from schemas.event_columns import DIRECTION
from streaming.delta.kept_rows import KeptRows
from streaming.delta.key_index import SPAN, KeyIndex
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable
from streaming.store.place import Place

_LONGEST_WAIT_SECONDS = 2.0
_MOST_READ_THROUGH = 5_000_000  # rows of a table that a request may read as a whole: about a second
_PAYMENT_TYPES = {
    "sequence": pl.Int64(), "transaction_id": pl.String(), "event_time": pl.Datetime("us", "UTC"),
    "amount": pl.Float64(), "currency": pl.String(),
}  # fmt: skip
PAYMENT = tuple(_PAYMENT_TYPES)


class NotIndexedYetError(RetryableError):
    """There are too many payments to be read through for a request, and no index of them yet."""


class Payments(Protocol):
    """Finds what entities have paid."""

    def of(self, entities: Mapping[str, str], more: Sequence[str] = ()) -> pl.DataFrame:
        """Return the payments of any of some entities, by `sequence`.

        Args:
            entities: kind → id.
            more: other kinds, whose ids come beside the columns of `PAYMENT`, the kinds, and the direction
                where there is one.

        Raises:
            NotFoundError: there are no transactions.
        """


class ScannedPayments:
    """See Payments: reads the whole table each time, and keeps nothing.

    Args:
        reader: of the lake.
    """

    def __init__(self, reader: LakeReader) -> None:
        self._reader = reader

    def of(self, entities: Mapping[str, str], more: Sequence[str] = ()) -> pl.DataFrame:
        """See Payments."""
        stored = _transactions(self._reader)
        columns = _columns(stored, entities, more)
        ours = reduce(or_, (pc.field(kind) == entity for kind, entity in entities.items()))
        return self._reader.frame("transactions", columns, ours).sort("sequence")


class NoPayments:
    """See Payments: as long as nothing can be said of them."""

    def of(self, entities: Mapping[str, str], more: Sequence[str] = ()) -> pl.DataFrame:
        """See Payments."""
        return pl.DataFrame(schema={**_PAYMENT_TYPES, **dict.fromkeys([*entities, *more], pl.String)})


class IndexedPayments:
    """See Payments: finds rows by an index of each kind of entities, and reads them from a narrow copy.

    Both follow the table, and lie below it. `build` makes them, piece by piece; until then, and while it
    fails, payments are read from the table. Ids are compared as they are stored, so that two of the same hash
    are never taken for each other. Safe to use from several threads.

    Args:
        reader: gives a reader of the lake.
        kinds: kinds of entities.
    """

    def __init__(self, reader: Callable[[], LakeReader], kinds: Sequence[str]) -> None:
        self._reader, self._kinds = reader, tuple(kinds)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._opened: _Opened | None = None
        self._is_failing = False

    def of(self, entities: Mapping[str, str], more: Sequence[str] = ()) -> pl.DataFrame:
        """See Payments.

        Raises:
            NotIndexedYetError: there are very many payments; says how many of them are indexed.
        """
        opened = self._followed()
        table = opened.table
        columns = _columns(table, entities, [each for each in more if each in table.schema.names])
        # A kind that a payment does not name tells nothing: another one of it may be ours.
        ours = reduce(or_, (pc.field(kind) == entity for kind, entity in entities.items()))
        if opened.lacks(entities):
            rows = self._read_through(opened, columns, ours)
        else:
            rows = opened.at(entities, columns).filter(ours)
        return pl.DataFrame(rows.select(columns)).with_columns(
            pl.lit(None, pl.String).alias(each) for each in more if each not in columns
        )

    def build(self) -> bool:
        """Take in some of what is new; return whether there may be more.

        Raises:
            FlagstreamError: the table cannot be read, or the copy not be written.
        """
        try:
            is_there = self._opened is not None or self._reader().table("transactions") is not None
            has_more = is_there and self._followed().build()
        except BaseException:
            self._is_failing = True
            raise
        self._is_failing = False
        return has_more

    @property
    def missing(self) -> tuple[int, int]:
        """How many numbers of rows are not copied yet, and how many there are; 0 of 0 before the first."""
        opened = self._opened
        return (0, 0) if opened is None else (opened.missing, opened.table.next_number("sequence"))

    def _read_through(self, opened: _Opened, columns: Sequence[str], ours: pc.Expression) -> pa.Table:
        count = opened.table.next_number("sequence")
        if count > _MOST_READ_THROUGH and not self._is_failing:
            share = 1 - opened.missing / count
            raise NotIndexedYetError(
                f"payments are being indexed, {share:.0%} of {count:,} so far: ask again soon"
            )
        with _taken_soon(self._reading, opened.table.place):
            return opened.table.select(columns, ours).sort_by("sequence")

    def _followed(self) -> _Opened:
        reader = self._reader()  # it looks whether the lake is there
        with self._lock:
            opened = self._opened
            if opened is None or self._has_grown(opened.table, reader):
                table = _transactions(reader.anew())
                kinds = [each for each in self._kinds if each in table.schema.names]
                opened = self._opened = _Opened.of(table, kinds)
            else:
                opened.table.refresh()
            return opened

    def _has_grown(self, opened: StoredTable, reader: LakeReader) -> bool:
        """Return whether the table has a column by now of a kind that came with a later contract."""
        missing = [each for each in self._kinds if each not in opened.schema.names]
        return bool(missing) and any(each in _transactions(reader).schema.names for each in missing)


@dataclass(frozen=True)
class _Opened:
    """The table as one handle sees it, with what is made of it.

    Attributes:
        table: the handle.
        kept: the copy.
        indexes: kind → where its ids stand; alerts of an earlier contract may ask for kinds that come then.
    """

    table: StoredTable
    kept: KeptRows
    indexes: dict[str, KeyIndex]

    @classmethod
    def of(cls, table: StoredTable, kinds: Sequence[str]) -> _Opened:
        kept = KeptRows(table, "payments", "sequence", _columns(table, {}, kinds))
        return cls(table, kept, {kind: KeyIndex(table, kind, "sequence") for kind in kinds})

    @property
    def missing(self) -> int:
        """Of the part that is behind most."""
        return max(self.kept.missing, *(each.missing for each in tuple(self.indexes.values())), 0)

    def lacks(self, entities: Mapping[str, str]) -> bool:
        """Whether an index is so far behind that nobody should wait for it."""
        return any(self._index(kind).missing > SPAN for kind in entities)

    def build(self) -> bool:
        return any(each.build() for each in tuple(self.indexes.values())) or self.kept.build()

    def at(self, entities: Mapping[str, str], columns: Sequence[str]) -> pa.Table:
        """Return the payments of some entities, and now and then one of another."""
        ids = {kind: pa.array([entity], pa.string()) for kind, entity in entities.items()}
        found = np.unique(np.concatenate([self._index(kind).places(each) for kind, each in ids.items()]))
        # Alerts of an earlier contract name kinds that this one, and so the copy, does not have.
        is_kept = self.kept.columns.issuperset(columns)
        return self.kept.at(found) if is_kept else self.table.at("sequence", found, columns)

    def _index(self, kind: str) -> KeyIndex:
        found = self.indexes.get(kind)
        return found or self.indexes.setdefault(kind, KeyIndex(self.table, kind, "sequence"))


@contextmanager
def _taken_soon(lock: threading.Lock, table: Place) -> Iterator[None]:
    """Hold a lock; while another thread goes through a large table, nobody waits for it for long."""
    if not lock.acquire(timeout=_LONGEST_WAIT_SECONDS):
        raise NotIndexedYetError(f"rows of {table} are still being read: ask again soon")
    try:
        yield
    finally:
        lock.release()


def _transactions(reader: LakeReader) -> StoredTable:
    stored = reader.table("transactions")
    if stored is None:
        raise NotFoundError("there are no transactions", where=str(reader.place("transactions")))
    return stored


def _columns(table: StoredTable, entities: Mapping[str, str], more: Sequence[str]) -> list[str]:
    unknown = next((kind for kind in entities if kind not in table.schema.names), None)
    if unknown is not None:
        raise NotFoundError("transactions have no such entity", where=unknown)
    found = [*dict.fromkeys([*PAYMENT, *entities, *more])]
    return [*found, DIRECTION] if DIRECTION in table.schema.names and DIRECTION not in found else found
