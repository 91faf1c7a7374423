"""How an agent is beyond its totals: how far, how fast and how fresh, as whoever reads beside it can tell."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
from pydantic import BaseModel, Field

from schemas.errors import FlagstreamError
from schemas.lake_tables import TABLES, Table
from schemas.spec import AgentSpec
from streaming.batch.queries import newest_of_the_stream
from streaming.batch.spending import spent_since
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.labels.maturing import label_figures
from streaming.observe.drift import PSI_MUCH, PSI_SLIGHT
from streaming.observe.drift_watch import kept_figures
from streaming.observe.lake_facts import newest_checkpoint
from streaming.observe.recent_batches import COUNTS, recent_batches
from streaming.serve.broker_watch import SeenInput
from streaming.versions.registry_watch import spec_in_force

COUNTED = COUNTS  # of each batch, in this order
DRIFT_BOUNDS = PSI_SLIGHT, PSI_MUCH
_BATCHES = 40
_DAY = timedelta(days=1)
Unit = Literal["tokens", "usd"]


class PartitionFigures(BaseModel):
    """How far a partition is read."""

    topic: str
    partition: int
    reached: int | None = Field(description="offset up to which batches are closed, None before the first")
    end: int | None = Field(description="offset up to which it may be read, None where no broker answers")
    lag: int | None = Field(description="records between the two")


class BatchFigures(BaseModel):
    """One closed batch of the stream."""

    closed_at: datetime
    counts: dict[str, int] = Field(description="records by what became of them, and alerts")
    seconds: dict[str, float] = Field(description="by step, in the order of the protocol")


class LatencyFigures(BaseModel):
    """Seconds from an event's time on Kafka until its batch was closed, by when its alert had left."""

    alerts: int
    p50: float | None
    p99: float | None


class BudgetWindow(BaseModel):
    """One limit of what models may take, in the day or the minute of UTC; money in USD."""

    window: Literal["day", "minute"]
    unit: Unit
    most: float
    spent: float = Field(description="what closed batches and late answers have booked")
    until: datetime


class DriftOfAgent(BaseModel):
    """Population stability indices against the reference window, as they were kept last."""

    kept_at: datetime
    score: float | None
    features: dict[str, float] = Field(description="the largest first")
    rules: dict[str, tuple[float, float]] = Field(description="shares alerted: reference, recent")
    reference: int = Field(description="sampled events in the reference window")
    recent: int = Field(description="in the recent window")


class TableFigures(BaseModel):
    """How large a table is on disk or in the store; files that are no longer part of it are left out."""

    table: str
    files: int
    bytes: int
    rows: int


class MaturedFigures(BaseModel):
    """What labels say of the alerts whose event is so old."""

    days: float
    labelled: float | None = Field(description="share of them that have a label")
    precision: float | None = Field(description="share of frauds among those with a label")


class LabelsOfAgent(BaseModel):
    """How late labels come, and what they say."""

    labels: int
    delays: dict[int, float] = Field(description="percentile: seconds from the event to the recording")
    matured: list[MaturedFigures]


class LakeFigures(BaseModel):
    """What the lake says of an agent beside its status."""

    newest_record_at: datetime | None = Field(description="time on Kafka of the newest payment stored")
    partitions: list[PartitionFigures]
    broker_seconds: float | None = Field(description="since a broker was asked, None where none answers")
    batches: list[BatchFigures] = Field(description="the newest of the stream, at most 40, the newest last")
    latency: LatencyFigures
    budget: list[BudgetWindow]
    drift: DriftOfAgent | None
    tables: list[TableFigures] = Field(description="the largest first")
    checkpoint_at: datetime | None = Field(description="when profiles were saved last")
    labels: LabelsOfAgent


def lake_figures(
    agent: PlacedAgent, reader: LakeReader, seen: SeenInput | None, now: datetime
) -> LakeFigures:
    """Read how an agent is.

    Args:
        agent: read beside whoever runs it.
        reader: of its lake.
        seen: how far its topics go.
        now: the current time.

    Raises:
        FlagstreamError: the lake cannot be read.
    """
    recent, written = recent_batches(reader, _BATCHES), newest_checkpoint(agent.settings.profiles(agent.name))
    return LakeFigures(
        newest_record_at=_newest_record(reader),
        partitions=list(_partitions(reader, seen)),
        broker_seconds=None if seen is None or seen.found is None else seen.seconds,
        batches=[BatchFigures(**vars(each)) for each in recent.batches],
        latency=LatencyFigures(**vars(recent.latency)),
        budget=list(_budget(reader, _spec_in_force(agent), now)),
        drift=_drift(agent),
        tables=sorted(_tables(reader), key=lambda each: -each.bytes),
        checkpoint_at=None if written is None else datetime.fromtimestamp(written, UTC),
        labels=_labels(reader, agent.spec, now),
    )


def _newest_record(reader: LakeReader) -> datetime | None:
    table = reader.table("transactions")
    highest = None if table is None else table.maximum("sequence")
    if table is None or highest is None:
        return None
    (at,) = table.at("sequence", np.array([highest]), ["kafka_timestamp"])["kafka_timestamp"].to_pylist()[-1:]
    return None if at is None else at.astimezone(UTC)


def _partitions(reader: LakeReader, seen: SeenInput | None) -> Iterator[PartitionFigures]:
    batches = reader.table("batches")
    newest = {} if batches is None else newest_of_the_stream(batches)
    done: dict[str, dict[str, int]] = json.loads(newest["offsets"]) if newest else {}
    bounds = {} if seen is None or seen.found is None else seen.found.bounds
    for topic in sorted({*done, *bounds}):
        reached, ends = done.get(topic, {}), bounds.get(topic, {})
        for partition in sorted({*reached, *ends}, key=int):
            at, (low, end) = reached.get(partition), ends.get(partition, (None, None))
            behind = None if end is None else end - (at if at is not None else low or 0)
            yield PartitionFigures(topic=topic, partition=int(partition), reached=at, end=end, lag=behind)


def _spec_in_force(agent: PlacedAgent) -> AgentSpec:
    """A version that cannot be used leaves that with which the server was started."""
    try:
        return spec_in_force(agent)
    except FlagstreamError:
        return agent.spec


def _budget(reader: LakeReader, spec: AgentSpec, now: datetime) -> Iterator[BudgetWindow]:
    limits, day = spec.llm.budget, now.replace(hour=0, minute=0, second=0, microsecond=0)
    minute = now.replace(second=0, microsecond=0)
    windows: tuple[tuple[Literal["day", "minute"], datetime, timedelta, int | None, float | None], ...] = (
        ("day", day, _DAY, limits.tokens_per_day, limits.usd_per_day),
        ("minute", minute, timedelta(minutes=1), limits.tokens_per_minute, limits.usd_per_minute),
    )
    for window, begin, length, tokens, usd in windows:
        if tokens is None and usd is None:
            continue
        spent, until = spent_since(reader, begin), begin + length
        amounts: tuple[tuple[Unit, float | None, float], ...] = (
            ("tokens", tokens, spent.tokens),
            ("usd", usd, spent.usd),
        )
        for unit, most, used in amounts:
            if most is not None:
                yield BudgetWindow(window=window, unit=unit, most=most, spent=used, until=until)


def _drift(agent: PlacedAgent) -> DriftOfAgent | None:
    file = agent.settings.drift(agent.name)
    found = kept_figures(file)
    if found is None:
        return None
    try:
        kept_at = datetime.fromtimestamp(file.stat().st_mtime, UTC)
    except FileNotFoundError:  # removed since it was read
        return None
    features = dict(sorted(found.features.items(), key=lambda each: -each[1]))
    return DriftOfAgent(**{**asdict(found), "features": features, "kept_at": kept_at})


def _tables(reader: LakeReader) -> Iterator[TableFigures]:
    names: tuple[Table, ...] = tuple(TABLES)
    for name in names:
        table = reader.table(name)
        if table is not None:
            sizes = table.file_sizes()
            yield TableFigures(table=name, files=len(sizes), bytes=sum(sizes), rows=table.count())


def _labels(reader: LakeReader, spec: AgentSpec, now: datetime) -> LabelsOfAgent:
    found = label_figures(reader, spec, now)
    matured = [
        MaturedFigures(
            days=each.maturity.total_seconds() / 86_400, labelled=each.labelled, precision=each.precision
        )
        for each in found.matured
    ]
    return LabelsOfAgent(labels=found.labels, delays=found.delays, matured=matured)
