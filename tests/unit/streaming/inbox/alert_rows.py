"""Alerts for lists, as rows of the table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.alert import ALERT_KIND, ALERTS, alert_id
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.rewriting import maintained_alone, rewrite
from streaming.home.settings import Settings

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def row(transaction: str, kind: str = ALERT_KIND, **changes: Any) -> dict[str, Any]:
    """Return one alert, whole, but for its place in publishing order."""
    return {
        "alert_version": 1,
        "alert_id": alert_id("tester", transaction, kind),
        "kind": kind,
        "agent": "tester",
        "transaction_id": transaction,
        "event_time": NOW,
        "created_at": NOW + timedelta(seconds=1),
        "amount": 10.0,
        "currency": "EUR",
        "entities": {"customer": "c1"},
        "score": 0.99,
        "severity": "medium",
        "classification": "needs_review",
        "classification_source": "rules",
        "rules": [],
        "reasons": [{"name": "amount.customer", "contribution": 2.0, "text": "much"}],
        "spec_version": "1.0.0",
        "sequence": int(transaction.lstrip("t") or 0),
        "revision": 1,
        **changes,
    }


def rows_table(rows: Sequence[dict[str, Any]], first: int = 0) -> pa.Table:
    """Return alerts as the table has them; what is not given holds a zero or nothing."""
    whole = [{**_empty(), **each, "outbox_seq": first + at} for at, each in enumerate(rows)]
    plain = [{**each, "entities": list(each["entities"].items())} for each in whole]
    return pa.Table.from_pylist(plain, schema=ALERTS)


def _empty() -> dict[str, Any]:
    """Return a value of each field that must not be null."""
    found: dict[str, Any] = {}
    for field in ALERTS:
        if field.nullable:
            found[field.name] = None
        elif pa.types.is_list(field.type):
            found[field.name] = []
        else:
            found[field.name] = "" if pa.types.is_string(field.type) else 0
    return found


class AlertWriter:
    """Writes alerts into an agent's lake, as its driver does."""

    def __init__(self, settings: Settings, spec: AgentSpec) -> None:
        place = LakeReader(settings.lake(spec.name), spec.tables).place("alerts")
        self.table = LakeTable(place, ALERTS, "tester/epoch", spec.replay_horizon)
        self.table.claim(1 + self.table.epoch)
        self._next, self._batch = self.table.next_number("outbox_seq"), self.table.last_batch("tester/q") + 1

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Commit alerts as one batch."""
        self.table.append(rows_table(rows, self._next), Stamp("tester/q", self._batch))
        self._next, self._batch = self._next + len(rows), self._batch + 1

    def rewrite_without(self, customer: str) -> None:
        """Take out the alerts of a customer, as retention takes out rows."""

        def change(rows: pa.Table) -> pa.Table:
            return rows.filter(pc.not_equal(pc.map_lookup(rows["entities"], "customer", "first"), customer))

        with maintained_alone(self.table.place):
            rewrite(self.table.place, change)
