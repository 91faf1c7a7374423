"""Alerts and cases made up for tests: what a lake's alerts table would hold, and a book over it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from schemas.alert import ALERTS
from schemas.spec import AgentSpec
from streaming.cases.book import CaseBook
from streaming.cases.case_frames import MEMBERS
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.testing.live_lake import DAY, agent

GROUPED = pl.Schema({name: kind for name, kind in MEMBERS.items() if name not in ("number", "at", "case_id")})
ALERT_COLUMNS = pl.Schema({**GROUPED, "entity_id": pl.String()})


def alert_row(number: int, customer: str | None = "c1", minutes: float = 0, **more: Any) -> dict[str, Any]:
    """Return an alert as grouping takes it, the number its outbox_seq."""
    at = DAY + timedelta(minutes=minutes)
    return {
        "alert_id": f"{number:032x}",
        "transaction_id": f"t{number}",
        "outbox_seq": number,
        "revision": 1,
        "severity": "high",
        "classification": "needs_review",
        "rules": [],
        "amount": 10.0,
        "currency": "EUR",
        "event_time": at,
        "alerted_at": at,
        "entity_id": customer,
        **more,
    }


def alert_frame(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Return alerts as grouping takes them."""
    return pl.DataFrame(rows, schema=ALERT_COLUMNS)


@dataclass
class Desk:
    """A lake with alerts that a test gives it, a clock that it moves, and books over it."""

    home: Path
    changes: dict[str, Any] = field(default_factory=dict)
    now: datetime = DAY + timedelta(days=1)
    written: int = 0

    @property
    def settings(self) -> Settings:
        """Those of the home."""
        return Settings.load(self.home, {})

    @property
    def spec(self) -> AgentSpec:
        """The agent's."""
        return agent(**self.changes)

    def book(self) -> CaseBook:
        """Return a book of its own, as another process has one."""
        return CaseBook(PlacedAgent(self.settings, self.spec), lambda: self.now)

    def grouped(self) -> CaseBook:
        """Return a book that is brought up to the alerts."""
        book = self.book()
        book.group()
        return book

    def alert(self, *rows: dict[str, Any]) -> None:
        """Write alerts as the agent does, in one commit."""
        place = self.settings.lake(self.spec.name) / self.spec.tables.alerts
        table = LakeTable(place, ALERTS, "tester/epoch", timedelta(days=30))
        table.claim(1 + table.epoch)
        stored = pa.Table.from_pylist([_stored(each) for each in rows], ALERTS)
        table.append(stored, Stamp("tester/q", self.written))
        self.written += 1


def _stored(row: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {
        field.name: [] if pa.types.is_list(field.type) else _NOTHING.get(field.type) for field in ALERTS
    }
    customer, at = row["entity_id"], row["alerted_at"]
    known = {name: value for name, value in row.items() if name in ALERTS.names}
    return {**plain, "entities": [("customer", customer)] if customer else [], **known, "created_at": at}


_NOTHING: dict[pa.DataType, Any] = {pa.string(): "", pa.int64(): 0, pa.int32(): 1, pa.float64(): 0.5}
