"""What versions in shadow would have alerted, side by side with what was published over the same batches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from schemas.spec import AgentSpec
from streaming.delta.stored import read_stored
from streaming.labels.book import LabelBook
from streaming.versions.registry_table import read_entries
from streaming.versions.shadow import BESIDE
from streaming.versions.stages import Standing, standing_in, standings

_DAY_US = 86_400e6
_KEY = ["sequence", "kind"]


@dataclass(frozen=True)
class VersionSide:
    """One version's alerts.

    Attributes:
        alerts_per_day: in event time.
        judged: transactions with alerts and a verdict.
        precision: share of frauds among them, None without verdicts.
    """

    version: str
    stage: str
    alerts: int
    alerts_per_day: float
    judged: int
    precision: float | None


@dataclass(frozen=True)
class SideBySide:
    """A version in shadow beside what was published.

    Attributes:
        batches: that the version has decided, and both sides are counted over.
        agreement: share of the alerts of either side that both have, None without alerts.
    """

    batches: int
    transactions: int
    published: VersionSide
    shadow: VersionSide
    agreement: float | None


def side_by_side(lake: Path, spec: AgentSpec) -> list[SideBySide]:
    """Return every version that stands in shadow or canary beside what was published, newest last.

    Args:
        lake: folder of the agent's tables.
        spec: names them.
    """
    found = standings(read_entries(lake / spec.tables.specs))
    active, beside = standing_in("active", found), [each for each in found.values() if each.stage in BESIDE]
    rows = read_stored(lake / spec.tables.shadow) if beside else None
    if active is None or rows is None:
        return []
    verdicts = pl.DataFrame(LabelBook(lake / spec.tables.labels, retention=spec.replay_horizon).verdicts())
    shadowed, published = pl.DataFrame(rows), _published(lake / spec.tables.alerts)
    decided = [(each, shadowed.filter(pl.col("digest") == each.digest)) for each in beside]
    return [
        _compared(active, each, mine, published, verdicts.select("transaction_id", "is_fraud"))
        for each, mine in decided
        if mine.height
    ]


def _published(path: Path) -> pl.DataFrame:
    columns = [*_KEY, "transaction_id", "revision", "passed_by"]
    rows = read_stored(path, columns)
    if rows is None:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.Int64))
    first = pl.DataFrame(rows).filter(pl.col("revision") == 1)
    return first.with_columns(raised=pl.coalesce("passed_by", "sequence"))


def _compared(
    active: Standing, standing: Standing, mine: pl.DataFrame, published: pl.DataFrame, verdicts: pl.DataFrame
) -> SideBySide:
    spans = mine.select("first_sequence", "next_sequence").sort("first_sequence")
    theirs = (
        published.sort("raised")
        .join_asof(spans, left_on="raised", right_on="first_sequence", strategy="backward")
        .filter(pl.col("raised") < pl.col("next_sequence"))
    )
    ours = (
        mine.select("alerted")
        .explode("alerted")
        .drop_nulls()
        .unnest("alerted")
        .select(*_KEY, "transaction_id")
    )
    both = ours.join(theirs, on=_KEY, how="semi").height
    either = ours.height + theirs.height - both
    last, first = (mine[name].dt.epoch("us").to_numpy() for name in ("last_event", "first_event"))
    days = max(float(last.max() - first.min()), 1e6) / _DAY_US
    return SideBySide(
        batches=mine.height,
        transactions=int((mine["next_sequence"] - mine["first_sequence"]).sum()),
        published=_side(active, theirs, days, verdicts),
        shadow=_side(standing, ours, days, verdicts),
        agreement=round(both / either, 4) if either else None,
    )


def _side(standing: Standing, alerts: pl.DataFrame, days: float, verdicts: pl.DataFrame) -> VersionSide:
    judged = alerts.unique("transaction_id").join(verdicts, on="transaction_id", how="inner")["is_fraud"]
    return VersionSide(
        version=standing.version,
        stage=standing.stage,
        alerts=alerts.height,
        alerts_per_day=round(alerts.height / days, 2),
        judged=judged.len(),
        precision=round(int(judged.sum()) / judged.len(), 4) if judged.len() else None,
    )
