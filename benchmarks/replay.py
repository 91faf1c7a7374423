"""An exact replay against the live pipeline, over the same events in one run.

The live pipeline stores, scores and alerts on events from Kafka, LLM off, as in the throughput benchmark; its
figure leaves out the first micro-batch. The replay then decides all stored events anew and compares every
alert, from opening the tables to the last comparison; compiled code is loaded before.
"""

from __future__ import annotations

import resource
import time

from benchmarks.harness import bench_spec, report, say, stage
from benchmarks.throughput import fill, run_pipeline
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.setup.downloads import jar_paths
from streaming.setup.session import start_session


def measure(events: int, batch: int, *, as_json: bool) -> None:
    """Print `events_per_s` of the replay, `live_events_per_s`, their `ratio`, and the differences found."""
    spec = bench_spec(batch=batch)
    with stage() as place:
        fill(place.bootstrap, spec.data_sources.transactions.subscription.first, events + batch)
        compile_kernels(AgentDefinition.of(spec))
        session = start_session(jar_paths(place.settings.jars_spark), work_dir=place.settings.spark)
        try:
            live = run_pipeline(session, place, spec)
        finally:
            session.stop()
        say(f"live {live:,.0f} events/s; replaying")
        before = _peak_mib()
        begun = time.perf_counter()
        found = run_replay(PlacedAgent(place.settings, spec), ReplaySpan())
        seconds = time.perf_counter() - begun
    figures: dict[str, object] = {
        "events_per_s": round(found.rows / seconds),
        "live_events_per_s": round(live),
        "ratio": round(found.rows / seconds / live, 3),
        "events": found.rows,
        "alerts": found.alerts,
        "differences": len(found.differences),
        "peak_memory_grew_mib": _peak_mib() - before,
    }
    report(figures, as_json=as_json)


def _peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
