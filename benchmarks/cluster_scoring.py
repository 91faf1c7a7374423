"""What scoring takes beside many entities, here and in buckets of executors, and what the driver does of it.

Rows are made up and nothing is stored: a scorer is restored from profiles of all entities, scores batches
here, then hands entities over to buckets and goes on. In between one executor is killed, and one customer has
30 % of all rows.
"""

from __future__ import annotations

import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from benchmarks.harness import Stage, bench_spec, say
from benchmarks.recovery import payments
from streaming.arrays.compilation import Ints
from streaming.arrays.cores import ALL_CORES, Cores
from streaming.definition.agent_definition import AgentDefinition
from streaming.detection.scoring import Scorer
from streaming.profiles.bucket_task import BucketAnswer, BucketOrder, HeldBuckets
from streaming.profiles.entity_buckets import BucketPlace
from streaming.run.bucket_jobs import BucketJobs
from streaming.testing.drivers import wait_until
from streaming.testing.spark_cluster import SparkCluster

_FOLDED = 500_000
_BATCHES = 3
_BUSY = 0.3
_ALONE_ROWS = 100_000
_ALONE_ENTITIES = 200_000
_SECONDS = 120.0


class WatchedJobs(BucketJobs):
    """Notes when orders were carried out, in nanoseconds since 1970 UTC, those that ask for states apart."""

    def __init__(self, session: SparkSession) -> None:
        super().__init__(session, threading.Event())
        self.steps, self.asked = list[tuple[int, int]](), list[tuple[int, int]]()

    def carry(self, orders: Sequence[BucketOrder]) -> Sequence[BucketAnswer]:
        """See BucketJobs."""
        begun = time.time_ns()
        answers = super().carry(orders)
        (self.asked if any(each.with_state for each in orders) else self.steps).append(
            (begun, time.time_ns())
        )
        return answers


class KnownAnswers:
    """Carries orders out in this process, or answers at once as it did before.

    Attributes:
        run: see BucketCarrier.
        again: whether the answers of the time before are given.
        answered: when the last answer was taken, by the clock of performance.
    """

    def __init__(self) -> None:
        self.run, self.again, self.answered = "bench", False, 0.0
        self._held, self._kept = HeldBuckets(), list[BucketAnswer]()

    def carry(self, orders: Sequence[BucketOrder]) -> Iterable[BucketAnswer]:
        """See BucketCarrier."""
        if not self.again:
            self._kept = [self._held.carry_out(order) for order in orders]
        yield from self._kept
        self.answered = time.perf_counter()


def population_figures(rounds: int = 5) -> dict[str, object]:
    """Return how many rows a second the driver's own share of scoring gets through, on one core and on all.

    `population_rows_per_s` is the population pass to the end of scoring, with all features at hand;
    `driver_rows_per_s` is all that the driver does for a batch in buckets: it shares rows out, takes features
    in, makes the pass, and keeps what it takes to build buckets anew.
    """
    figures: dict[str, object] = {}
    for name, cores in (("one_core", Cores(1)), ("all_cores", ALL_CORES)):
        found = [_alone(scorer, known) for scorer, known in [_beside_known(cores)] for _ in range(rounds)]
        passes, whole = (statistics.median(each) for each in zip(*found, strict=True))
        figures[f"population_rows_per_s_{name}"] = round(_ALONE_ROWS / passes)
        figures[f"driver_rows_per_s_{name}"] = round(_ALONE_ROWS / whole)
        say(f"population pass, {name}: {_ALONE_ROWS / passes:,.0f} rows/s")
    return figures


def _beside_known(cores: Cores) -> tuple[Scorer, KnownAnswers]:
    scorer, known = _knowing(_ALONE_ENTITIES, cores), KnownAnswers()
    scorer.hold_in(BucketPlace(known, 4, Path(tempfile.gettempdir())))
    return scorer, known


def _alone(scorer: Scorer, known: KnownAnswers) -> tuple[float, float]:
    """Return seconds of a batch, after its features have come and in all, by those of an earlier attempt."""
    rows, known.again = _rows(scorer, _ALONE_ENTITIES, _ALONE_ROWS), False
    scored = scorer.score(rows)
    known.again, begun = True, time.perf_counter()
    scorer.score(rows)
    done = time.perf_counter()
    scorer.commit(scored)
    return done - known.answered, time.perf_counter() - begun


def scoring_figures(
    session: SparkSession, cluster: SparkCluster, place: Stage, entities: int, batch: int, buckets: int
) -> dict[str, object]:
    """Return seconds a batch beside so many entities, here and in buckets, and what follows when one is lost.

    Args:
        session: of the cluster.
        batch: rows of each.
        buckets: of each kind.
    """
    say(f"{entities:,} entities: profiles are made")
    scorer, jobs = _knowing(entities, ALL_CORES), WatchedJobs(session)
    course = _Scoring(scorer, entities, batch)
    here, busy_here = course.usual(), course.seconds(busy=_BUSY)
    held = BucketPlace(jobs, buckets, place.settings.spark)
    scorer.hold_in(held)
    handed_over = course.seconds()
    away, busy_away = course.usual(), course.seconds(busy=_BUSY)
    largest = held.facts.largest / batch
    before = held.facts.rebuilt
    _lose_one(cluster)
    recovered = course.seconds()
    figures: dict[str, object] = {
        "batch_s_local": round(here, 3),
        "batch_s_buckets": round(away, 3),
        "handed_over_s": round(handed_over, 3),
        "batch_s_executor_lost": round(recovered, 3),
        "buckets_rebuilt": held.facts.rebuilt - before,
        "busy_batch_s_local": round(busy_here, 3),
        "busy_batch_s_buckets": round(busy_away, 3),
        "busy_largest_share": round(largest, 3),
        "held_bytes": held.facts.nbytes,
        "largest_bucket_bytes": held.facts.most_bytes,
    }
    say(f"{entities:,} entities: {figures}")
    return {f"entities_{entities}_{name}": value for name, value in figures.items()}


class _Scoring:
    """Has a scorer score one batch after the other."""

    def __init__(self, scorer: Scorer, entities: int, batch: int) -> None:
        self._scorer, self._entities, self._batch = scorer, entities, batch

    def usual(self) -> float:
        """Return the seconds of a batch: the median of some, after one."""
        self.seconds()
        return statistics.median(self.seconds() for _ in range(_BATCHES))

    def seconds(self, busy: float = 0.0) -> float:
        """Return how long the next batch takes; one customer has that share of its rows."""
        rows = _rows(self._scorer, self._entities, self._batch, busy)
        begun = time.perf_counter()
        self._scorer.commit(self._scorer.score(rows))
        found = time.perf_counter() - begun
        say(f"  batch of {self._batch:,} rows beside {self._entities:,} entities: {found:.2f} s")
        return found


def _knowing(entities: int, cores: Cores) -> Scorer:
    """Return a scorer that knows so many entities, half of them customers and half terminals."""
    spec, half = bench_spec(batch=_FOLDED).anew(), entities // 2
    scorer = Scorer(spec, AgentDefinition.of(spec).contract.entity_names, cores=cores)
    for first in range(0, half, _FOLDED):
        scorer.fold(payments(scorer.next_sequence, np.arange(first, min(first + _FOLDED, half))))
    return scorer


def _rows(scorer: Scorer, entities: int, count: int, busy: float = 0.0) -> pa.Table:
    first = scorer.next_sequence
    chance = np.random.default_rng(first)
    customers: Ints = chance.integers(0, entities // 2, count)
    customers[chance.random(count) < busy] = 0
    return payments(first, customers)


def _lose_one(cluster: SparkCluster) -> None:
    """Have an executor of a worker end by SIGKILL, and wait until it has."""
    (pid,) = cluster.workers[0].executors
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in cluster.workers[0].executors, _SECONDS, "its end")
