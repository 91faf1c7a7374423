"""Why one alert was raised, from Delta alone.

An explanation holds the parts that add up to the score, what is normal for each entity of the transaction,
the past payments most like it, and the payer's history.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigurationError, NotFoundError
from schemas.event_columns import DIRECTION, PAYMENT
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.history.payments import Payments, ScannedPayments

_NEAREST = 5
_SECONDS_PER_DAY = 86_400.0
_CAUGHT_UP = 1e-9
_SHORTEST_ID = 6


@dataclass(frozen=True)
class Normal:
    """What is normal for one entity: its payments before the alerted one, undecayed.

    Payments are those in the alert's currency; where the alert is about a refund, they are refunds.
    """

    kind: str
    entity: str
    payments: int
    first: datetime | None
    median_amount: float | None
    largest_amount: float | None
    median_days_between: float | None


@dataclass(frozen=True)
class Explanation:
    """One alert, taken apart.

    Attributes:
        alert: the row of the alerts table, newest revision.
        adds_up: whether base and contributions give the log-odds within 1e-9.
        normal: per entity of the transaction.
        nearest: the primary entity's past payments closest in log-amount and time of day.
        history: event_time and amount of that entity's payments up to the alerted one.
    """

    alert: dict[str, Any]
    adds_up: bool
    normal: tuple[Normal, ...]
    nearest: tuple[dict[str, Any], ...]
    history: pl.DataFrame

    def plain(self) -> dict[str, Any]:
        """Return everything but the history, JSON-serialisable with `default=str`."""
        return {
            "alert": self.alert,
            "adds_up": self.adds_up,
            "normal": [asdict(each) for each in self.normal],
            "nearest": list(self.nearest),
        }


def explain(agent: HasLake, wanted: str, primary: str) -> Explanation:
    """Take an alert apart.

    Args:
        agent: whose tables are read.
        wanted: an alert's id, its first characters (six at least), or its transaction's id.
        primary: the entity whose history is shown.

    Raises:
        ConfigurationError: no alert, or several, fit `wanted`.
    """
    reader = LakeReader.of(agent)
    return explained(find_alert(reader, wanted), ScannedPayments(reader), primary)


def explained(alert: dict[str, Any], payments: Payments, primary: str) -> Explanation:
    """Take an alert apart.

    Args:
        alert: the row of the alerts table, newest revision.
        payments: finds those of its entities.
        primary: the entity whose history is shown.

    Raises:
        NotFoundError: the transactions are gone.
    """
    entities = dict(alert["entities"])
    past = payments.of(entities).filter(pl.col("sequence") < alert["sequence"])
    past = past.filter(_comparable(past, alert))
    mine = past.filter(pl.col(primary) == entities[primary])
    parts = [reason["contribution"] for reason in alert["reasons"]]
    return Explanation(
        alert={**alert, "entities": entities},
        adds_up=abs(alert["base"] + math.fsum(parts) - alert["log_odds"]) <= _CAUGHT_UP,
        normal=tuple(normal_of(kind, entity, past) for kind, entity in entities.items()),
        nearest=_nearest(mine, alert),
        history=mine.select("event_time", "amount"),
    )


def find_alert(reader: LakeReader, wanted: str) -> dict[str, Any]:
    """Return the newest revision of one alert as a row; see find_alert_row."""
    return dict(find_alert_row(reader, wanted).to_pylist()[0])


def find_alert_row(reader: LakeReader, wanted: str) -> pa.Table:
    """Return the newest revision of one alert, a table of one row.

    Args:
        reader: of the lake.
        wanted: its id, the first characters of it (six at least), or its transaction's id.

    Raises:
        ConfigurationError: no alert, or several, fit `wanted`.
    """
    alerts = reader.table("alerts")
    if alerts is None:
        raise NotFoundError("there are no alerts yet", where=str(reader.place("alerts")))
    named = pc.field("transaction_id") == wanted
    if len(wanted) >= _SHORTEST_ID:
        named = named | pc.starts_with(pc.field("alert_id"), wanted)
    hits = alerts.select(alerts.schema.names, named).sort_by("revision")
    found = len(hits["alert_id"].unique())
    if found != 1:
        problem = f"{found or 'no'} alert{'s' if found else ''} with this id or transaction"
        kind = ConfigurationError if found else NotFoundError
        raise kind(f"{problem}; `flagstream alerts --json` lists them", where=wanted)
    return hits.slice(hits.num_rows - 1)


def _comparable(past: pl.DataFrame, alert: dict[str, Any]) -> pl.Expr:
    """Return the transactions to compare an alert with: in its currency, and refunds with refunds."""
    alike = [pl.col("currency") == alert["currency"]]
    if DIRECTION in past.columns:
        alike.append(pl.col(DIRECTION).fill_null(PAYMENT) == (alert.get(DIRECTION) or PAYMENT))
    return pl.all_horizontal(alike)


def normal_of(kind: str, entity: str, past: pl.DataFrame) -> Normal:
    """Say what is normal for an entity by payments with event_time, amount and a column named `kind`."""
    rows = past.filter(pl.col(kind) == entity)
    gaps = rows["event_time"].sort().diff().dt.total_seconds().drop_nulls() / _SECONDS_PER_DAY
    return Normal(
        kind,
        entity,
        rows.height,
        rows["event_time"].min(),  # type: ignore[arg-type]  # a time column
        _number(rows["amount"].median()),
        _number(rows["amount"].max()),
        _number(gaps.median()),
    )


def _number(value: Any) -> float | None:
    """Return a figure rounded; the median of the largest numbers there are has no number."""
    return None if value is None or not math.isfinite(value) else round(float(value), 4)


def _nearest(rows: pl.DataFrame, alert: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    at = alert["event_time"]
    hour = at.hour + at.minute / 60
    hours = pl.col("event_time").dt.hour() + pl.col("event_time").dt.minute() / 60
    apart = (hours - hour).abs()
    around = pl.min_horizontal(apart, 24 - apart) / 24
    amounts = (pl.col("amount").log1p() - math.log1p(alert["amount"])).abs()
    ranked = rows.with_columns(distance=amounts + around).sort("distance", "sequence").head(_NEAREST)
    return tuple(ranked.select("transaction_id", "event_time", "amount", "currency", "distance").to_dicts())
