"""What the demo caught of what was planted, and why it missed the rest: from its lake and the labels sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

import polars as pl

from schemas.alert import ALERTS
from streaming.delta.lake_reader import LakeReader
from streaming.history.scored_again import ScoredTransaction, scored_again
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.feeds import Simulated

_DUE_AFTER = timedelta(seconds=30)


@dataclass(frozen=True)
class Planted:
    """One kind of fraud, and what became of it.

    Attributes:
        planted: payments of this kind.
        caught: those of them that have an alert.
        highest_missed: the highest score among the others, None where all were caught.
        threshold: the score that one needed.
        signs: what raised the scores of the others most: reason → payments, the most frequent first; `none`
            where nothing did.
    """

    kind: str
    planted: int
    caught: int
    highest_missed: float | None
    threshold: float | None
    signs: Mapping[str, int]


@dataclass(frozen=True)
class DemoResult:
    """What the demo did.

    Attributes:
        frauds: planted frauds among the events.
        caught: planted frauds that have an alert.
        precision: share of the alerts that are planted frauds, None without alerts.
        recall: share of the planted frauds that have an alert, None without frauds.
        llm_alerts: alerts whose classification is the model's.
        due: alerts that left more than 30 s before the end.
        llm_due: those of them whose classification is the model's.
        first_alert_s: seconds from the start of the demo to the first alert on Kafka, None without one.
        kinds: the planted frauds by kind, the most frequent first.
        lake: folder of everything it stored.
    """

    events: int
    frauds: int
    caught: int
    precision: float | None
    recall: float | None
    alerts: int
    llm_alerts: int
    due: int
    llm_due: int
    first_alert_s: float | None
    kinds: Sequence[Planted]
    lake: str


def alerts_of(reader: LakeReader) -> pl.DataFrame:
    """Return the newest revision of each alert with `left_at` of the first, highest score first."""
    columns = [name for name in ALERTS.names if name != "entities"]
    frame = reader.frame("alerts", columns).sort("revision")
    left = frame.filter(pl.col("revision") == 1).select("alert_id", left_at="created_at")
    newest = frame.unique("alert_id", keep="last").join(left, on="alert_id", how="left")
    return newest.sort("score", "outbox_seq", descending=[True, False])


def _first_published(reader: LakeReader) -> float | None:
    """When the first batch with alerts was closed, which is after they were published; seconds since 1970."""
    rows = reader.rows("batches", ["alerts", "closed_at"])
    moments = [row["closed_at"].timestamp() for row in rows.to_pylist() if row["alerts"] > 0]
    return min(moments, default=None)


def with_kinds(alerts: pl.DataFrame, sent: Simulated | None) -> pl.DataFrame:
    """Return alerts with `fraud_type`, the kind of the planted fraud that each is about, null for none."""
    return alerts.join(_frauds(sent), on="transaction_id", how="left", maintain_order="left")


def result_of(
    agent: PlacedAgent,
    alerts: pl.DataFrame,
    sent: Simulated | None,
    begun: float,
    ended: float,
) -> DemoResult:
    """Sum up a run.

    Args:
        alerts: see with_kinds.
        begun, ended: when the run was, in seconds since 1970.
    """
    reader, frauds = LakeReader.of(agent), _frauds(sent)
    caught = alerts["transaction_id"].filter(alerts["fraud_type"].is_not_null()).n_unique()
    by_model = pl.col("classification_source") == "llm"
    due = alerts.filter(pl.col("left_at") <= datetime.fromtimestamp(ended, UTC) - _DUE_AFTER)
    first = _first_published(reader)
    return DemoResult(
        events=0 if sent is None else sent.events,
        frauds=frauds.height,
        caught=caught,
        precision=caught / alerts.height if alerts.height else None,
        recall=caught / frauds.height if frauds.height else None,
        alerts=alerts.height,
        llm_alerts=alerts.filter(by_model).height,
        due=due.height,
        llm_due=due.filter(by_model).height,
        first_alert_s=None if first is None else round(first - begun, 1),
        kinds=list(_by_kind(agent, frauds, set(alerts["transaction_id"]))),
        lake=str(agent.lake),
    )


def _by_kind(agent: PlacedAgent, frauds: pl.DataFrame, alerted: AbstractSet[str]) -> Iterator[Planted]:
    kind_of = dict(frauds.select("transaction_id", "fraud_type").iter_rows())
    missed = [each for each in kind_of if each not in alerted]
    found = list(scored_again(agent, set(missed))) if missed else []
    for kind, planted in Counter(kind_of.values()).most_common():
        lost = [each for each in found if kind_of[each.transaction_id] == kind]
        caught = sum(kind_of[each] == kind for each in kind_of if each in alerted)
        nearest = max(lost, key=lambda each: each.score, default=None)
        yield Planted(
            kind=kind,
            planted=planted,
            caught=caught,
            highest_missed=None if nearest is None else nearest.score,
            threshold=None if nearest is None else nearest.threshold,
            signs=_signs(lost),
        )


def _signs(lost: Sequence[ScoredTransaction]) -> dict[str, int]:
    return dict(Counter(each.reason or "none" for each in lost).most_common())


def _frauds(sent: Simulated | None) -> pl.DataFrame:
    if sent is None:
        return pl.DataFrame(schema={"transaction_id": pl.String, "fraud_type": pl.String})
    truth = cast(pl.DataFrame, pl.from_arrow(sent.truth))
    return truth.filter("is_fraud").select("transaction_id", "fraud_type")
