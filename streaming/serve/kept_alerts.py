"""Single alerts out of very many: read where they stand, from copies of the table."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.errors import NotFoundError
from streaming.arrays.compilation import Ints
from streaming.delta.kept_rows import FEW_LONG, KeptRows
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable


class KeptAlerts:
    """Finds revisions of alerts by their place in the outbox. Safe to use from several threads.

    `build` copies them, piece by piece; what is not copied yet is read from the table.

    Args:
        reader: gives a reader of the lake.
    """

    def __init__(self, reader: Callable[[], LakeReader]) -> None:
        self._reader, self._lock = reader, threading.Lock()
        self._opened: tuple[StoredTable, KeptRows] | None = None

    def at(self, places: Ints) -> pa.Table:
        """Return whole revisions in their order, without those that are gone.

        Args:
            places: their `outbox_seq`, int64[n] in any order.

        Raises:
            NotFoundError: there are no alerts.
        """
        return self._followed().at(np.unique(places))

    def reasons(self, places: Ints) -> Mapping[int, list[dict[str, Any]]]:
        """Return `outbox_seq` → reasons of revisions; see at."""
        found = self._followed().at(np.unique(places), ["reasons"])
        return dict(zip(found["outbox_seq"].to_pylist(), found["reasons"].to_pylist(), strict=True))

    def build(self) -> bool:
        """Copy some of what is new; return whether there may be more.

        Raises:
            FlagstreamError: the table cannot be read, or the copy not be written.
        """
        if self._opened is None and self._reader().table("alerts") is None:
            return False
        return self._followed().build()

    @property
    def missing(self) -> tuple[int, int]:
        """How many are not copied yet, and how many there are; 0 of 0 while there are none."""
        if self._opened is None:
            return 0, 0
        table, kept = self._opened
        return kept.missing, table.next_number("outbox_seq")

    def _followed(self) -> KeptRows:
        reader = self._reader()  # it looks whether the lake is there
        with self._lock:
            if self._opened is None:
                table = reader.anew().table("alerts")
                if table is None:
                    raise NotFoundError("no alert of this id", where="alert_id")
                self._opened = table, KeptRows(table, "alerts", "outbox_seq", table.schema.names, FEW_LONG)
            else:
                self._opened[0].refresh()
            return self._opened[1]
