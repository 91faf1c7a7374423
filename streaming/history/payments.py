"""The payments of entities: read from the whole table once, or found by an index that is kept."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import Protocol

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import NotFoundError
from schemas.event_columns import DIRECTION
from streaming.delta.key_index import KeyIndex
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable

PAYMENT = ("sequence", "transaction_id", "event_time", "amount", "currency")


class Payments(Protocol):
    """Finds what entities have paid."""

    def of(self, entities: Mapping[str, str], more: Sequence[str] = ()) -> pl.DataFrame:
        """Return the payments of any of some entities, by `sequence`.

        Args:
            entities: kind → id.
            more: columns beside those of `PAYMENT`, the kinds, and the direction where there is one.

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


class IndexedPayments:
    """See Payments: finds rows by an index of each kind of entities, which follows the table.

    Safe to use from several threads.

    Args:
        reader: of the lake.
    """

    def __init__(self, reader: LakeReader) -> None:
        self._reader, self._lock = reader, threading.Lock()
        self._table: StoredTable | None = None
        self._indexes: dict[str, KeyIndex] = {}

    def of(self, entities: Mapping[str, str], more: Sequence[str] = ()) -> pl.DataFrame:
        """See Payments."""
        with self._lock:
            table = self._followed()
            columns = _columns(table, entities, more)
            indexes = [(self._index(table, kind), kind, entity) for kind, entity in entities.items()]
            parts = [
                pl.DataFrame(index.rows(pa.array([entity], pa.string()), columns).select(columns))
                for index, kind, entity in indexes
            ]
        return pl.concat(parts).unique("sequence", maintain_order=True).sort("sequence")

    def _followed(self) -> StoredTable:
        if self._table is None:
            self._reader = self._reader.anew()
            self._table = _transactions(self._reader)
        else:
            self._table.refresh()
        return self._table

    def _index(self, table: StoredTable, kind: str) -> KeyIndex:
        if kind not in self._indexes:
            self._indexes[kind] = KeyIndex(table, kind, "sequence")
        return self._indexes[kind]


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
