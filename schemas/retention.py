"""For how long the rows of tables are kept, and what must not be kept for less."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from schemas.loading import Document, Duration, format_duration

AgedTable = Literal[
    "transactions",
    "alerts",
    "ledger",
    "quarantine",
    "labels_quarantine",
    "duplicates",
    "monitoring",
    "audit",
    "case_events",
]
Age = Annotated[Duration, Field(ge=timedelta(days=1))]
_REST_ON_TRANSACTIONS: tuple[AgedTable, ...] = ("alerts", "ledger")


class Retention(Document):
    """How old the rows of a table may become, counted from when they were stored; not given, they stay.

    Rows of `quarantine` and `duplicates` were stored when their batch was closed. Those of
    `labels_quarantine` belong to no batch: they were stored when the agent had read them. Rows leave once a
    day, while the agent runs. Alerts, and what models have answered, are what replays compare with and labels
    rest on: they are kept at least as long as transactions. A case leaves whole, so long after it was closed.
    """

    LATER: ClassVar[frozenset[str]] = frozenset({"case_events"})

    transactions: Age | None = None
    alerts: Age | None = None
    ledger: Age | None = None
    quarantine: Age | None = None
    labels_quarantine: Age | None = None
    duplicates: Age | None = None
    monitoring: Age | None = None
    audit: Age | None = None
    case_events: Age | None = None

    @model_validator(mode="after")
    def _as_long_as_transactions(self) -> Retention:
        for name in _REST_ON_TRANSACTIONS:
            age = self.by_table.get(name)
            if age is None:
                continue
            if self.transactions is None:
                raise ValueError(f"{name!r} are kept as long as transactions, and these are kept for ever")
            if age < self.transactions:
                kept = format_duration(self.transactions)
                raise ValueError(f"{name!r} must be kept at least as long as transactions, {kept}")
        return self

    @property
    def by_table(self) -> dict[AgedTable, timedelta]:
        """Table → age, of those that have one; transactions come first."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: age for name, age in found.items() if age is not None}  # type: ignore[misc]  # its fields

    def check(self, needed: Iterable[tuple[str, timedelta]]) -> None:
        """Check that transactions are kept for as long as anything needs them.

        Args:
            needed: the key that says so, and for how long.

        Raises:
            ValueError: they are not; names what needs them longest.
        """
        if self.transactions is None:
            return
        key, least = max(needed, key=lambda each: each[1])
        if self.transactions < least:
            raise ValueError(
                f"retention.transactions is {format_duration(self.transactions)}, but {key} needs them for "
                f"{format_duration(least)}: keep them for at least that long, or shorten {key}"
            )
