"""Answers about the entities of one agent, from its payments, its labels and its alerts in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, cast

import polars as pl
import pyarrow as pa
from pydantic import BaseModel, Field

from schemas.errors import NotFoundError
from schemas.spec import AgentSpec
from streaming.arrays.compilation import Ints
from streaming.delta.lake_reader import LakeReader
from streaming.history.entity_figures import by_currency, neighbours_of
from streaming.history.explain import normal_of
from streaming.history.payments import Payments
from streaming.inbox.inbox import Inbox
from streaming.inbox.view import InboxView
from streaming.labels.book import LabelBook
from streaming.serve.alert_lists import AlertRow

_MOST_CURRENCIES, _NEWEST = 20, 20


class CurrencyFigures(BaseModel):
    """What is usual in one currency."""

    currency: str | None
    payments: int
    median_amount: float | None
    largest_amount: float | None


class EntityPage(BaseModel):
    """What is usual for an entity, and its newest alerts."""

    kind: str
    id: str
    payments: int
    first: datetime | None
    last: datetime | None
    median_days_between: float | None
    currencies: list[CurrencyFigures] = Field(description="the one with most payments first, at most 20")
    alerts: int = Field(description="that name it")
    known_frauds: int = Field(description="its payments that are labelled as frauds")
    newest_alerts: list[AlertRow]


class EntityPayment(BaseModel):
    """One payment of an entity."""

    transaction_id: str
    time: datetime
    amount: float
    currency: str | None
    sequence: int
    entities: dict[str, str]
    alerted: bool
    is_fraud: bool | None = Field(description="by the label in force; null without one")


class EntityNeighbour(BaseModel):
    """An entity that has payments in common with another one."""

    kind: str
    id: str
    payments: int = Field(description="in common")
    first: datetime
    last: datetime
    alerts: int = Field(description="in common")


class EntityPages:
    """Answers about entities. Safe to use from several threads.

    Args:
        spec: names tables.
        kinds: kinds of entities.
        inbox: of the agent.
        payments: finds those of an entity.
    """

    def __init__(self, spec: AgentSpec, kinds: Sequence[str], inbox: Inbox, payments: Payments) -> None:
        self._spec, self._kinds, self._inbox, self._payments = spec, tuple(kinds), inbox, payments

    def page(self, reader: LakeReader, kind: str, entity: str) -> EntityPage:
        """Return what is usual for an entity.

        Raises:
            NotFoundError: nothing of it is stored.
        """
        rows, view = self._of(kind, entity), self._inbox.view
        usual, alerts = normal_of(kind, entity, rows), self._alerts(view, kind, entity)
        return EntityPage(
            kind=kind,
            id=entity,
            payments=usual.payments,
            first=usual.first,
            last=cast("datetime | None", rows["event_time"].max()),
            median_days_between=usual.median_days_between,
            currencies=[
                CurrencyFigures(
                    currency=currency, payments=each.payments, median_amount=each.median_amount,
                    largest_amount=each.largest_amount,
                )
                for currency, each in by_currency(kind, entity, rows)[:_MOST_CURRENCIES]
            ],
            alerts=len(alerts),
            known_frauds=sum(self._labels(reader, rows["transaction_id"]).values()),
            newest_alerts=[AlertRow(**each) for each in view.alerts(alerts[::-1][:_NEWEST])],
        )  # fmt: skip

    def history(
        self, reader: LakeReader, kind: str, entity: str, limit: int, before: int | None
    ) -> list[EntityPayment]:
        """Return payments of an entity, the newest first.

        Raises:
            NotFoundError: nothing of it is stored.
        """
        rows = self._of(kind, entity)
        rows = rows if before is None else rows.filter(pl.col("sequence") < before)
        rows = rows.sort("sequence", descending=True).head(limit)
        labels = self._labels(reader, rows["transaction_id"])
        alerted = self._alerted(kind, entity)
        return [self._payment(row, alerted, labels) for row in rows.iter_rows(named=True)]

    def neighbours(self, kind: str, entity: str, limit: int) -> list[EntityNeighbour]:
        """Return whom an entity has payments in common with.

        Raises:
            NotFoundError: nothing of it is stored.
        """
        others = [each for each in self._kinds if each != kind]
        found = neighbours_of(self._of(kind, entity), others, limit)
        alerts = self._alerts_with(kind, entity, others)
        return [
            EntityNeighbour(
                kind=each.kind, id=each.entity, payments=each.payments, first=each.first, last=each.last,
                alerts=alerts[each.kind, each.entity],
            )
            for each in found
        ]  # fmt: skip

    def _of(self, kind: str, entity: str) -> pl.DataFrame:
        if kind not in self._kinds:
            raise NotFoundError(f"there are the kinds {', '.join(self._kinds)}", where="kind")
        rows = self._payments.of({kind: entity}, [each for each in self._kinds if each != kind])
        if rows.height == 0:
            raise NotFoundError(f"no payments of this {kind} are stored", where="entity_id")
        return rows

    def _alerts(self, view: InboxView, kind: str, entity: str) -> Ints:
        return view.find(self._inbox.fields.of_entity(kind), entity)

    def _alerted(self, kind: str, entity: str) -> frozenset[str]:
        view = self._inbox.view
        rows = pa.array(self._alerts(view, kind, entity))
        return frozenset(view.texts["transaction"].take(rows).to_pylist())

    def _alerts_with(self, kind: str, entity: str, others: Sequence[str]) -> Counter[tuple[str, str]]:
        view = self._inbox.view
        rows = pa.array(self._alerts(view, kind, entity))
        found: Counter[tuple[str, str]] = Counter()
        for other in others:
            ids: Iterable[Any] = view.texts[self._inbox.fields.of_entity(other)].take(rows).to_pylist()
            found.update((other, each) for each in ids if each is not None)
        return found

    def _labels(self, reader: LakeReader, transactions: pl.Series) -> dict[str, bool]:
        """Return whether each labelled transaction is a fraud, by the label in force."""
        if reader.table("labels") is None:
            return {}
        book = LabelBook(reader.place("labels"), retention=self._spec.replay_horizon)
        found = book.latest_on(transactions, book.refreshed())
        return dict(found.select("transaction_id", "is_fraud").iter_rows())

    def _payment(
        self, row: dict[str, Any], alerted: frozenset[str], labels: dict[str, bool]
    ) -> EntityPayment:
        transaction = row["transaction_id"]
        return EntityPayment(
            transaction_id=transaction,
            time=row["event_time"],
            amount=row["amount"],
            currency=row["currency"],
            sequence=row["sequence"],
            entities={kind: row[kind] for kind in self._kinds if row[kind] is not None},
            alerted=transaction in alerted,
            is_fraud=labels.get(transaction),
        )
