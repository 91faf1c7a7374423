"""The same topic through `execution: local` and through executors of a Spark cluster, in turns.

Master, workers and executors are processes of this machine, so what they take counts in processor time of the
driver (this process and Spark's JVM) and of executors (their JVMs and Python processes). The first
micro-batch is warm-up. What scoring takes beside many entities is measured by `cluster_scoring`, what follows
for more cores is `cluster_model`'s arithmetic.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from itertools import product
from pathlib import Path

import psutil
from pyspark.sql import SparkSession

from benchmarks.cluster_model import ClusterRun, RateModel
from benchmarks.cluster_scoring import WatchedJobs, population_figures, scoring_figures
from benchmarks.harness import Stage, bench_spec, report, say, stage
from benchmarks.throughput import fill, run_pipeline
from schemas.batch_key import BatchKey
from schemas.cluster import SparkClusterSettings
from schemas.spec import AgentSpec
from streaming.batch.pipeline import ClosedBatch
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.observe.executor_jobs import ExecutorJob, ExecutorJobs
from streaming.profiles.entity_buckets import BucketPlace
from streaming.setup.cluster import cluster_configuration
from streaming.setup.downloads import jar_paths
from streaming.setup.session import forget, session_on
from streaming.setup.spark_jvm import EVERYWHERE_THE_SAME, launch_spark
from streaming.testing.spark_cluster import SparkCluster, SparkWorker, spark_cluster

_EXECUTORS = (1, 2)
_BUCKETS = 16
_TOPIC = "bench-cluster"
# What is done one batch after the other.
_IN_TURNS = ("store", "score", "triage", "alert", "publish", "close")


def measure(
    events: int, batch: int, rounds: int, customers: int, most_entities: int, *, as_json: bool
) -> None:
    """Print what the same events take locally and with executors, then what scoring takes by entities.

    With executors twice: the driver scores alone, and executors hold profiles in 16 buckets of each kind.
    Figures are medians of the rounds.

    Args:
        events: that count, after one micro-batch of warm-up.
        batch: micro-batch size.
        rounds: how often they take turns.
        customers: whose events they are, at a fifth as many terminals.
        most_entities: beside which scoring is measured, and beside a tenth of them.
    """
    begun, figures = time.monotonic(), dict[str, object]()
    with stage() as place:
        fill(place.bootstrap, _TOPIC, events + batch, customers=customers)
        compile_kernels(AgentDefinition.of(_spec(batch, "kernels")))
        with spark_cluster(place.settings.home / "cluster", max(_EXECUTORS)) as cluster:
            runs = [_round(place, cluster, batch, number) for number in range(rounds)]
            figures |= _of_runs({name: _median([each[name] for each in runs]) for name in runs[0]})
            figures |= population_figures()
            asked = SparkClusterSettings(master=cluster.master, executors=max(_EXECUTORS), buckets=_BUCKETS)
            for entities in (most_entities // 10, most_entities):
                with _session(place, asked, f"entities-{entities}") as session:
                    figures |= scoring_figures(session, cluster, place, entities, batch, _BUCKETS)
    said = {"events": events, "batch": batch, "rounds": rounds, "customers": customers}
    took = {"measured_in_s": round(time.monotonic() - begun)}
    report({**figures, **said, **took}, as_json=as_json)


def _of_runs(runs: dict[str, ClusterRun]) -> dict[str, object]:
    local, held = runs["local"], {count: runs[_name(count, _BUCKETS)] for count in _EXECUTORS}
    total = {name: (each.driver + each.executors) / local.driver for name, each in runs.items()}
    model = RateModel(held[1]).figures(
        {count: each.rate for count, each in held.items()}, os.cpu_count() or 1
    )
    return {
        **{f"{name}_{what}": value for name, each in runs.items() for what, value in each.figures().items()},
        **{f"{name}_cpu_over_local": round(value, 2) for name, value in total.items() if name != "local"},
        **model,
    }


def _name(executors: int, buckets: int | None) -> str:
    return f"executors_{executors}" if buckets is None else f"executors_{executors}_buckets_{buckets}"


def _round(place: Stage, cluster: SparkCluster, batch: int, number: int) -> dict[str, ClusterRun]:
    found = {"local": _run(place, None, cluster, _spec(batch, f"local_{number}"))}
    for count, buckets in product(_EXECUTORS, (None, _BUCKETS)):
        asked = SparkClusterSettings(master=cluster.master, executors=count, buckets=buckets)
        name = _name(count, buckets)
        found[name] = _run(place, asked, cluster, _spec(batch, f"{name}_{number}"))
    return found


def _run(
    place: Stage, asked: SparkClusterSettings | None, cluster: SparkCluster, spec: AgentSpec
) -> ClusterRun:
    there = replace(place, settings=replace(place.settings, cluster=asked))
    others = {each.pid for each in psutil.Process().children(recursive=True)}  # the broker is one of them
    with _session(there, asked, spec.name) as session:
        begun = psutil.Process().children(recursive=True)
        ours = [psutil.Process(), *(each for each in begun if each.pid not in others)]
        marks, carried, held = _RunMarks(ours, cluster.workers), WatchedJobs(session), None
        if asked is not None and asked.buckets is not None:
            held = BucketPlace(carried, asked.buckets, there.settings.spark)
        jobs = ExecutorJobs(session)
        rate = run_pipeline(session, there, spec, buckets=held, closed=marks.closed)
        found = marks.taken(rate, [] if asked is None else jobs.of(marks.newest), carried)
    say(f"{spec.name}: {found.figures()}")
    return found


@dataclass(frozen=True)
class _Mark:
    """How far a run was when a batch was closed: events so far, seconds of processor time and of steps."""

    at_ns: int
    read: int
    driver: float
    executors: float
    in_turns: float
    store: float


class _RunMarks:
    """Notes what a run takes from batch to batch.

    Args:
        ours: the driver's processes.
        workers: whose executors are counted.
    """

    newest: BatchKey

    def __init__(self, ours: Sequence[psutil.Process], workers: Sequence[SparkWorker]) -> None:
        self._ours, self._workers = ours, [psutil.Process(each.process.pid) for each in workers]
        self._marks: list[_Mark] = []

    def closed(self, batch: ClosedBatch) -> None:
        """Note where the run is, and say so."""
        row, before = batch.row, self._marks[-1] if self._marks else None
        seconds = json.loads(row["durations"])
        self.newest = BatchKey(row["query_id"], row["batch_id"])
        there = [each for worker in self._workers for each in worker.children(recursive=True)]
        self._marks.append(
            _Mark(
                time.time_ns(),
                row["read"] + (before.read if before else 0),
                _cpu(self._ours),
                _cpu(there),
                sum(seconds.get(step, 0.0) for step in _IN_TURNS) + (before.in_turns if before else 0.0),
                seconds.get("store", 0.0) + (before.store if before else 0.0),
            )
        )
        say(f"  batch {row['batch_id']}: {row['read']:,} events in {batch.seconds:.1f} s")

    def taken(self, rate: float, jobs: Sequence[ExecutorJob], carried: WatchedJobs) -> ClusterRun:
        """Return what an event took after the first batch.

        Args:
            rate: events a second.
            jobs: that executors did in the run; those of no batch are about buckets.
            carried: when these were waited for.
        """
        first, last = self._marks[0], self._marks[-1]
        events = last.read - first.read
        own = last.in_turns - first.in_turns - _waited(jobs, carried.steps, first.at_ns)
        own += sum(stop - start for start, stop in carried.asked if start > first.at_ns) / 1e9
        return ClusterRun(
            rate,
            (last.driver - first.driver) / events * 1e6,
            (last.executors - first.executors) / events * 1e6,
            own / events * 1e6,
            (last.store - first.store) / events * 1e6,
            sum(each.result_bytes for each in jobs) / last.read,
        )


def _waited(jobs: Sequence[ExecutorJob], steps: Sequence[tuple[int, int]], since: int) -> float:
    """Return the seconds that jobs about steps of buckets took since a moment."""
    of_buckets = [((each.began_ns + each.ended_ns) // 2, each) for each in jobs if each.batch is None]
    return sum(
        (each.ended_ns - each.began_ns) / 1e9
        for middle, each in of_buckets
        if any(since < start <= middle <= stop for start, stop in steps)
    )


@contextmanager
def _session(place: Stage, asked: SparkClusterSettings | None, name: str) -> Iterator[SparkSession]:
    say(f"{name}: a session begins")
    jars = jar_paths(place.settings.jars_spark)
    folder = Path(place.settings.spark) / name
    more = {} if asked is None else cluster_configuration(asked, jars, EVERYWHERE_THE_SAME)
    with ExitStack() as ended:
        jvm = launch_spark(jars, folder)
        ended.callback(jvm.end)
        session = session_on(jvm, folder, more=more)
        ended.callback(forget, session)
        session.range(1).count()
        yield session


def _spec(batch: int, name: str) -> AgentSpec:
    spec = bench_spec(batch=batch)
    source = spec.data_sources.transactions.model_copy(update={"topic": _TOPIC})
    sources = spec.data_sources.model_copy(update={"transactions": source})
    return spec.model_copy(update={"data_sources": sources, "name": f"bench-{name.replace('_', '-')}"})


def _cpu(processes: Sequence[psutil.Process]) -> float:
    """Seconds of processor time of processes, and of those they had started and have ended."""
    found = 0.0
    for each in processes:
        try:
            found += sum(each.cpu_times()[:4])
        except psutil.NoSuchProcess:  # whoever had started it counts it from now on
            continue
    return found


def _median(runs: Sequence[ClusterRun]) -> ClusterRun:
    return ClusterRun(
        *(statistics.median(getattr(each, field.name) for each in runs) for field in fields(ClusterRun))
    )
