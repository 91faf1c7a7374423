"""What a what-if says: both sides, what changed, for whom and why, and what the model's answers took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from streaming.history.missed_frauds import missed_frauds
from streaming.history.moved_alerts import ONE_ALERT, moved_alerts
from streaming.history.what_if_found import NO_ALERT, Changes, Flips, Matured, Side
from streaming.labels.judged_rows import CARDS_PER_DAY, JudgedRows, card_precision_at_k

_FLIPS = ("severity", "classification", "classification_source")
_MOST_ENTITIES = 10
_DAY_US = 86_400e6


@dataclass(frozen=True)
class Tally:
    """What is kept of the transactions of a span, whatever its length.

    Attributes:
        frauds: those with a fraud label.
        earliest: event time in microseconds since 1970, as `latest`.
        days: days since 1970 with transactions.
    """

    rows: int = 0
    frauds: int = 0
    earliest: int = 2**62
    latest: int = -(2**62)
    days: frozenset[int] = frozenset()

    def __add__(self, other: Tally) -> Tally:
        """Return what is kept of both parts."""
        return Tally(
            self.rows + other.rows,
            self.frauds + other.frauds,
            min(self.earliest, other.earliest),
            max(self.latest, other.latest),
            self.days | other.days,
        )

    @property
    def length(self) -> float:
        """Length in days of event time, at least a second."""
        return max(float(self.latest - self.earliest), 1e6) / _DAY_US


@dataclass(frozen=True)
class BothSides:
    """What both sides decided.

    Attributes:
        before: published alerts; columns as `what_if` keeps them, with `entity`, and `is_fraud`, null without
            a label.
        after: the candidate's alerts.
        tally: of the transactions.
        budgets: alerts per day that the published spec and the candidate ask for.
        frauds: known ones among the transactions, see scored_frauds.
    """

    before: pl.DataFrame
    after: pl.DataFrame
    tally: Tally
    budgets: tuple[float | None, float | None]
    frauds: pl.DataFrame

    def matured(self, latest: datetime) -> dict[str, Matured]:
        """Return what labels say of the alerts to transactions up to a time."""
        ripe = pl.col("event_time").dt.convert_time_zone("UTC") <= latest
        sides = {"published": self.before, "candidate": self.after}
        return {name: _judged(alerts.filter(ripe)) for name, alerts in sides.items()}


def compared(found: BothSides) -> dict[str, Any]:
    """Return the fields of WhatIf that follow from the alerts and transactions."""
    before, after, tally = found.before, found.after, found.tally
    per_day = _per_day(before, after)
    added = after.join(before, on=ONE_ALERT, how="anti")
    removed = before.join(after, on=ONE_ALERT, how="anti")
    both = before.join(after, on=ONE_ALERT, how="inner", suffix="_after")
    changed = _changed(added, removed, both)
    return {
        "transactions": tally.rows,
        "days": round(tally.length, 4),
        "known_frauds": tally.frauds,
        "published": _side(found, before, 0, per_day),
        "replayed": _side(found, after, 1, per_day),
        "added": added.height,
        "removed": removed.height,
        "kept": both.height,
        "moved": moved_alerts(before, after),
        "missed": missed_frauds(found.frauds, before, after),
        "changes": Changes(**changed.select(_KINDS).sum().row(0, named=True)),
        "flips": {name: _flips(added, removed, both, name) for name in _FLIPS},
        "entities": _by("entity", changed, _MOST_ENTITIES),
        "reasons": _by("reason", changed, None),
        "per_day": per_day,
        "unanswered": int((after["classification_source"] == "rules").sum()),
    }


def cold_text(cold_from: int) -> str:
    """Say that a report's candidate did not know all of history."""
    return f"the candidate's profiles started cold at sequence {cold_from} and know nothing before it"


_KINDS = ["added", "removed", "reclassified", "regraded"]


def _changed(added: pl.DataFrame, removed: pl.DataFrame, both: pl.DataFrame) -> pl.DataFrame:
    """Return entity, reason and, as 0 or 1, each kind of change, a row per alert of either side."""
    same = pl.lit(0, pl.Int64)
    kept = both.select(
        entity="entity",
        reason="reason_after",
        added=same,
        removed=same,
        reclassified=(pl.col("classification") != pl.col("classification_after")).cast(pl.Int64),
        regraded=(pl.col("severity") != pl.col("severity_after")).cast(pl.Int64),
    )
    alone = [
        each.select("entity", "reason", **{kind: pl.lit(int(kind == name), pl.Int64) for kind in _KINDS})
        for name, each in (("added", added), ("removed", removed))
    ]
    return pl.concat([kept, *alone])


def _by(column: str, changed: pl.DataFrame, most: int | None) -> dict[str, Changes]:
    total = pl.sum_horizontal(_KINDS)
    sums = changed.group_by(column).agg(pl.col(_KINDS).sum()).filter(total > 0)
    ranked = sums.sort(total, pl.col(column), descending=[True, False]).head(most or sums.height)
    return {row.pop(column): Changes(**row) for row in ranked.to_dicts()}


def _side(found: BothSides, alerts: pl.DataFrame, place: int, per_day: Mapping[str, tuple[int, int]]) -> Side:
    judged, tally, budget = _judged(alerts), found.tally, found.budgets[place]
    over = 0 if budget is None else sum(counts[place] > budget for counts in per_day.values())
    return Side(
        alerts=alerts.height,
        alerts_per_day=round(alerts.height / tally.length, 2),
        budget=budget,
        days_over_budget=over,
        judged=judged.judged,
        frauds=judged.frauds,
        precision=round(judged.frauds / judged.judged, 4) if judged.judged else None,
        recall=round(judged.frauds / tally.frauds, 4) if tally.frauds else None,
        cp100=_card_precision(alerts, tally),
        answered=int((alerts["classification_source"] == "llm").sum()),
        by_reason=dict(Counter(alerts["reason"].to_list()).most_common()),
    )


def _judged(alerts: pl.DataFrame) -> Matured:
    labels = alerts.unique("sequence")["is_fraud"].drop_nulls()
    return Matured(labels.len(), int(labels.sum()))


def _card_precision(alerts: pl.DataFrame, tally: Tally) -> float | None:
    if not tally.frauds:
        return None
    rows = alerts.sort(ONE_ALERT)
    frauds = rows["is_fraud"].fill_null(value=False).to_numpy()
    if not frauds.any():
        return 0.0
    days = rows["event_time"].dt.epoch("d").cast(pl.Int64).to_numpy()
    judged = JudgedRows(rows["score"].to_numpy(), frauds, days, rows["entity"].to_numpy().astype(str))
    with_alerts = len(np.unique(days))
    # The measure averages over the days it sees; a day without alerts is one without hits.
    among = len(tally.days | set(days.tolist()))
    return round(card_precision_at_k(judged, CARDS_PER_DAY) * with_alerts / among, 4)


def _flips(added: pl.DataFrame, removed: pl.DataFrame, both: pl.DataFrame, name: str) -> Flips:
    none = pl.lit(NO_ALERT)
    pairs = pl.concat(
        [
            both.select(old=name, new=f"{name}_after"),
            removed.select(old=name, new=none),
            added.select(old=none, new=name),
        ]
    )
    counts: Flips = {}
    for old, new, count in pairs.group_by("old", "new").len().sort("old", "new").iter_rows():
        counts.setdefault(old, {})[new] = count
    return counts


def _per_day(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, tuple[int, int]]:
    counts = [Counter(each["event_time"].dt.date().cast(pl.String).to_list()) for each in (before, after)]
    return {day: (counts[0][day], counts[1][day]) for day in sorted(counts[0].keys() | counts[1].keys())}
