"""What is usual for an entity in each currency, and whom it has paid with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import polars as pl

from streaming.history.explain import Normal, normal_of


def by_currency(kind: str, entity: str, payments: pl.DataFrame) -> list[tuple[str | None, Normal]]:
    """Return what is usual in each currency, the one with most payments first.

    Args:
        payments: of the entity, see streaming.history.payments.
    """
    parts = payments.partition_by("currency", maintain_order=True)
    found = [(part["currency"][0], normal_of(kind, entity, part)) for part in parts]
    found.sort(key=lambda each: (-each[1].payments, each[0] or ""))
    return found


@dataclass(frozen=True)
class Neighbour:
    """An entity of another kind with which one has payments in common."""

    kind: str
    entity: str
    payments: int
    first: datetime
    last: datetime


def neighbours_of(payments: pl.DataFrame, kinds: Sequence[str], most: int) -> list[Neighbour]:
    """Return the entities with most payments in common, at most so many of each kind.

    Args:
        payments: of one entity, with the ids of other kinds.
        kinds: those others.
    """
    found = []
    for kind in kinds:
        grouped = (
            payments.filter(pl.col(kind).is_not_null())
            .group_by(kind)
            .agg(count=pl.len(), first=pl.col("event_time").min(), last=pl.col("event_time").max())
            .sort("count", "last", kind, descending=[True, True, False])
        )
        found += [Neighbour(kind, *row) for row in grouped.head(most).iter_rows()]
    return found
