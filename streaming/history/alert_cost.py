"""What the model's answers cost that one alert had a part in: the same share as `cost --by alert` gives it.

One request asks about several groups of alerts, and tokens are booked by batch. So no alert has a cost of its
own: of what its batch took, late answers included, it has an equal part among the alerts that were answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow.compute as pc

from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable
from streaming.history.cost import (
    ALERT_COLUMNS,
    LATE_COLUMNS,
    OF_CALLS,
    WAITING_COLUMNS,
    WINDOW,
    by_alert,
    newest_of,
    paying,
    with_late_answers,
)

_FIRST, _NEXT = WINDOW
_BOOKED = ["query_id", "batch_id", *OF_CALLS]


@dataclass(frozen=True)
class AlertCost:
    """What an alert's batch took of a model, and the alert's part of it.

    Attributes:
        calls: of the batch, those for late answers included.
        shared_by: alerts that share what the calls took.
        input_tokens: the alert's part, in whole ones.
        output_tokens: likewise.
        usd: its part, at the prices of that time; 0 where the model had none.
    """

    calls: int
    shared_by: int
    input_tokens: int
    output_tokens: int
    usd: float


def cost_of_alert(reader: LakeReader, alert: Mapping[str, Any]) -> AlertCost | None:
    """Return what an alert cost; None where no model was asked about its batch, or others had the answers.

    Args:
        reader: of the lake.
        alert: a row of the alerts table.
    """
    batches, alerts = reader.table("batches"), reader.table("alerts")
    if batches is None or alerts is None:
        return None
    batch = _of_batch(batches, alert, _BOOKED)
    if not reader.count("late") and not batch["llm_calls"].sum():
        return None
    mine = _of_batch(alerts, alert, ALERT_COLUMNS)
    # Late answers are far behind what they answer, and no window holds them.
    asked_about = mine.group_by("alert_id").agg(pl.col("outbox_seq").min())
    rounds = _rounds(reader, asked_about["outbox_seq"])
    if rounds.height:
        first, end = min(rounds[_FIRST].to_list()), max(rounds[_NEXT].to_list())
        batch = with_late_answers(batch, rounds, alerts.read("outbox_seq", first, end, WAITING_COLUMNS))
    return _part(batch.rename({"cost_usd": "llm_usd"}), newest_of(mine), alert["alert_id"])


def _part(batch: pl.DataFrame, alerts: pl.DataFrame, alert_id: str) -> AlertCost | None:
    calls = int(batch["llm_calls"].sum())
    sharing = alerts.filter(paying())
    if not calls or alert_id not in sharing["alert_id"]:
        return None
    (found,) = by_alert(batch, alerts).filter(pl.col("alert_id") == alert_id).to_dicts()
    return AlertCost(calls, sharing.height, found["input_tokens"], found["output_tokens"], found["llm_usd"])


def _of_batch(table: StoredTable, alert: Mapping[str, Any], columns: Sequence[str]) -> pl.DataFrame:
    """Return the rows of an alert's batch."""
    rows = table.at("batch_id", np.array([alert["batch_id"]], np.int64), columns)
    return pl.DataFrame(rows.filter(pc.equal(rows["query_id"], alert["query_id"])).select(list(columns)))


def _rounds(reader: LakeReader, places: pl.Series) -> pl.DataFrame:
    """Return the rounds of questions that may have been about alerts with some `outbox_seq`."""
    low, high = places.min(), places.max()
    asked = (pc.field("event") == "asked") & (pc.field(_FIRST) <= high) & (pc.field(_NEXT) > low)
    return reader.frame("late", LATE_COLUMNS, asked)
