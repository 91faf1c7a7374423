"""Open tables that learn of commits which were made without them."""

from __future__ import annotations

import threading
import time

import pyarrow as pa
from deltalake import DeltaTable

_YOUNG_SECONDS = 60.0


class Handle:
    """One open table. Safe to use from several threads."""

    def __init__(self, table: DeltaTable) -> None:
        self._table, self._reached = table, table.version()
        self._lock = threading.Lock()
        self._stamps: tuple[int, dict[str, int | None]] = (-1, {})
        self._files: tuple[int, pa.Table | None] = (-1, None)
        self.refreshed()

    @property
    def is_old(self) -> bool:
        """Whether others may have changed so much since that a commit must not go on from it.

        Entries of a log are removed once they are an hour old. The clock is one that goes on while the
        machine sleeps.
        """
        return abs(time.time() - self._refreshed_at) > _YOUNG_SECONDS

    def refreshed(self) -> None:
        """Say that the table was just seen as it is."""
        self._refreshed_at = time.time()

    @property
    def version(self) -> int:
        """The version last seen, or committed."""
        return max(self._reached, self._table.version())

    def table(self) -> DeltaTable:
        """Return the table as it is after the last commit that it was told of."""
        with self._lock:
            if self._table.version() < self._reached:
                self._table.update_incremental()
            return self._table

    def committed(self, version: int) -> None:
        """Hear of a commit: all before it are known by then."""
        self._reached = version
        self.refreshed()

    def transaction(self, app_id: str) -> int | None:
        """Return the highest batch that an application has committed, None for none.

        Delta's library reads the whole log for each answer, which stays what it is until the next version.
        """
        table = self.table()
        version = table.version()  # read first: an answer of a later one is kept where nobody looks again
        if self._stamps[0] != version:
            self._stamps = (version, {})
        known = self._stamps[1]
        if app_id not in known:
            known[app_id] = table.transaction_version(app_id)
        return known[app_id]

    def files(self) -> pa.Table:
        """Return the table's files, a row each, with `path`, `num_records` and statistics by column.

        Delta's library makes them anew for each answer; they stay what they are until the next version.
        """
        table = self.table()
        version, (known, files) = table.version(), self._files
        if files is None or known != version:
            files = pa.table(table.get_add_actions(flatten=True))
            self._files = (version, files)
        return files
