"""What a model server that is stalled for good costs the stream: pairs of runs on one topic, in turns.

One run of a pair has the LLM off. The other defers its alerts to a server that accepts every request and
never answers. Either has a lake of its own and reads the whole topic; the first micro-batch is warm-up.
"""

from __future__ import annotations

import socket
import statistics
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pyspark.sql import SparkSession

from benchmarks.harness import Stage, bench_spec, report, say, stage
from benchmarks.throughput import fill, run_pipeline
from schemas.llm import Llm
from schemas.spec import AgentSpec
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.run.status import read_status
from streaming.setup.downloads import jar_paths
from streaming.setup.session import start_session


def measure(events: int, batch: int, pairs: int, *, as_json: bool) -> None:
    """Run the pairs and print `ratio`, the median over pairs of stalled to off, and each side's median.

    Args:
        events: events that count, after one micro-batch of warm-up.
        batch: micro-batch size.
        pairs: how often the two take turns; which goes first alternates.
    """
    spec = bench_spec(batch=batch)
    with stage() as place, silent_server() as address:
        fill(place.bootstrap, spec.data_sources.transactions.subscription.first, events + batch)
        compile_kernels(AgentDefinition.of(spec))
        session = start_session(jar_paths(place.settings.jars_spark), work_dir=place.settings.spark)
        try:
            found = [_pair(session, place, spec, address, number) for number in range(pairs)]
        finally:
            session.stop()
    off, stalled = (statistics.median(side) for side in zip(*found, strict=True))
    figures: dict[str, object] = {
        "ratio": round(statistics.median(one / other for other, one in found), 3),
        "llm_off_events_per_s": round(off),
        "llm_stalled_events_per_s": round(stalled),
        "pairs": [[round(one), round(other)] for one, other in found],
        "events": events,
        "batch": batch,
    }
    report(figures, as_json=as_json)


def _pair(
    session: SparkSession, place: Stage, spec: AgentSpec, address: str, number: int
) -> tuple[float, float]:
    """Return the events/s with the LLM off and stalled."""
    off = spec.model_copy(update={"name": f"off-{number}"})
    stalled = spec.model_copy(update={"name": f"stalled-{number}", "llm": Llm(base_url=address)})
    rates: dict[str, float] = {}
    for each in (off, stalled) if number % 2 == 0 else (stalled, off):
        rates[each.name] = run_pipeline(session, place, each, "auto")
        say(f"{each.name}: {rates[each.name]:,.0f} events/s")
    _check_asked(place, stalled)
    return rates[off.name], rates[stalled.name]


def _check_asked(place: Stage, spec: AgentSpec) -> None:
    """A run that never asked would show nothing."""
    status = read_status(PlacedAgent(place.settings, spec), None)
    if status.totals["llm_calls"] == 0 or status.late["answered"] > 0:
        raise AssertionError(f"expected questions without answers, found {status.totals} and {status.late}")


@contextmanager
def silent_server() -> Iterator[str]:
    """Run a server that accepts every connection and never says a word; yield its API root."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    held.append(listening.accept()[0])

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for each in held:
            each.close()
