"""Which alerts are about refunds: what a case comes to has them apart from payments."""

from __future__ import annotations

import polars as pl
import pyarrow.compute as pc

from schemas.event_columns import DIRECTION, REFUND
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable

NO_REFUNDS = pl.Series("outbox_seq", [], pl.Int64)


class RefundAlerts:
    """The alerts about refunds, as the table of alerts grows. Used by one thread at a time.

    Alerts that retention has taken out before they were read count as payments.

    Args:
        reader: of the lake.
    """

    def __init__(self, reader: LakeReader) -> None:
        self._reader = reader
        self._alerts: StoredTable | None = None
        self._next, self._places = 0, NO_REFUNDS

    def places(self) -> pl.Series:
        """Return the `outbox_seq` of each, Int64[n], as of now; of the table only what is new is read.

        Raises:
            FlagstreamError: the alerts cannot be read.
        """
        if self._alerts is None:
            self._alerts = self._reader.anew().table("alerts")
        else:
            self._alerts.refresh()
        # The table has no such column before an alert is written by code that knows refunds.
        if self._alerts is not None and DIRECTION in self._alerts.schema.names:
            self._read_on(self._alerts)
        return self._places

    def _read_on(self, alerts: StoredTable) -> None:
        upto = alerts.next_number("outbox_seq")
        if upto <= self._next:
            return
        rows = alerts.read("outbox_seq", self._next, upto, [DIRECTION])
        found = rows.filter(pc.equal(rows[DIRECTION], REFUND))["outbox_seq"]
        self._places = pl.concat([self._places, pl.Series("outbox_seq", found, pl.Int64)])
        self._next = upto
