"""The inbox of one agent: its alerts and their labels in memory, kept up with the lake by what is new there.

Everything here follows from the tables `alerts` and `labels`; after rows were rewritten, as an erasure and
retention do, or the table was restored from an older copy, it is built anew.
"""

from __future__ import annotations

import threading

import polars as pl
import pyarrow as pa

from schemas.spec import AgentSpec
from streaming.delta.lake_reader import LakeReader
from streaming.delta.seen_log import SeenLog
from streaming.delta.stored import StoredTable
from streaming.inbox.alert_columns import COLUMNS, AlertColumns
from streaming.inbox.fields import InboxFields
from streaming.labels.book import LabelBook

_SLICE = 100_000


class Inbox:
    """The alerts of an agent, for lists. Any thread may read `view` and call `refresh`.

    Args:
        reader: of the lake.
        spec: names tables.
        entities: kinds of entities.
    """

    def __init__(self, reader: LakeReader, spec: AgentSpec, entities: tuple[str, ...]) -> None:
        self._reader, self._spec, self.fields = reader, spec, InboxFields(entities)
        self._alerts: StoredTable | None = None
        self._log: SeenLog | None = None
        self._labels: LabelBook | None = None
        self._rewritten = self._version = -1
        self._read = 0
        self._refreshing = threading.Lock()
        self.is_read = False
        self._begin()
        self.view = self._columns.view(self._read)
        self._is_shown = True

    def refresh(self) -> bool:
        """Read what is new; return whether anything was.

        Raises:
            FlagstreamError: a table cannot be read; alerts that were read are there without their labels.
        """
        with self._refreshing:
            changed = self._read_alerts()
            try:
                changed |= self._read_labels()
            finally:
                if changed:
                    self.view = self._columns.view(self._read)
                    self._is_shown = True
            self.is_read = True
            return changed

    def _begin(self) -> None:
        self._columns = AlertColumns(self.fields)
        self._is_shown = False
        self._read = self._labels_read = 0
        self._unlabelled: list[pa.ChunkedArray] = []

    def _read_alerts(self) -> bool:
        table = self._table()
        if table is None or self._log is None:
            return False
        goes_on, version = self._log.goes_on(), table.version
        if goes_on and version == self._version:
            return False
        if not goes_on or table.rewritten_at != self._rewritten:
            self._rewritten = table.rewritten_at
            self._begin()
        end = table.next_number("outbox_seq")
        while self._read < end:
            reached = min(self._read + _SLICE, end)
            rows = table.read("outbox_seq", self._read, reached, COLUMNS)
            self._columns.take(rows)
            self._unlabelled.append(rows["transaction_id"])
            self._read = reached
            self._is_shown = False
        self._version = version
        return not self._is_shown  # a batch without alerts is a commit, too

    def _table(self) -> StoredTable | None:
        if self._alerts is None:
            self._reader = self._reader.anew()
            self._alerts = self._reader.table("alerts")
            self._log = None if self._alerts is None else SeenLog(self._alerts)
        else:
            self._alerts.refresh()
        return self._alerts

    def _read_labels(self) -> bool:
        """An alert may come after the label of its transaction, so new ones are asked about, too."""
        book = self._book()
        if book is None:
            return False
        through, ids = book.refreshed(), self._unlabelled
        if through > self._labels_read:
            ids = [*ids, book.since(self._labels_read, through)["transaction_id"]]
        if not ids:
            return False
        wanted = pl.concat([pl.Series(each.cast(pa.large_string())) for each in ids])
        changed = self._columns.label(book.latest_on(wanted, through))
        self._labels_read, self._unlabelled = through, []
        return changed

    def _book(self) -> LabelBook | None:
        """Where there are no labels yet, no table is made; the first ones are all that there is to read."""
        if self._labels is None:
            if self._reader.anew().table("labels") is None:
                self._unlabelled = []
                return None
            place = self._reader.place("labels")
            self._labels = LabelBook(place, retention=self._spec.replay_horizon)
        return self._labels
