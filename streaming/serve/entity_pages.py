"""Answers about the entities of one agent, from its payments, its labels and its alerts in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, cast

import polars as pl
from pydantic import BaseModel, Field

from schemas.errors import NotFoundError
from schemas.event_columns import DIRECTION, REFUND
from streaming.arrays.compilation import Ints
from streaming.history.entity_figures import by_currency, neighbours_of
from streaming.history.explain import normal_of
from streaming.history.payments import NoPayments, NotIndexedYetError, Payments
from streaming.inbox.inbox import Inbox
from streaming.inbox.view import InboxView
from streaming.serve.alert_lists import AlertRow
from streaming.serve.labels_found import FoundLabels

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
    payments: int = Field(description="refunds are none; so in all that follows up to `currencies`")
    first: datetime | None
    last: datetime | None
    median_days_between: float | None
    currencies: list[CurrencyFigures] = Field(description="the one with most payments first, at most 20")
    refunds: int
    refund_currencies: list[CurrencyFigures] = Field(description="what is usual of its refunds, likewise")
    alerts: int = Field(description="that name it")
    known_frauds: int = Field(description="its payments that are labelled as frauds")
    newest_alerts: list[AlertRow]


class EntityPayment(BaseModel):
    """One payment of an entity."""

    transaction_id: str
    time: datetime
    amount: float
    currency: str | None
    direction: str | None = Field(description="payment or refund, where the contract knows refunds")
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
        kinds: kinds of entities.
        inbox: of the agent.
        payments: finds those of an entity.
        labels: of transactions.
    """

    def __init__(self, kinds: Sequence[str], inbox: Inbox, payments: Payments, labels: FoundLabels) -> None:
        self._kinds, self._inbox, self._payments, self._labels = tuple(kinds), inbox, payments, labels

    def of(self, kind: str, entity: str) -> KnownEntity:
        """Read what is stored of an entity.

        Raises:
            NotFoundError: nothing is.
        """
        if kind not in self._kinds:
            raise NotFoundError(f"there are the kinds {', '.join(self._kinds)}", where="kind")
        others = tuple(each for each in self._kinds if each != kind)
        rows = self._payments.of({kind: entity}, others)
        if rows.height == 0:
            raise NotFoundError(f"no payments of this {kind} are stored", where="entity_id")
        return KnownEntity(kind, entity, rows, self._inbox.view, others, self._labels)

    def meanwhile(self, kind: str, entity: str) -> tuple[KnownEntity, str | None]:
        """Return what is known of an entity, and why nothing can be said of its payments yet.

        Raises:
            NotFoundError: see of.
        """
        try:
            return self.of(kind, entity), None
        except NotIndexedYetError as wait:
            others = tuple(each for each in self._kinds if each != kind)
            rows = NoPayments().of({kind: entity}, others)
            return KnownEntity(kind, entity, rows, self._inbox.view, others, self._labels), str(wait)


@dataclass(frozen=True)
class KnownEntity:
    """One entity, as it was when its payments were read.

    Attributes:
        kind: of entity.
        id: its id.
        payments: see streaming.history.payments; refunds are among them.
        view: the alerts.
        others: the other kinds.
        labels: of transactions.
    """

    kind: str
    id: str
    payments: pl.DataFrame
    view: InboxView
    others: tuple[str, ...]
    labels: FoundLabels

    def page(self) -> EntityPage:
        """Return what is usual for it."""
        paid, refunded = self._parted
        usual = normal_of(self.kind, self.id, paid)
        return EntityPage(
            kind=self.kind,
            id=self.id,
            payments=usual.payments,
            first=usual.first,
            last=cast("datetime | None", paid["event_time"].max()),
            median_days_between=usual.median_days_between,
            currencies=self._usual(paid),
            refunds=refunded.height,
            refund_currencies=self._usual(refunded),
            alerts=len(self._alerts),
            known_frauds=sum(self._latest.values()),
            newest_alerts=[AlertRow(**each) for each in self.view.alerts(self._alerts[::-1][:_NEWEST])],
        )

    def history(self, limit: int, before: int | None) -> list[EntityPayment]:
        """Return payments, the newest first.

        Args:
            limit: how many.
            before: `sequence` before which they were stored, None for the newest.
        """
        rows = self.payments if before is None else self.payments.filter(pl.col("sequence") < before)
        rows = rows.sort("sequence", descending=True).head(limit)
        alerted = frozenset(self._texts("transaction"))
        return [self._payment(row, alerted) for row in rows.iter_rows(named=True)]

    def neighbours(self, limit: int) -> list[EntityNeighbour]:
        """Return whom it has payments in common with, at most `limit` of each kind."""
        alerts = self._alerts_with()
        return [
            EntityNeighbour(
                kind=each.kind, id=each.entity, payments=each.payments, first=each.first, last=each.last,
                alerts=alerts[each.kind, each.entity],
            )
            for each in neighbours_of(self.payments, self.others, limit)
        ]  # fmt: skip

    @property
    def _parted(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Payments and refunds: amounts of both together say nothing."""
        if DIRECTION not in self.payments.columns:
            return self.payments, self.payments.clear()
        refund = (pl.col(DIRECTION) == REFUND).fill_null(value=False)
        return self.payments.filter(~refund), self.payments.filter(refund)

    def _usual(self, rows: pl.DataFrame) -> list[CurrencyFigures]:
        return [
            CurrencyFigures(
                currency=currency, payments=each.payments, median_amount=each.median_amount,
                largest_amount=each.largest_amount,
            )
            for currency, each in by_currency(self.kind, self.id, rows)[:_MOST_CURRENCIES]
        ]  # fmt: skip

    @cached_property
    def _alerts(self) -> Ints:
        return self.view.find(self.view.fields.of_entity(self.kind), self.id)

    @cached_property
    def _latest(self) -> dict[str, bool]:
        return self.labels.latest(self.payments["transaction_id"])

    def _texts(self, field: str) -> list[str | None]:
        return self.view.texts_of(field, self._alerts)

    def _alerts_with(self) -> Counter[tuple[str, str]]:
        found: Counter[tuple[str, str]] = Counter()
        for other in self.others:
            ids = self._texts(self.view.fields.of_entity(other))
            found.update((other, each) for each in ids if each is not None)
        return found

    def _payment(self, row: dict[str, Any], alerted: frozenset[str | None]) -> EntityPayment:
        transaction = row["transaction_id"]
        return EntityPayment(
            transaction_id=transaction,
            time=row["event_time"],
            amount=row["amount"],
            currency=row["currency"],
            direction=row.get(DIRECTION),
            sequence=row["sequence"],
            entities={kind: row[kind] for kind in (self.kind, *self.others) if row[kind] is not None},
            alerted=transaction in alerted,
            is_fraud=self._latest.get(transaction),
        )
