"""Open tables that learn of commits which were made without them."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

import pyarrow as pa
from deltalake import DeltaTable

_YOUNG_SECONDS = 60.0


class Handle:
    """One open table. Safe to use from several threads."""

    def __init__(self, table: DeltaTable) -> None:
        self._table, self._reached = table, table.version()
        self._lock = threading.RLock()
        self._stamps: tuple[int, dict[str, int | None]] = (-1, {})
        self._files: tuple[int, pa.Table | None] = (-1, None)
        self._seen_now()

    @property
    def is_old(self) -> bool:
        """Whether others may have changed so much since that a commit must not go on from it.

        Entries of a log are removed once they are an hour old. The clock is one that goes on while the
        machine sleeps.
        """
        return abs(time.time() - self._refreshed_at) > _YOUNG_SECONDS

    def refresh(self) -> None:
        """See what others have committed since."""
        with self._lock:
            self._table.update_incremental()
        self._seen_now()

    def _seen_now(self) -> None:
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

    @property
    def opened(self) -> DeltaTable:
        """The table as it was last read, perhaps behind: its columns and properties."""
        return self._table

    def committed(self, version: int, transactions: Mapping[str, int], files: pa.Table) -> None:
        """Hear of a commit: all before it are known by then.

        What is known of the version before it goes on from there, since Delta's library takes longer for each
        answer with every entry of the log.

        Args:
            version: in which it is.
            transactions: of applications, that it sets.
            files: that it adds, as `files` says them.
        """
        with self._lock:
            before = self.version
            self._reached = version
            if version == before + 1:
                self._go_on(before, transactions, files)
        self._seen_now()

    def _go_on(self, before: int, transactions: Mapping[str, int], files: pa.Table) -> None:
        if self._stamps[0] == before:
            self._stamps = (before + 1, {**self._stamps[1], **transactions})
        known = self._files[1]
        if self._files[0] == before and known is not None:
            # Columns without any statistics are left out, or have no type.
            self._files = (before + 1, pa.concat_tables([known, files], promote_options="permissive"))

    def transaction(self, app_id: str) -> int | None:
        """Return the highest batch that an application has committed, None for none.

        Delta's library reads the whole log for each answer, which stays what it is until the next version.
        """
        with self._lock:
            version, known = self._stamps
            if version != self.version:
                version, known = self.table().version(), {}
                self._stamps = (version, known)
            if app_id not in known:
                known[app_id] = self.table().transaction_version(app_id)
            return known[app_id]

    def files(self) -> pa.Table:
        """Return the table's files, a row each, with `path`, `num_records` and statistics by column.

        Delta's library makes them anew for each answer; they stay what they are until the next version.
        """
        with self._lock:
            version, files = self._files
            if files is None or version != self.version:
                table = self.table()
                files = pa.table(table.get_add_actions(flatten=True))
                self._files = (table.version(), files)
            return files
