"""What a candidate moves: which alerts come, go or change, and the money that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import polars as pl

from schemas.event_columns import REFUND

Move = Literal["added", "removed", "changed"]

ONE_ALERT = ["sequence", "kind"]
_MOST_SHOWN = 50
_SHOWN = (
    "alert_id", "transaction_id", "event_time", "amount", "currency", "entity", "reason", "score",
    "severity", "classification", "is_fraud", "was_severity", "was_classification",
)  # fmt: skip


@dataclass(frozen=True)
class MovedMoney:
    """What alerts of one currency come to, those about payments or those about refunds.

    Attributes:
        alerts: how many.
        amount: sum of their transactions' amounts.
        frauds: those whose transaction is labelled as fraud, and `fraud_amount` what they come to.
        genuine: those labelled as genuine, and `genuine_amount` what they come to.
    """

    alerts: int
    amount: float
    frauds: int
    fraud_amount: float
    genuine: int
    genuine_amount: float


@dataclass(frozen=True)
class MovedAlert:
    """An alert that differs. One that was added has never been published: nobody finds it by its id.

    Attributes:
        entity: the primary one's id.
        reason: the largest part of its score, or its rule.
        severity: of the side that has it, the candidate's where both have; as `classification`.
        is_fraud: as the transaction is labelled, None without a label.
        was_severity: of a changed one as published, as `was_classification`; None of any other.
    """

    alert_id: str
    transaction_id: str
    event_time: datetime
    amount: float
    currency: str
    entity: str
    reason: str
    score: float
    severity: str
    classification: str
    is_fraud: bool | None
    was_severity: str | None
    was_classification: str | None


@dataclass(frozen=True)
class MovedAlerts:
    """The alerts that differ, by how they do.

    Attributes:
        money: move → currency → what those about payments come to.
        refunds: move → currency → what those about refunds come to.
        largest: move → those of the largest amounts, the largest first, 50 at most.
    """

    money: Mapping[Move, Mapping[str, MovedMoney]]
    refunds: Mapping[Move, Mapping[str, MovedMoney]]
    largest: Mapping[Move, tuple[MovedAlert, ...]]


def moved_alerts(before: pl.DataFrame, after: pl.DataFrame) -> MovedAlerts:
    """Set the published alerts against a candidate's.

    Args:
        before: published alerts, columns as `MovedAlert` has them but for `was_…`, `direction`, null where
            there are payments alone, and `ONE_ALERT`.
        after: the candidate's, likewise.
    """
    moves: dict[Move, pl.DataFrame] = {
        "added": _alone(after, before),
        "removed": _alone(before, after),
        "changed": _changed(before, after),
    }
    refund = (pl.col("direction") == REFUND).fill_null(value=False)
    return MovedAlerts(
        {move: _money(rows.filter(~refund)) for move, rows in moves.items()},
        {move: _money(rows.filter(refund)) for move, rows in moves.items()},
        {move: _largest(rows) for move, rows in moves.items()},
    )


def _alone(rows: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    none = pl.lit(None, pl.String)
    found = rows.join(others, on=ONE_ALERT, how="anti")
    return found.with_columns(was_severity=none, was_classification=none)


def _changed(before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
    """The published alert is the one that somebody finds by its id."""
    was = before.select(*ONE_ALERT, "alert_id", was_severity="severity", was_classification="classification")
    both = after.drop("alert_id").join(was, on=ONE_ALERT, how="inner")
    differs = (pl.col("severity") != pl.col("was_severity")) | (
        pl.col("classification") != pl.col("was_classification")
    )
    return both.filter(differs)


def _money(rows: pl.DataFrame) -> dict[str, MovedMoney]:
    amount, fraud = pl.col("amount"), pl.col("is_fraud").fill_null(value=False)
    genuine = ~pl.col("is_fraud").fill_null(value=True)
    sums = rows.group_by("currency").agg(
        alerts=pl.len(),
        amount=amount.sum(),
        frauds=fraud.sum(),
        fraud_amount=amount.filter(fraud).sum(),
        genuine=genuine.sum(),
        genuine_amount=amount.filter(genuine).sum(),
    )
    return {row.pop("currency"): MovedMoney(**row) for row in sums.sort("currency").to_dicts()}


def _largest(rows: pl.DataFrame) -> tuple[MovedAlert, ...]:
    ranked = rows.sort("amount", *ONE_ALERT, descending=[True, False, False]).head(_MOST_SHOWN)
    return tuple(MovedAlert(**row) for row in ranked.select(_SHOWN).to_dicts())
