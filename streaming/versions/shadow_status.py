"""Versions in shadow and canary, side by side with the active one over the same batches."""

from __future__ import annotations

import json
from dataclasses import dataclass

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.spec import AgentSpec
from schemas.tables import SHADOW
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.delta.pins import CANARY
from streaming.labels.book import LabelBook
from streaming.versions.registry_table import read_entries
from streaming.versions.stages import VersionStage, staged_versions, version_in

_DAY_US = 86_400e6
_KEY, _BOUNDS = ["sequence", "kind"], ["first_sequence", "next_sequence"]


@dataclass(frozen=True)
class VersionSide:
    """One version's alerts.

    Attributes:
        alerts_per_day: in event time; of a share of the entities, what it comes to for all of them.
        judged: transactions with alerts and a label.
        precision: share of frauds among them, None without labels.
    """

    version: str
    stage: str
    alerts: int
    alerts_per_day: float
    judged: int
    precision: float | None


@dataclass(frozen=True)
class SideBySide:
    """A version in shadow beside what was published, or one in canary beside the active one.

    Attributes:
        batches: that the version has decided, and both sides are counted over.
        agreement: share of the alerts of either side that both have, None without alerts and in canary.
        percent: of the entities that a canary decides, None in shadow.
    """

    batches: int
    transactions: int
    published: VersionSide
    beside: VersionSide
    agreement: float | None
    percent: float | None = None


def versions_beside(agent: HasLake) -> list[SideBySide]:
    """Return every version that stands in shadow or canary beside what was published, newest last.

    Args:
        agent: whose lake it is.
    """
    reader = LakeReader.of(agent)
    found = staged_versions(read_entries(reader.place("specs")))
    active = version_in("active", found)
    shadow, canary = (version_in(stage, found) for stage in ("shadow", "canary"))
    if active is None or (shadow is None and canary is None):
        return []
    evidence = _Evidence.read(reader, agent.spec)
    pairs = [
        None if shadow is None else _in_shadow(active, shadow, evidence),
        None if canary is None else _in_canary(active, canary, evidence),
    ]
    return [each for each in pairs if each is not None]


@dataclass(frozen=True)
class _Evidence:
    """The tables, first revisions published, and labels."""

    reader: LakeReader
    published: pl.DataFrame
    labels: pl.DataFrame

    @classmethod
    def read(cls, reader: LakeReader, spec: AgentSpec) -> _Evidence:
        labels = pl.DataFrame(LabelBook(reader.place("labels"), retention=spec.replay_horizon).latest())
        return cls(reader, _published(reader), labels.select("transaction_id", "is_fraud"))

    def raised_in(self, spans: pl.DataFrame) -> pl.DataFrame:
        """Return the published alerts that the rows of some batches raised."""
        return (
            self.published.sort("raised")
            .join_asof(
                spans.sort("first_sequence"),
                left_on="raised",
                right_on="first_sequence",
                strategy="backward",
            )
            .filter(pl.col("raised") < pl.col("next_sequence"))
        )


def _published(reader: LakeReader) -> pl.DataFrame:
    columns = [*_KEY, "transaction_id", "passed_by", "spec_version"]
    first = reader.frame("alerts", columns, pc.field("revision") == 1)
    return first.with_columns(raised=pl.coalesce("passed_by", "sequence"))


def _in_shadow(active: VersionStage, staged: VersionStage, evidence: _Evidence) -> SideBySide | None:
    mine = evidence.reader.frame("shadow", SHADOW.names, pc.field("digest") == staged.digest)
    if mine.height == 0:
        return None
    theirs = evidence.raised_in(mine.select(_BOUNDS))
    ours = mine.select("alerted").explode("alerted").drop_nulls().unnest("alerted")
    both = ours.join(theirs, on=_KEY, how="semi").height
    either = ours.height + theirs.height - both
    last, first = (mine[name].dt.epoch("us").to_numpy() for name in ("last_event", "first_event"))
    days = _days(int(first.min()), int(last.max()))
    return SideBySide(
        batches=mine.height,
        transactions=_rows(mine),
        published=_side(active, theirs, days, evidence.labels),
        beside=_side(staged, ours, days, evidence.labels),
        agreement=round(both / either, 4) if either else None,
    )


def _in_canary(active: VersionStage, staged: VersionStage, evidence: _Evidence) -> SideBySide | None:
    named = pc.match_substring(pc.field("pins"), staged.digest)
    naming = evidence.reader.frame("batches", [*_BOUNDS, "pins"], named)
    canaries = [json.loads(each).get(CANARY, {}).get("spec_digest") for each in naming["pins"]]
    decided = naming.filter(pl.Series(canaries, dtype=pl.String) == staged.digest).filter(
        pl.col("next_sequence") > pl.col("first_sequence")
    )
    decided = decided.sort("first_sequence")
    if decided.height == 0:
        return None
    percent = json.loads(decided["pins"][-1])[CANARY]["percent"]
    alerts = evidence.raised_in(decided.select(_BOUNDS))
    ours = pl.col("spec_version") == staged.version
    days = _days_between(evidence.reader, decided)
    share = percent / 100
    return SideBySide(
        batches=decided.height,
        transactions=_rows(decided),
        published=_side(active, alerts.filter(~ours), days * (1 - share), evidence.labels),
        beside=_side(staged, alerts.filter(ours), days * share, evidence.labels),
        agreement=None,
        percent=percent,
    )


def _rows(batches: pl.DataFrame) -> int:
    return int((batches["next_sequence"] - batches["first_sequence"]).sum())


def _days(first: int, last: int) -> float:
    return max(float(last - first), 1e6) / _DAY_US


def _days_between(reader: LakeReader, batches: pl.DataFrame) -> float:
    """Return the days of event time from the first row of some batches to their last."""
    table = reader.table("transactions")
    assert table is not None, "closed batches have rows"
    places = (int(batches["first_sequence"][0]), int(batches["next_sequence"][-1]) - 1)
    rows = [table.read("sequence", place, place + 1, ["event_time"])["event_time"] for place in places]
    return _days(*(int(each[0].cast(pa.int64()).as_py()) for each in rows))


def _side(staged: VersionStage, alerts: pl.DataFrame, days: float, labels: pl.DataFrame) -> VersionSide:
    judged = alerts.unique("transaction_id").join(labels, on="transaction_id", how="inner")["is_fraud"]
    return VersionSide(
        version=staged.version,
        stage=staged.stage,
        alerts=alerts.height,
        alerts_per_day=round(alerts.height / days, 2) if days else 0.0,
        judged=judged.len(),
        precision=round(int(judged.sum()) / judged.len(), 4) if judged.len() else None,
    )
