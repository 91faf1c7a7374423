"""Counts what batches have come to, from what closing them knows already."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version

import pyarrow as pa
import pyarrow.compute as pc

from agent.triage.triage import TriageResult
from streaming.batch.deciders import Decided
from streaming.batch.observer import BatchSeen
from streaming.batch.steps import BatchStep
from streaming.observe.health_metrics import StateMetrics
from streaming.observe.metrics import DecisionMetrics, Metrics, ModelMetrics, StreamMetrics

_VERSION = version("flagstream")


def count_batch(metrics: Metrics, seen: BatchSeen) -> None:
    """Take in a closed batch."""
    _count_events(metrics.stream, seen)
    _count_asked(metrics.model, seen)
    if seen.decided is not None:
        _count_alerts(metrics.decisions, seen.decided)
        metrics.stream.latency.observe(_latencies(seen, seen.decided))
        for result in seen.decided.results:
            count_answers(metrics.model, result)
    _note_state(metrics.state, seen)
    decider = seen.deciders.engine.decider
    metrics.health.info.replace({(_VERSION, decider.spec.version, decider.model or "none"): 1.0})


def count_answers(model: ModelMetrics, result: TriageResult) -> None:
    """Take in what became of questions, group by group."""
    for outcome, count in Counter(call.outcome for call in result.made).items():
        model.answers.add(count, outcome)


def count_spent(model: ModelMetrics, input_tokens: int, output_tokens: int, usd: float) -> None:
    """Take in what questions have taken."""
    model.tokens.add(input_tokens, "input")
    model.tokens.add(output_tokens, "output")
    model.cost.add(usd)


def _count_events(stream: StreamMetrics, seen: BatchSeen) -> None:
    row = seen.row
    stream.read.add(row["read"])
    stream.stored.add(row["stored"])
    stream.duplicates.add(row["duplicates"])
    stream.late.add(row["late"])
    stream.batches.add(1, "closed")
    stream.closed_at.put(row["closed_at"].timestamp())
    for metric, name in ((stream.quarantined, "rejected"), (stream.filtered, "filtered_by_reason")):
        for reason, count in json.loads(row[name] or "{}").items():
            metric.add(count, reason)
    for time_ in seen.times:
        stream.steps.observe([(time_.ended_ns - time_.began_ns) / 1e9], time_.step)


def _count_asked(model: ModelMetrics, seen: BatchSeen) -> None:
    row = seen.row
    model.degraded.add(row["degraded"])
    count_spent(model, row["input_tokens"], row["output_tokens"], row["cost_usd"])


def _count_alerts(decisions: DecisionMetrics, decided: Decided) -> None:
    given = [each for result in decided.results for each in result.classifications]
    for labels, count in Counter((each.severity, each.category, each.source) for each in given).items():
        decisions.alerts.add(count, *labels)
    rules = Counter(name for flagged in decided.flagged for row in flagged.rows for name in row.rules)
    for rule, count in rules.items():
        decisions.rules.add(count, rule)
    decisions.flagged.add(len(given) + len(decided.refused))
    decisions.refused.add(len(decided.refused))
    threshold = decided.judged[0].scored.threshold
    if len(threshold):
        decisions.threshold.put(float(threshold[-1]))


def _latencies(seen: BatchSeen, decided: Decided) -> Iterator[float]:
    """Yield for each alert the seconds from its event's time on Kafka to its commit.

    An absence counts from the event that made it certain.
    """
    first, stamps = seen.decision.first_sequence, seen.rows["kafka_timestamp"]
    for flagged in decided.flagged:
        about = zip(flagged.table["sequence"].to_pylist(), flagged.passed_by, strict=True)
        places = [(own if passed is None else passed) - first for own, passed in about]
        known = [each for each in places if 0 <= each < len(stamps)]
        micros = pc.take(stamps, pa.array(known, pa.int64())).cast(pa.int64()).to_pylist()
        committed = _committed_at(seen)
        yield from (max(committed - each / 1e6, 0.0) for each in micros if each is not None)


def _committed_at(seen: BatchSeen) -> float:
    ended = (each.ended_ns for each in seen.times if each.step == BatchStep.ALERT)
    return next(ended, time.time_ns()) / 1e9


def _note_state(state: StateMetrics, seen: BatchSeen) -> None:
    engine = seen.deciders.engine
    for entity, (count, size) in engine.memory.scorer.profile_sizes.items():
        state.profiles.put(count, entity)
        state.profile_bytes.put(size, entity)
    state.profiles_at.put(seen.row["closed_at"].timestamp())
    state.checkpoint_behind.put(engine.memory.next_sequence - engine.checkpoints.reached)
