"""Lists of alerts, as clients ask for them and as they are answered."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Generic, TypeVar

from pydantic import BaseModel, Field

from schemas.errors import ConfigurationError, nearest
from schemas.instants import Clock, utc_now
from streaming.inbox.columns import Chosen
from streaming.inbox.cursor import Cursor, Order
from streaming.inbox.fields import Kind
from streaming.inbox.filter_language import parse_filter
from streaming.inbox.inbox import Inbox
from streaming.inbox.view import InboxView

_MOST_KEPT = 16

Found = TypeVar("Found")


class AlertRow(BaseModel):
    """One alert of a list, at its newest revision."""

    alert_id: str
    transaction_id: str
    time: datetime = Field(description="of the event")
    created: datetime = Field(description="when it was raised")
    amount: float
    currency: str | None
    direction: str | None = Field(description="payment or refund, where the contract knows refunds")
    score: float
    severity: str | None
    classification: str | None
    source: str | None = Field(description="who classified it: llm or rules")
    fallback: str | None = Field(description="why the model did not classify it")
    label: str | None = Field(description="what is known of the transaction: fraud, genuine or none")
    kind: str | None
    version: str | None = Field(description="of the spec that decided it")
    reason: str | None = Field(description="the largest part of the score")
    rules: list[str]
    entities: dict[str, str]
    sequence: int
    revision: int
    outbox_seq: int


class AlertPage(BaseModel):
    """A page of alerts, and what there is of all that the filter chooses."""

    alerts: list[AlertRow]
    total: int = Field(description="alerts that the filter chooses")
    next: str | None = Field(description="cursor of the next page; null where there is none")
    facets: dict[str, dict[str, int]] = Field(description="field → value → alerts, the most frequent first")
    outbox_seq: int = Field(description="of the first revision that is not in the list yet")


class FilterField(BaseModel):
    """A field that alerts are filtered by."""

    name: str
    kind: Kind
    meaning: str
    is_facet: bool


class AlertLists:
    """Answers for lists of one agent's alerts. Safe to use from several threads.

    Args:
        inbox: of the agent.
        clock: current time, timezone-aware.
    """

    def __init__(self, inbox: Inbox, clock: Clock = utc_now) -> None:
        self._inbox, self._clock = inbox, clock
        # Pages of one list follow each other, and many people ask for the same one.
        self._choices, self._pages = _OfView[Chosen](), _OfView[AlertPage]()

    def page(
        self, filter_: str, order: Order, cursor: str | None, limit: int, facets: Sequence[str]
    ) -> AlertPage:
        """Return a page, which nobody changes: the same is given as long as the alerts are the same.

        Raises:
            ConfigurationError: the filter, the cursor or a facet cannot be used.
        """
        view, asked = self._inbox.view, _PageAsked(filter_, order, cursor, limit, tuple(facets))
        known = self._pages.known(view, asked)
        if known is not None:
            return known
        self._check(facets)
        found = self._page(view, asked)
        if self._choices.known(view, filter_) is not None:
            self._pages.keep(view, asked, found)
        return found

    def _page(self, view: InboxView, asked: _PageAsked) -> AlertPage:
        order, limit = asked.order, asked.limit
        after = None if asked.cursor is None else Cursor.parse(asked.cursor, order)
        chosen = self.chosen(view, asked.filter)
        rows = view.page(chosen, order, after, limit + 1)
        more, rows = len(rows) > limit, rows[:limit]
        return AlertPage(
            alerts=[AlertRow(**each) for each in view.alerts(rows)],
            total=int(chosen.sum()),
            next=view.cursor(order, int(rows[-1])).text() if more else None,
            facets=view.counts(chosen, asked.facets),
            outbox_seq=view.next_outbox_seq,
        )

    def chosen(self, view: InboxView, filter_: str) -> Chosen:
        """Return which alerts of a view a filter chooses.

        Raises:
            ConfigurationError: it cannot be used.
        """
        known = self._choices.known(view, filter_)
        if known is not None:
            return known
        wanted = parse_filter(filter_)
        found = view.chosen(wanted, self._clock())
        if not view.fields.counts_from_now(wanted):
            self._choices.keep(view, filter_, found)
        return found

    def fields(self) -> list[FilterField]:
        """Return what alerts can be filtered by."""
        known = self._inbox.fields.all
        return [
            FilterField(name=each.name, kind=each.kind, meaning=each.meaning, is_facet=each.is_facet)
            for each in known
        ]

    def _check(self, facets: Sequence[str]) -> None:
        known = self._inbox.fields.facets
        unknown = next((each for each in facets if each not in known), None)
        if unknown is not None:
            raise ConfigurationError(f"no facet {unknown[:40]!r}; {nearest(unknown, known)}", where="facet")


@dataclass(frozen=True)
class _PageAsked:
    filter: str
    order: Order
    cursor: str | None
    limit: int
    facets: tuple[str, ...]


class _OfView(Generic[Found]):
    """What was found of the newest view, as far as somebody has asked for it lately."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._view: InboxView | None = None
        self._found: OrderedDict[Hashable, Found] = OrderedDict()

    def known(self, view: InboxView, asked: Hashable) -> Found | None:
        with self._lock:
            if self._view is not view:
                self._view, self._found = view, OrderedDict()
            return self._found.get(asked)

    def keep(self, view: InboxView, asked: Hashable, found: Found) -> None:
        with self._lock:
            if self._view is view:
                self._found[asked] = found
                if len(self._found) > _MOST_KEPT:
                    self._found.popitem(last=False)
