"""The labels of one agent's lake: found by an index for pages and endpoints, not by reading all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import polars as pl
from pydantic import BaseModel

from schemas.spec import AgentSpec
from streaming.delta.lake_reader import LakeReader
from streaming.labels.book import LabelBook

_SHOWN = ["transaction_id", "is_fraud", "kind", "decided_at", "decided_by", "recorded_at", "source"]


class LabelOfTransaction(BaseModel):
    """What somebody has found out about a transaction."""

    transaction_id: str
    is_fraud: bool
    kind: str | None
    decided_at: datetime
    decided_by: str
    recorded_at: datetime
    source: str


class FoundLabels:
    """Finds labels by their transactions. Safe to use from several threads.

    Args:
        reader: gives a reader of the lake.
        spec: names tables.
    """

    def __init__(self, reader: Callable[[], LakeReader], spec: AgentSpec) -> None:
        self._reader, self._spec, self._lock = reader, spec, threading.Lock()
        self._opened: LabelBook | None = None

    def book(self) -> LabelBook | None:
        """Return the book of labels, None where there is no table of them yet: none is made."""
        with self._lock:
            reader = self._reader()  # it looks whether the lake is there
            if self._opened is None and reader.anew().table("labels") is not None:
                self._opened = LabelBook(reader.place("labels"), retention=self._spec.replay_horizon)
            return self._opened

    def of(self, transaction: str) -> list[LabelOfTransaction]:
        """Return all labels of a transaction, in order of recording."""
        book = self.book()
        return [] if book is None else _shown(book.all_on(transaction))

    def in_force(self, transaction: str) -> LabelOfTransaction | None:
        """Return the label that counts of a transaction, None without any."""
        book = self.book()
        return None if book is None else next(iter(_shown(book.in_force_on(transaction))), None)

    def latest(self, transactions: pl.Series) -> dict[str, bool]:
        """Return whether each labelled transaction is a fraud, by the label in force."""
        book = self.book()
        if book is None:
            return {}
        found = book.latest_on(transactions, book.refreshed())
        return dict(found.select("transaction_id", "is_fraud").iter_rows())


def _shown(labels: pl.DataFrame) -> list[LabelOfTransaction]:
    return [LabelOfTransaction(**each) for each in labels.select(_SHOWN).to_dicts()]
