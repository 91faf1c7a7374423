"""What watching costs: processor time of the pipeline unwatched, with metrics, and with metrics and traces.

The three read the same topic and take turns, each watched run beside an unwatched one, in an order that is
turned round from round to round. Metrics are served and scraped every five seconds; traces go to a collector
in another process. What counts is the processor time of this process, all its threads, from before an agent
is opened until it is closed: broker, Spark and collector have their own, and would make the share smaller.
What metrics cost is the median over all pairs, with the interval that holds it in 95 of 100 cases. Beside it
stands the time that the batches themselves spend on being watched.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from pyspark.sql import SparkSession

from benchmarks.harness import Stage, bench_spec, report, say, stage
from benchmarks.pairs import Overhead
from benchmarks.throughput import fill, run_pipeline
from schemas.spec import AgentSpec
from streaming.batch.observer import BatchSeen
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.listen import ListenAddress
from streaming.home.settings import Settings
from streaming.home.trace_target import TraceTarget
from streaming.observe.endpoint import MetricsEndpoint
from streaming.observe.observation import Observation, tracing
from streaming.run.observer import UNOBSERVED_RUN
from streaming.setup.downloads import fetch_jars, jar_paths
from streaming.setup.session import start_session

MOST_PERCENT = 1.0
_SCRAPE_SECONDS = 5.0
_MILLION = 1_000_000
_COLLECTOR = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@dataclass(frozen=True)
class Spent:
    """Processor seconds of a run, and of them those in which batches were watched."""

    whole: float
    watching: float = 0.0


class TimedObservation(Observation):
    """Measures the processor time that batches spend on being watched."""

    spent = 0.0

    def closed(self, seen: BatchSeen) -> None:
        """See Observation."""
        began = time.thread_time()
        super().closed(seen)
        self.spent += time.thread_time() - began


def measure(events: int, batch: int, rounds: int, *, as_json: bool) -> bool:
    """Run all three in turns and print their processor seconds per million events.

    Args:
        events: that count, after one micro-batch of warm-up.
        batch: micro-batch size.
        rounds: how often the three take turns.

    Returns:
        Whether metrics cost no more than `MOST_PERCENT`, by the median of all pairs.
    """
    with stage() as place, _collector() as traces:
        fetch_jars(place.settings, say=say)
        spec = bench_spec(batch=batch)
        topic = spec.data_sources.transactions.subscription.first
        fill(place.bootstrap, topic, events + batch)
        compile_kernels(AgentDefinition.of(spec))
        session = start_session(jar_paths(place.settings.jars_spark), work_dir=place.settings.spark)
        try:
            _round(session, place, spec, traces, -1)  # so that nothing is the first of its kind below
            found = [_round(session, place, spec, traces, number) for number in range(rounds)]
        finally:
            session.stop()
    millions = (events + batch) / _MILLION
    report({**_figures(found, millions), "events": events, "batch": batch}, as_json=as_json)
    return _overhead(found, "metrics").median <= MOST_PERCENT


def _round(
    session: SparkSession, place: Stage, spec: AgentSpec, traces: TraceTarget, number: int
) -> dict[str, Spent]:
    """Run each once, the unwatched between the others; which of those begins changes from round to round."""
    kinds = ["metrics", "off", "traces"][:: 1 if number % 2 else -1]
    found = {}
    for kind in kinds:
        named = spec.model_copy(update={"name": f"bench-{kind}-{number + 1}"})
        found[kind] = _run(session, place, named, kind, traces)
        say(f"round {number + 1}, {kind}: {found[kind].whole:.2f} s")
    return found


def _run(session: SparkSession, place: Stage, spec: AgentSpec, kind: str, traces: TraceTarget) -> Spent:
    began = time.process_time()
    if kind == "off":
        run_pipeline(session, place, spec, observer=UNOBSERVED_RUN)
        return Spent(time.process_time() - began)
    settings = replace(place.settings, traces=traces if kind == "traces" else None)
    with _watched(settings, spec.name) as observation:
        run_pipeline(session, place, spec, observer=observation)
    return Spent(time.process_time() - began, observation.spent)


@contextmanager
def _watched(settings: Settings, agent: str) -> Iterator[TimedObservation]:
    """Watch, serve and scrape."""
    ended = threading.Event()
    with tracing(settings, agent) as traces:
        observation = TimedObservation(settings, agent, traces)
        served = (observation.metrics.registry, observation.readiness, observation.refresh)
        endpoint = MetricsEndpoint(ListenAddress(0), *served)
        scraping = threading.Thread(target=_scrape, args=(endpoint.url, ended))
        scraping.start()
        try:
            yield observation
        finally:
            ended.set()
            scraping.join()
            endpoint.close()


def _scrape(url: str, ended: threading.Event) -> None:
    while not ended.wait(_SCRAPE_SECONDS):
        with urllib.request.urlopen(url, timeout=_SCRAPE_SECONDS) as reply:
            reply.read()


@contextmanager
def _collector() -> Iterator[TraceTarget]:
    """Take traces in a process of its own, and forget them."""
    child = subprocess.Popen([sys.executable, "-c", _COLLECTOR], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        yield TraceTarget(f"http://127.0.0.1:{int(child.stdout.readline())}/v1/traces")
    finally:
        child.terminate()
        child.wait()


def _figures(found: list[dict[str, Spent]], millions: float) -> dict[str, object]:
    median = statistics.median
    off = median(each["off"].whole for each in found) / millions
    figures: dict[str, object] = {"off_cpu_s_per_million": round(off, 3)}
    for kind in ("metrics", "traces"):
        whole = median(each[kind].whole for each in found) / millions
        watching = median(each[kind].watching for each in found) / millions
        over = _overhead(found, kind)
        figures |= {
            f"{kind}_cpu_s_per_million": round(whole, 3),
            f"{kind}_overhead_percent": round(over.median, 2),
            f"{kind}_overhead_percent_from_to": [round(over.low, 2), round(over.high, 2)],
            f"{kind}_in_batches_ms_per_million": round(1_000 * watching, 1),
            f"{kind}_in_batches_percent": round(100 * watching / off, 3),
        }
    return {
        **figures,
        "metrics_conclusion": _overhead(found, "metrics").conclusion(MOST_PERCENT),
        "rounds": [{name: round(each.whole, 2) for name, each in row.items()} for row in found],
    }


def _overhead(found: Sequence[dict[str, Spent]], kind: str) -> Overhead:
    return Overhead.of([100 * (each[kind].whole / each["off"].whole - 1) for each in found])
