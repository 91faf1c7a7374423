"""Event on Kafka → alert in the hands of a read_committed consumer, at a steady open-loop rate, LLM off.

Sender, broker, Spark's JVM, the driver and the consumer share the machine. The clock starts at the event's
own Kafka timestamp, set by the sender, and stops when the consumer holds the committed alert.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping

import numpy as np

from benchmarks.harness import Stage, bench_spec, report, say, stage
from benchmarks.stores import BenchStore, bench_store
from schemas.spec import AgentSpec
from streaming.batch.runner import StreamRunner
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.topic import committed_messages
from streaming.kafka.topic_admin import ensure_topic
from streaming.run.opening import open_agent
from streaming.setup.downloads import jar_paths
from streaming.setup.session import start_session
from streaming.versions.clients import Clients

_DRAIN_SECONDS = 10.0
_BATCH = 100_000


class Arrivals:
    """Notes when each alert arrives, by its transaction's id, in seconds since 1970."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._consume)
        self.times: dict[str, float] = {}

    def __enter__(self) -> Arrivals:
        """Begin to consume."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._done.set()
        self._thread.join()

    def _consume(self) -> None:
        messages = committed_messages(self._bootstrap, self._topic, follow=True, stop=self._done.is_set)
        for message in messages:
            arrived = time.time()
            self.times[json.loads(message.value() or b"")["transaction_id"]] = arrived


def measure(
    rate: float,
    warm_up: float,
    seconds: float,
    store: str | None = None,
    request_delay: float = 0.0,
    *,
    as_json: bool,
) -> None:
    """Run and print `p50_s`, `p99_s`, `max_s`, `events_per_s`, and for a store its requests per batch.

    Args:
        rate: events per second, sent whether or not the pipeline keeps up.
        warm_up: seconds at the start that do not count.
        seconds: seconds that count.
        store: a server that is started here, or the URI of a store; None for a lake below the home.
        request_delay: seconds that each request to it takes besides.
    """
    spec = bench_spec(batch=_BATCH)
    with bench_store(store, request_delay) as kept, stage(kept.uri) as place:
        ensure_topic(place.bootstrap, spec.data_sources.transactions.subscription.first)
        ensure_topic(place.bootstrap, spec.alerts.topic, 1)
        compile_kernels(AgentDefinition.of(spec))
        with Arrivals(place.bootstrap, spec.alerts.topic) as consumer:
            requests = _run(place, spec, kept, rate, warm_up + seconds)
        delays, events = _delays(place, spec, consumer.times, warm_up)
    figures: dict[str, object] = {
        "p50_s": round(float(np.percentile(delays, 50)), 3),
        "p99_s": round(float(np.percentile(delays, 99)), 3),
        "max_s": round(float(delays.max()), 3),
        "events_per_s": round(events / seconds, 1),
        "alerts": len(delays),
        **requests,
    }
    report(figures, as_json=as_json)


def _run(place: Stage, spec: AgentSpec, kept: BenchStore, rate: float, seconds: float) -> dict[str, object]:
    """Run the agent and return the requests that a batch took, by kind."""
    settings, stop = place.settings, threading.Event()
    session = start_session(jar_paths(settings.jars_spark), work_dir=settings.spark)
    try:
        with open_agent(PlacedAgent(settings, spec), place.bootstrap, Clients(settings, "none")) as agent:
            feeding = threading.Thread(target=_feed, args=(place, spec, rate, seconds, stop))
            before = kept.counted()
            feeding.start()
            StreamRunner(session, agent.pipeline, agent.stream).run(stop)
            feeding.join()
            return _per_batch(place, spec, kept.counted() - before)
    finally:
        session.stop()


def _per_batch(place: Stage, spec: AgentSpec, requests: Counter[str]) -> dict[str, object]:
    if not requests:
        return {}
    batches = LakeReader.of(PlacedAgent(place.settings, spec)).count("batches")
    found = {name: round(count / batches, 1) for name, count in sorted(requests.items())}
    return {"batches": batches, "requests_per_batch": found}


def _feed(place: Stage, spec: AgentSpec, rate: float, seconds: float, stop: threading.Event) -> None:
    """Send from a process of its own, then leave time for the last alerts."""
    say(f"sending {rate:g} events/s for {seconds:g} s")
    main = "from streaming.cli.root import main; main()"
    options = [
        "--topic",
        spec.data_sources.transactions.subscription.first,
        "--rate",
        str(rate),
        "--seconds",
        str(seconds),
    ]
    environ = {**os.environ, "FLAGSTREAM_KAFKA": place.bootstrap}
    try:
        command = [sys.executable, "-c", main, "simulate", "--json", *options]
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
        stop.wait(_DRAIN_SECONDS)
    finally:
        stop.set()


def _delays(
    place: Stage, spec: AgentSpec, arrivals: Mapping[str, float], warm_up: float
) -> tuple[np.ndarray, int]:
    """Seconds per alert, for events after the warm-up, and how many such events there were."""
    sent = sent_times(PlacedAgent(place.settings, spec))
    first = min(sent.values()) + warm_up
    return delays_since(sent, arrivals, first), sum(each >= first for each in sent.values())


def sent_times(agent: PlacedAgent) -> dict[str, float]:
    """Return when the broker was sent each stored event, by its id, in seconds since 1970."""
    rows = LakeReader.of(agent).rows("transactions", ["transaction_id", "kafka_timestamp"])
    times = rows["kafka_timestamp"].cast("int64").to_numpy() / 1e6
    return dict(zip(rows["transaction_id"].to_pylist(), times.tolist(), strict=True))


def delays_since(
    sent: Mapping[str, float], arrivals: Mapping[str, float], begin: float, end: float = np.inf
) -> np.ndarray:
    """Return the seconds that alerts took of the events sent within a span, float64[alerts]."""
    return np.array(
        [arrived - sent[name] for name, arrived in arrivals.items() if begin <= sent.get(name, -np.inf) < end]
    )
