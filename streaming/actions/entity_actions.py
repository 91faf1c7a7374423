"""What the planning agent may ask about entities and alerts, answered from Delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from agent.planning.actions import ActionResult
from schemas.errors import NotFoundError
from streaming.actions.query import plain
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.history.entity_figures import by_currency
from streaming.history.explain import find_alert, normal_of
from streaming.history.payments import Payments, ScannedPayments
from streaming.history.similar import COMPARED, most_alike
from streaming.labels.book import LabelBook

_MOMENT, _HOUR = frozenset({"event_time"}), frozenset({"event_hour"})
_MOST_CURRENCIES = 20
_REVEALED = {
    "transaction_id": frozenset({"transaction_id"}),
    "event_time": _MOMENT,
    "hour": _HOUR,
    "first": _MOMENT,
    "last": _MOMENT,
    "amount": frozenset({"amount"}),
    "median_amount": frozenset({"amount"}),
    "largest_amount": frozenset({"amount"}),
    "currency": frozenset({"currency"}),
    "score": frozenset({"score"}),
    "reason": frozenset({"reasons"}),
    "rules": frozenset({"rules"}),
}


class EntityActions:
    """Looks entities and alerts up.

    Args:
        agent: whose tables are read.
        entities: kinds of entities.
        payments: finds those of an entity; by default the whole table is read each time.
    """

    def __init__(self, agent: HasLake, entities: Sequence[str], payments: Payments | None = None) -> None:
        self._agent, self._entities = agent, tuple(entities)
        self._payments_found = payments

    def profile(self, entity: str, identifier: str) -> ActionResult:
        """Say what is usual for an entity, how often it was alerted and how often its payments were fraud.

        Amounts are those in the currency that most of its payments are in; where there are several, each has
        a row of its own.
        """
        rows = self._payments(entity, identifier, [])
        usual, by_currency = normal_of(entity, identifier, rows), _by_currency(entity, identifier, rows)
        facts = {
            "id": identifier,
            "payments": usual.payments,
            "first": usual.first,
            "last": rows["event_time"].max(),
            **{name: value for name, value in by_currency[0].items() if name != "payments"},
            "median_days_between": usual.median_days_between,
            "alerts": self._alerted(rows).height,
            "known_frauds": self._frauds(rows),
        }
        values = {name: plain(value) for name, value in facts.items()}
        listed = by_currency[:_MOST_CURRENCIES] if len(by_currency) > 1 else ()
        return ActionResult(values, listed, self._reveals(values, entity))

    def history(self, entity: str, identifier: str, limit: int) -> ActionResult:
        """List an entity's newest payments by order of processing, the newest first."""
        others = [name for name in self._entities if name != entity]
        rows = self._payments(entity, identifier, others).sort("sequence", descending=True).head(limit)
        alerted = set(self._alerted(rows)["transaction_id"])
        listed = tuple(
            {
                "transaction_id": row["transaction_id"],
                "event_time": plain(row["event_time"]),
                "hour": plain(row["event_time"].replace(minute=0, second=0, microsecond=0)),
                "amount": plain(row["amount"]),
                "currency": row["currency"],
                **{name: row[name] for name in others},
                "alerted": row["transaction_id"] in alerted,
            }
            for row in rows.iter_rows(named=True)
        )
        return ActionResult({"row_count": len(listed)}, listed, self._reveals(_names(listed), entity))

    def similar(self, wanted: str, limit: int) -> ActionResult:
        """List the alerts most like one; see streaming.history.similar."""
        reader = self._reader()
        one = find_alert(reader, wanted)
        stored = reader.table("alerts")
        assert stored is not None, "find_alert has read it"
        others = stored.select(
            COMPARED, (pc.field("revision") == 1) & (pc.field("alert_id") != one["alert_id"])
        )
        listed = tuple(_alert(*each) for each in most_alike(one, others.to_pylist(), limit))
        facts = {"alert_id": one["alert_id"], "row_count": len(listed)}
        return ActionResult(facts, listed, self._reveals(_names(listed), ""))

    def _reader(self) -> LakeReader:
        """Each question is answered by the tables as they are then."""
        return LakeReader.of(self._agent)

    def _payments(self, entity: str, identifier: str, more: Sequence[str]) -> pl.DataFrame:
        rows = self._found().of({entity: identifier}, more)
        if rows.height == 0:
            raise NotFoundError(f"no payments of this {entity} are stored", where=identifier)
        return rows

    def _found(self) -> Payments:
        return self._payments_found or ScannedPayments(self._reader())

    def _alerted(self, rows: pl.DataFrame) -> pl.DataFrame:
        first = (pc.field("revision") == 1) & pc.field("transaction_id").isin(_ids(rows))
        return self._reader().frame("alerts", ["transaction_id"], first)

    def _frauds(self, rows: pl.DataFrame) -> int:
        reader = self._reader()
        if reader.table("labels") is None:
            return 0
        book = LabelBook(reader.place("labels"), retention=self._agent.spec.replay_horizon)
        frauds = pl.DataFrame(book.latest()).filter(pl.col("is_fraud"))
        return frauds.join(rows, on="transaction_id", how="semi").height

    def _reveals(self, names: Sequence[str] | dict[str, Any], entity: str) -> dict[str, frozenset[str]]:
        known = {**_REVEALED, **{name: frozenset({f"entities.{name}"}) for name in self._entities}}
        if entity:
            known["id"] = frozenset({f"entities.{entity}"})
        return {name: known[name] for name in names if name in known}


def _by_currency(entity: str, identifier: str, rows: pl.DataFrame) -> tuple[dict[str, Any], ...]:
    return tuple(
        {
            "currency": currency,
            "payments": usual.payments,
            "median_amount": plain(usual.median_amount),
            "largest_amount": plain(usual.largest_amount),
        }
        for currency, usual in by_currency(entity, identifier, rows)
    )


def _ids(rows: pl.DataFrame) -> pa.Array:
    return pa.array(rows["transaction_id"].to_list(), pa.string())


def _names(rows: tuple[dict[str, Any], ...]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _alert(row: Mapping[str, Any], distance: float) -> dict[str, Any]:
    return {
        "alert_id": row["alert_id"],
        "transaction_id": row["transaction_id"],
        "hour": plain(row["event_time"].replace(minute=0, second=0, microsecond=0)),
        "amount": plain(row["amount"]),
        "currency": row["currency"],
        "score": plain(row["score"]),
        "severity": row["severity"],
        "classification": row["classification"],
        "reason": row["reasons"][0]["name"] if row["reasons"] else None,
        "rules": " ".join(row["rules"]),
        **dict(row["entities"]),
        "distance": round(distance, 6),
    }
