"""Refunds apart from payments: each kind of entities has a second one, of its refunds alone.

Where a contract knows refunds, the kind `customer` holds payments and `customer-refunds` the refunds of the
same customers. To all that keeps something by kinds of entities they are two kinds like any others, of which
a row belongs to one; so nothing of one direction moves what is usual in the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.event_columns import DIRECTION, PAYMENT, REFUND
from streaming.arrays.compilation import Flags

_REFUNDS = "-refunds"


class NamedKind(NamedTuple):
    """How people call a kind: whose transactions it holds, and what one of them is called."""

    entity: str
    transaction: str


def of_refunds(kind: str) -> str:
    """Return the kind that holds the refunds of a kind of entities."""
    return f"{kind}{_REFUNDS}"


def holds_refunds(kind: str) -> bool:
    """Return whether a kind holds refunds alone."""
    return kind.endswith(_REFUNDS)


def entity_of(kind: str) -> str:
    """Return the kind of entities, `customer` for its refunds, too."""
    return kind.removesuffix(_REFUNDS)


def alike(name: str, kind: str) -> str:
    """Return the kind of entities `name` of the same direction as `kind`."""
    return of_refunds(name) if holds_refunds(kind) else name


def named_kind(kind: str) -> NamedKind:
    """Return how people call a kind."""
    return NamedKind(entity_of(kind), REFUND if holds_refunds(kind) else PAYMENT)


def with_refunds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return kinds of entities, then those of their refunds."""
    payments = tuple(kinds)
    return (*payments, *map(of_refunds, payments))


def are_refunds(rows: pa.Table) -> Flags:
    """Return which rows are refunds, bool[n]; those from before there was a direction are payments."""
    return np.asarray(pc.fill_null(pc.equal(rows[DIRECTION], REFUND), fill_value=False).to_numpy())
