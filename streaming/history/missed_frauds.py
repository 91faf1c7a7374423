"""The frauds of a span that a candidate does not alert, and why: their scores, and what they needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import numpy as np
import polars as pl

from streaming.history.replayed import Slice

WhyMissed = Literal["learning", "below_threshold"]

_MOST_SHOWN = 500
_COLUMNS = ["transaction_id", "event_time", "amount", "currency"]
_SCHEMA: Mapping[str, pl.DataType | type[pl.DataType]] = {
    "sequence": pl.Int64, "transaction_id": pl.String, "event_time": pl.Datetime("us", "UTC"),
    "amount": pl.Float64, "currency": pl.String, "entity": pl.String, "score": pl.Float64,
    "threshold": pl.Float64, "reason": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class MissedFraud:
    """A transaction with a fraud label and without an alert.

    Attributes:
        entity: the primary one's id.
        score: in (0, 1).
        threshold: the score that it needed, None where no score could raise an alert as yet.
        reason: what raised the score most, None where nothing did.
        why: `learning` before any score can raise an alert, else `below_threshold`: no rule was hit either.
        was_alerted: it has a published alert.
    """

    transaction_id: str
    event_time: datetime
    amount: float
    currency: str
    entity: str
    score: float
    threshold: float | None
    reason: str | None
    why: WhyMissed
    was_alerted: bool


@dataclass(frozen=True)
class MissedFrauds:
    """What a candidate misses of the frauds that labels know.

    Attributes:
        count: of all of them.
        by_why: why → how many.
        by_reason: what raised the score most → how many, `none` where nothing did.
        largest: those of the largest amounts, the largest first, 500 at most.
        newly_caught: transactions of known frauds that it alerts and nobody was alerted to, 500 at most.
    """

    count: int
    by_why: Mapping[str, int]
    by_reason: Mapping[str, int]
    largest: tuple[MissedFraud, ...]
    newly_caught: tuple[str, ...]


def no_frauds() -> pl.DataFrame:
    """Return what `scored_frauds` does, without rows."""
    return pl.DataFrame(schema=_SCHEMA)


def scored_frauds(part: Slice, is_fraud: pl.Series, primary: str) -> pl.DataFrame:
    """Return the frauds of a slice with their scores under the candidate.

    Args:
        part: decided by the candidate alone.
        is_fraud: bool of each of its rows, null without a label.
        primary: the entity whose id is shown.

    Returns:
        sequence, transaction_id, event_time, amount, currency, entity, score, threshold (null before any
        score can raise an alert) and reason (null where nothing raised the score).
    """
    places = np.flatnonzero(is_fraud.fill_null(value=False).to_numpy())
    if not len(places):
        return no_frauds()
    scored = part.decided.judged[0].scored
    rows = pl.DataFrame(part.rows.select([*_COLUMNS, primary]).take(places)).rename({primary: "entity"})
    strongest = [
        next((each.name for each in reasons if each.contribution > 0), None)
        for reasons in scored.reasons_of(places)
    ]
    needed = pl.Series("threshold", scored.threshold[places], pl.Float64)
    return rows.with_columns(
        pl.Series("sequence", places + part.span.first, pl.Int64),
        pl.Series("score", scored.score[places], pl.Float64),
        needed.set(needed >= 1, None),
        pl.Series("reason", strongest, pl.String),
    ).select([pl.col(name).cast(kind) for name, kind in _SCHEMA.items()])


def missed_frauds(frauds: pl.DataFrame, before: pl.DataFrame, after: pl.DataFrame) -> MissedFrauds:
    """Say which frauds a candidate does not alert.

    Args:
        frauds: see scored_frauds.
        before: published alerts, `sequence` at least.
        after: the candidate's.
    """
    lost = frauds.join(after, on="sequence", how="anti")
    learning = pl.col("threshold").is_null()
    found = lost.with_columns(
        why=pl.when(learning).then(pl.lit("learning")).otherwise(pl.lit("below_threshold")),
        was_alerted=pl.col("sequence").is_in(before["sequence"].unique().to_list()),
    )
    gained = frauds.join(after, on="sequence", how="semi").join(before, on="sequence", how="anti")
    ranked = found.sort("amount", "sequence", descending=[True, False]).head(_MOST_SHOWN)
    return MissedFrauds(
        found.height,
        dict(Counter(found["why"].to_list()).most_common()),
        dict(Counter(found["reason"].fill_null("none").to_list()).most_common()),
        tuple(MissedFraud(**row) for row in ranked.drop("sequence").to_dicts()),
        tuple(gained["transaction_id"].head(_MOST_SHOWN).to_list()),
    )
