"""The whole pipeline against bare Spark, on the same topics in one run.

Three topics hold flat JSON (0.5 % malformed), nested JSON with arrays and escapes, and Avro. Both read each
of them (4 partitions) in micro-batches of the same size and append the same columns with the same codec to
Delta. Bare Spark parses with `from_json` or `from_avro` and writes; the pipeline also quarantines, removes
duplicates, scores two entities, raises alerts in Delta and publishes them in a transaction. Both are warmed
by one micro-batch that does not count, and take turns round by round. Bare Spark reads Kafka by its defaults.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sql
from pyspark.sql.streaming.listener import StreamingQueryProgress

from benchmarks.harness import Stage, bench_spec, report, say, stage
from benchmarks.shapes import SHAPES, Shape
from schemas.spec import AgentSpec
from streaming.batch.pipeline import ClosedBatch
from streaming.batch.runner import StreamRunner
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.events.simulated_json import json_keys, json_lines
from streaming.events.simulator import SimulatedBlock, Simulator, SimulatorSettings
from streaming.home.brokers import spark_connection
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.sending import Sender, SendSchedule
from streaming.kafka.topic_admin import ensure_topic
from streaming.profiles.entity_buckets import BucketPlace
from streaming.run.observer import UNOBSERVED_RUN, RunObserver
from streaming.run.opening import open_agent
from streaming.setup.downloads import fetch_jars, jar_paths
from streaming.setup.session import start_session
from streaming.versions.clients import Clients

_BLOCK = 100_000
_PARTITIONS = 4
_HISTORY = timedelta(days=14)
PROMISED = 2.0  # times bare Spark's rate, on each shape


def measure(events: int, batch: int, rounds: int, *, as_json: bool) -> bool:
    """Run both on each shape of events and print their rates and ratios, as medians.

    Returns whether the pipeline is at least `PROMISED` times as fast on each shape; those where it is not are
    named.

    Those of flat events are `pipeline_events_per_s`, `bare_spark_events_per_s` and `ratio`, those of the
    others begin with `nested_` and `avro_`.

    Args:
        events: events of each shape that count, after one micro-batch of warm-up.
        batch: micro-batch size.
        rounds: how often the two take turns.
    """
    figures: dict[str, object] = {}
    with stage() as place:
        bench = place.settings.cache / "jars" / "bench"
        fetch_jars(place.settings, folders=[bench], say=say)
        folders = (place.settings.jars_spark, bench)
        jars = [jar for folder in folders for jar in jar_paths(folder)]
        for shape in SHAPES:
            fill(place.bootstrap, shape.name, events + batch, shape.values)
            compile_kernels(AgentDefinition.of(_spec(place, shape, batch)))
        session = start_session(jars, work_dir=place.settings.spark)
        try:
            for shape in SHAPES:
                spec = _spec(place, shape, batch)
                figures |= _figures(shape, [_round(session, place, spec, shape, n) for n in range(rounds)])
        finally:
            session.stop()
    report({**figures, "events": events, "batch": batch}, as_json=as_json)
    short = below_promise(figures)
    if short:
        say(f"less than {PROMISED:g} times bare Spark: {', '.join(short)}")
    return not short


def below_promise(figures: Mapping[str, object]) -> list[str]:
    """Return the shapes of events whose ratio is lower than promised, each with its ratio."""
    ratios = {shape.name: figures[f"{_prefix(shape)}ratio"] for shape in SHAPES}
    return [f"{name} {ratio}" for name, ratio in ratios.items() if cast("float", ratio) < PROMISED]


def _prefix(shape: Shape) -> str:
    return "" if shape.name == "flat" else f"{shape.name}_"


def _spec(place: Stage, shape: Shape, batch: int) -> AgentSpec:
    """Return the benchmark's agent over a shape's topic."""
    spec = bench_spec(batch=batch)
    source = {"contract": shape.contract(place.settings.home), "topic": shape.name}
    sources = spec.data_sources.model_copy(
        update={"transactions": spec.data_sources.transactions.model_copy(update=source)}
    )
    return spec.model_copy(update={"data_sources": sources, "name": f"bench-{shape.name}"})


def _figures(shape: Shape, pairs: list[tuple[float, float]]) -> dict[str, object]:
    pipeline, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
    prefix = _prefix(shape)
    return {
        f"{prefix}pipeline_events_per_s": round(pipeline),
        f"{prefix}bare_spark_events_per_s": round(bare),
        f"{prefix}ratio": round(statistics.median(one / other for one, other in pairs), 3),
        f"{prefix}rounds": [[round(one), round(other)] for one, other in pairs],
    }


def _round(
    session: SparkSession, place: Stage, spec: AgentSpec, shape: Shape, number: int
) -> tuple[float, float]:
    bare = _bare_spark(session, place, spec, shape, number)
    say(f"{shape.name}, round {number + 1}: bare Spark {bare:,.0f} events/s")
    pipeline = run_pipeline(session, place, spec.model_copy(update={"name": f"{spec.name}-{number}"}))
    say(f"{shape.name}, round {number + 1}: pipeline {pipeline:,.0f} events/s")
    return pipeline, bare


def fill(
    bootstrap: str,
    topic: str,
    events: int,
    values: Callable[[SimulatedBlock], Sequence[bytes]] = json_lines,
    customers: int = 50_000,
) -> None:
    """Send simulated events of two weeks, of flat JSON 0.5 % malformed, at a fifth as many terminals."""
    say(f"sending {events:,} events")
    ensure_topic(bootstrap, topic, _PARTITIONS)
    simulator = Simulator(
        SimulatorSettings(customers=customers, terminals=customers // 5, malformed_share=0.005)
    )
    end = datetime.now(UTC)
    blocks = -(-events // _BLOCK)
    with Sender(bootstrap, topic, SendSchedule()) as sender:
        for number in range(blocks):
            start = end - _HISTORY * (1 - number / blocks)
            block = simulator.block(_BLOCK, start, start + _HISTORY / blocks)
            sender.send(json_keys(block), values(block))


class _Meter:
    """Counts what closed micro-batches read; the first one is warm-up."""

    def __init__(self) -> None:
        self._marks: list[tuple[float, int]] = []

    def note(self, rows: int) -> None:
        self._marks.append((time.perf_counter(), rows))

    def rate(self) -> float:
        (first, _), *counted = self._marks
        return sum(rows for _, rows in counted) / (counted[-1][0] - first)


def _bare_spark(session: SparkSession, place: Stage, spec: AgentSpec, shape: Shape, number: int) -> float:
    source = spec.data_sources.transactions
    folder = place.settings.home / f"bare-{shape.name}-{number}"
    frame = (
        session.readStream.format("kafka")
        .options(**spark_connection(place.bootstrap))
        .option("subscribe", source.subscription.first)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", source.max_records_per_batch)
        .load()
    )
    session.conf.set("spark.sql.parquet.compression.codec", "zstd")
    writer = _parsed(frame, spec, shape).writeStream.format("delta")
    query = writer.option("checkpointLocation", str(folder / "checkpoint")).start(str(folder / "table"))
    query.processAllAvailable()
    batches = [progress for progress in query.recentProgress if progress.numInputRows > 0]
    query.stop()
    ends = [_ended(progress) for progress in batches]
    return sum(progress.numInputRows for progress in batches[1:]) / (ends[-1] - ends[0])


def _ended(progress: StreamingQueryProgress) -> float:
    begun = datetime.fromisoformat(progress.timestamp)
    return begun.timestamp() + progress.durationMs["triggerExecution"] / 1_000


def _parsed(frame: DataFrame, spec: AgentSpec, shape: Shape) -> DataFrame:
    """The same columns as the transactions table holds, as one would write it with Spark alone."""
    contract = AgentDefinition.of(spec).contract
    columns = [column for column in contract.columns if column.source is not None]
    event = shape.parsed(sql.col("value"))
    named = [sql.expr(f"event.{column.source}").alias(column.name) for column in columns]
    parsed = frame.select(event.alias("event"), "partition", "offset", "timestamp")
    return parsed.select(*named, "partition", "offset", sql.col("timestamp").alias("kafka_timestamp"))


def run_pipeline(
    session: SparkSession,
    place: Stage,
    spec: AgentSpec,
    llm: str = "none",
    observer: RunObserver = UNOBSERVED_RUN,
    buckets: BucketPlace | None = None,
    closed: Callable[[ClosedBatch], None] = lambda _: None,
) -> float:
    """Run an agent over all that its topic holds; returns events/s after the first micro-batch.

    Args:
        closed: called with every batch that is closed.
    """
    ensure_topic(place.bootstrap, spec.alerts.topic, 1)
    meter = _Meter()
    with (
        Clients(place.settings, llm, watch=observer.calls) as clients,
        open_agent(
            PlacedAgent(place.settings, spec),
            place.bootstrap,
            clients,
            observer=observer.batches,
            buckets=buckets,
        ) as agent,
        observer.working(agent, spec),
    ):

        def note(batch: ClosedBatch) -> None:
            meter.note(batch.row["read"])
            closed(batch)

        runner = StreamRunner(session, agent.pipeline, agent.stream, note)
        runner.run(threading.Event(), until_idle=True)
    return meter.rate()
