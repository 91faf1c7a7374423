"""Brings cases up to the alerts that the agent has written: some at a time, each once."""

from __future__ import annotations

import secrets
from datetime import datetime

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.spec import AgentSpec
from streaming.cases.case_store import NOTHING, CaseStore
from streaming.cases.grouping import Grouping, KnownCases
from streaming.definition.contracts import contract_of
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable

_AT_ONCE = 200_000
_COLUMNS = (
    "alert_id", "transaction_id", "outbox_seq", "revision", "severity", "classification", "rules", "amount",
    "currency", "event_time", "created_at", "entities",
)  # fmt: skip


class AlertIntake:
    """Groups alerts that belong to no case yet.

    Args:
        reader: of the lake.
        spec: says how alerts are grouped.
        store: takes what comes of it.
    """

    def __init__(self, reader: LakeReader, spec: AgentSpec, store: CaseStore) -> None:
        self._reader, self._spec, self._store = reader, spec, store
        self._alerts: StoredTable | None = None
        self._grouping: Grouping | None = None

    def group(self, now: datetime) -> int:
        """Group all alerts there are; return how many rows of alerts were new.

        Raises:
            FlagstreamError: a table cannot be read or written, or the contract cannot be used.
        """
        alerts = self._opened()
        if alerts is None:
            return 0
        count, upto = 0, alerts.next_number("outbox_seq")
        first = self._store.grouped_through + 1
        while first < upto:
            below = min(first + _AT_ONCE, upto)
            count += self._group(alerts, first, below, now)
            # Retention may have left nothing of a part, of which then nothing is written.
            first = max(below, self._store.grouped_through + 1)
        return count

    def _opened(self) -> StoredTable | None:
        if self._alerts is None:
            self._alerts = self._reader.anew().table("alerts")
        else:
            self._alerts.refresh()
        return self._alerts

    def _group(self, alerts: StoredTable, first: int, below: int, now: datetime) -> int:
        grouping, action = self._as_spec_says(), secrets.token_hex(12)
        found = _alerts_of(alerts.read("outbox_seq", first, below, _COLUMNS), grouping.entity)
        counts = [0]

        def decide() -> pl.DataFrame:
            # Another process may have been first, and have got less far.
            left = found.filter(pl.col("outbox_seq") > self._store.grouped_through)
            counts[0] = left.height
            if left.height == 0:
                return NOTHING
            memory = self._store.memory
            events = grouping.events(left, KnownCases(memory.cases, memory.members))
            return events.with_columns(pl.lit(now).alias("at"), pl.lit(action).alias("action"))

        return counts[0] if self._store.write(decide, grouped_through=below - 1) else 0

    def _as_spec_says(self) -> Grouping:
        if self._grouping is None:
            cases = self._spec.cases
            entity = cases.entity or contract_of(self._spec).primary_entity
            self._grouping = Grouping(cases, entity, self._spec.name)
        return self._grouping


def _alerts_of(rows: pa.Table, entity: str) -> pl.DataFrame:
    """Return alerts as Grouping takes them."""
    named = pc.map_lookup(rows["entities"], pa.scalar(entity), "first")
    found = pl.DataFrame(rows.drop_columns(["entities"]).append_column("entity_id", named))
    return found.rename({"created_at": "alerted_at"})
