"""What executors hold of entities is counted and shown with the batch that found it so."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest
from prometheus_client import generate_latest
from pyspark.sql import SparkSession

from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.home.trace_target import TraceTarget
from streaming.observe import observation as module
from streaming.observe.bucket_work import BucketWatch, BucketWork
from streaming.observe.observation import Observation
from streaming.observe.traces import open_traces
from streaming.profiles.entity_buckets import BucketFacts
from streaming.run.executors import ClusterFacts
from streaming.testing.live_lake import agent, events, run_live, without_broker
from tests.otlp_receiver import collector

NO_SESSION = cast("SparkSession", None)


class NoJobs:
    """Stands for the driver's JVM."""

    def __init__(self, session: SparkSession) -> None:
        assert session is NO_SESSION

    def of(self, _: object) -> list[object]:
        return []


def test_what_is_built_anew_is_told_once() -> None:
    facts = BucketFacts(buckets=4, rows=100, largest=40, rebuilt=4, most_bytes=7)
    watch = BucketWatch(ClusterFacts(buckets=facts))
    assert watch.of_batch() == BucketWork(4, 100, 40, 4, 7)
    assert watch.of_batch() == BucketWork(4, 100, 40, 0, 7)
    facts.rebuilt, facts.rows, facts.largest = 6, 0, 0
    assert watch.of_batch() == BucketWork(4, 0, 0, 2, 7)


@pytest.mark.parametrize("facts", [None, BucketFacts()])
def test_nothing_is_told_where_no_bucket_is_held(facts: BucketFacts | None) -> None:
    assert BucketWatch(ClusterFacts(buckets=facts)).of_batch() is None


def test_the_busiest_bucket_is_held_against_the_mean() -> None:
    assert BucketWork(4, 100, 40, 0, 0).skew == 1.6
    assert BucketWork(4, 100, 25, 0, 0).skew == 1.0
    assert BucketWork(4, 0, 0, 0, 0).skew is None
    assert "flagstream.buckets.skew" not in BucketWork(4, 0, 0, 0, 0).facts


def test_buckets_are_counted_and_stand_beside_the_counts_of_their_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ExecutorJobs", NoJobs)
    without_broker(monkeypatch)
    settings, spec = Settings.load(tmp_path, {}), agent()
    facts = BucketFacts(buckets=4, rows=100, largest=40, rebuilt=4, most_bytes=4_096)
    with collector() as found:
        traces = open_traces(TraceTarget(f"{found.url}/v1/traces"), spec.name)
        observation = Observation(settings, spec.name, traces)
        observation.on_cluster(NO_SESSION, ClusterFacts(buckets=facts))
        run_live(PlacedAgent(settings, spec), events(180), observer=observation)
        traces.close()
    said = generate_latest(observation.metrics.registry).decode()
    for line in (
        'flagstream_executor_buckets{agent="tester"} 4.0',
        'flagstream_executor_bucket_skew_ratio{agent="tester"} 1.6',
        'flagstream_executor_bucket_largest_bytes{agent="tester"} 4096.0',
        'flagstream_executor_buckets_rebuilt_total{agent="tester"} 4.0',
    ):
        assert f"\n{line}\n" in said, line
    first, second = (
        {name: value for name, value in each.attributes.items() if name.startswith("flagstream.buckets")}
        for each in sorted(found.named("batch"), key=lambda each: each.began_ns)
    )
    assert first == {
        "flagstream.buckets": 4,
        "flagstream.buckets.rows": 100,
        "flagstream.buckets.largest_rows": 40,
        "flagstream.buckets.rebuilt": 4,
        "flagstream.buckets.skew": 1.6,
    }
    assert second == {**first, "flagstream.buckets.rebuilt": 0}


def test_an_agent_without_buckets_has_no_series_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    settings, spec = Settings.load(tmp_path, {}), agent()
    observation = Observation(settings, spec.name, None)
    run_live(PlacedAgent(settings, spec), events(90), observer=observation)
    said = generate_latest(observation.metrics.registry).decode()
    assert "\nflagstream_events_stored_total" in said
    assert "\nflagstream_executor" not in said
