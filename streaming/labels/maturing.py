"""What labels say of alerts as time goes by: how late they come, and what of the older alerts was right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import polars as pl
import pyarrow.compute as pc

from schemas.alert import ALERT_KIND
from schemas.instants import earlier
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import LakeReader
from streaming.labels.book import LabelBook

MATURITIES = (timedelta(days=1), timedelta(days=7), timedelta(days=30))
PERCENTILES = (50, 90, 99)
_NEWEST = 100_000
_NEWEST_LABELS = 10_000
_ALERT = ["transaction_id", "event_time", "kind", "revision"]


@dataclass(frozen=True)
class MaturedAlerts:
    """Alerts whose event is at least so old.

    Attributes:
        labelled: share of them that have a label, None without alerts.
        precision: share of frauds among those with a label, None without any.
    """

    maturity: timedelta
    labelled: float | None
    precision: float | None


@dataclass(frozen=True)
class LabelFigures:
    """What labels say of the newest alerts.

    Attributes:
        labels: on record.
        delays: by percentile, the seconds from an event to its label's recording, of alerted events.
    """

    labels: int = 0
    delays: dict[int, float] = field(default_factory=dict)
    matured: tuple[MaturedAlerts, ...] = ()


def label_figures(
    reader: LakeReader, spec: AgentSpec, now: datetime, maturities: Sequence[timedelta] = MATURITIES
) -> LabelFigures:
    """Compare the newest alerts with the labels of their transactions.

    Args:
        reader: of the lake.
        now: alerts are as old as their event is then.
        maturities: ages to look for, the spec's own beside them.
    """
    count = reader.count("labels")
    if count == 0:
        return LabelFigures()
    recent = pc.field("outbox_seq") >= reader.count("alerts") - _NEWEST
    rows = reader.frame("alerts", _ALERT, recent)
    alerts = rows.filter((pl.col("kind") == ALERT_KIND) & (pl.col("revision") == 1))
    book = LabelBook(reader.place("labels"), retention=spec.replay_horizon)
    known = book.latest_on(alerts["transaction_id"], book.refreshed())
    judged = alerts.join(known, on="transaction_id", how="left")
    ages = sorted({*maturities, spec.promotion.maturity} - {timedelta(0)})
    return LabelFigures(count, _delays(reader, alerts, count), tuple(_of(judged, each, now) for each in ages))


def _of(judged: pl.DataFrame, maturity: timedelta, now: datetime) -> MaturedAlerts:
    old = judged.filter(pl.col("event_time") <= earlier(now, maturity))
    labels = old["is_fraud"].drop_nulls()
    labelled = len(labels) / old.height if old.height else None
    return MaturedAlerts(maturity, labelled, int(labels.sum()) / len(labels) if len(labels) else None)


def _delays(reader: LakeReader, alerts: pl.DataFrame, labels: int) -> dict[int, float]:
    newest = pc.field("label_sequence") >= labels - _NEWEST_LABELS
    given = reader.frame("labels", ["transaction_id", "recorded_at"], newest)
    joined = given.join(alerts.select("transaction_id", "event_time"), on="transaction_id", how="inner")
    if joined.height == 0:
        return {}
    seconds = (joined["recorded_at"] - joined["event_time"]).dt.total_microseconds() / 1e6
    return {each: float(seconds.quantile(each / 100) or 0.0) for each in PERCENTILES}
