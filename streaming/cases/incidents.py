"""Rules that fire far beyond their norm: their alerts are one incident.

A rule's norm in an hour of event time is the median of how many alerts it raised in each of the hours before
it, as known when its first alert of the hour came; hours without any count. So what an alert is part of
follows from the alerts before it, however they are cut into passes.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl

from schemas.cases import IncidentNorm

_HOUR_MICROS = 3_600_000_000
_GROUP = ["rule", "hour"]


def beyond_norm(alerts: pl.DataFrame, before: pl.DataFrame, norm: IncidentNorm) -> pl.DataFrame:
    """Return which alerts are part of an incident.

    Args:
        alerts: alert_id, outbox_seq, event_time and rules, each alert once.
        before: the same columns of earlier alerts.
        norm: what is too many.

    Returns:
        alert_id and incident, the first of its rules that is beyond its norm; no row for the others.
    """
    fired = _fired(alerts, before, norm.past)
    places = fired.with_columns(pl.int_range(1, pl.len() + 1).over(_GROUP).alias("place"))
    many = places.filter(pl.col("fresh") & (pl.col("place") > norm.factor * norm.least))
    if many.height == 0:
        return pl.DataFrame(schema={"alert_id": pl.String(), "incident": pl.String()})
    norms = _norms(many.select(_GROUP).unique(maintain_order=True), fired, norm)
    beyond = many.join(norms, on=_GROUP).filter(pl.col("place") > norm.factor * pl.col("norm"))
    first = beyond.sort("outbox_seq", "turn").unique("alert_id", keep="first", maintain_order=True)
    return first.select("alert_id", pl.col("rule").alias("incident"))


def _fired(alerts: pl.DataFrame, before: pl.DataFrame, past: timedelta) -> pl.DataFrame:
    """Return one row for each rule of each alert, in the order in which they were raised."""
    since = alerts["event_time"].min()
    if since is not None:
        # A whole hour counts, wherever in it the first alert lies.
        before = before.filter(pl.col("event_time") >= pl.lit(since) - past - timedelta(hours=1))
    columns = ["alert_id", "outbox_seq", "event_time", "rules"]
    both = [
        each.select(columns).with_columns(fresh=pl.lit(fresh))
        for each, fresh in ((before, False), (alerts, True))
    ]
    hours = (pl.col("event_time").dt.epoch("us") // _HOUR_MICROS).alias("hour")
    return (
        pl.concat(both)
        .with_columns(hours, pl.col("rules").list.unique(maintain_order=True).alias("rule"))
        .drop("rules")
        .explode("rule")
        .drop_nulls("rule")
        .with_columns(pl.int_range(pl.len()).over("alert_id").alias("turn"))
        .sort("outbox_seq", maintain_order=True)
    )


def _norms(wanted: pl.DataFrame, fired: pl.DataFrame, norm: IncidentNorm) -> pl.DataFrame:
    hours = max(norm.past // timedelta(hours=1), 1)
    by_rule = {str(rule[0]): rows for rule, rows in fired.partition_by("rule", as_dict=True).items()}
    found = [_median_before(by_rule[rule], hour, hours) for rule, hour in wanted.iter_rows()]
    return wanted.with_columns(pl.Series("norm", [max(each, norm.least) for each in found], pl.Float64()))


def _median_before(rows: pl.DataFrame, hour: int, hours: int) -> float:
    at, numbers = rows["hour"].to_numpy(), rows["outbox_seq"].to_numpy()
    first = numbers[at == hour].min()
    counted = at[(at >= hour - hours) & (at < hour) & (numbers < first)]
    return float(np.median(np.bincount(counted - (hour - hours), minlength=hours)))
