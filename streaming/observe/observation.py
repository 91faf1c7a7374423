"""Watches a run: counts what happens, serves it, and sends traces, as far as the settings ask for either."""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa

from agent.model.call_watch import CallWatch, FinishedCall
from agent.triage.triage import TriageResult
from schemas.batch_key import BatchKey
from schemas.spec import AgentSpec
from streaming.batch.late_answers import LateTotals
from streaming.batch.observer import BatchObserver, BatchSeen
from streaming.batch.steps import StepTime
from streaming.batch.stream_settings import Offsets
from streaming.delta.maintenance import at_low_priority
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import Headers
from streaming.observe.batch_metrics import count_answers, count_batch, count_spent
from streaming.observe.bucket_work import BucketWatch, BucketWork
from streaming.observe.drift_watch import DriftWatch
from streaming.observe.endpoint import metrics_served
from streaming.observe.executor_jobs import ExecutorJob, ExecutorJobs
from streaming.observe.lake_facts import LakeFacts
from streaming.observe.metrics import Metrics
from streaming.observe.readiness import Readiness
from streaming.output.log import log
from streaming.run.executors import ClusterFacts
from streaming.run.observer import Breakers
from streaming.run.opening import Agent
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker, cause_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from streaming.observe.traces import Traces


class Observation:
    """See streaming.run.observer.RunObserver; it watches the batches and the calls itself.

    Nothing of it ends or holds up the agent: what fails here is logged, and a condition says so.

    Args:
        settings: where everything lies.
        agent: the agent's name.
        traces: where traces go, None to make none.
        counts: whether metrics are wanted; without, nothing is counted.
    """

    def __init__(self, settings: Settings, agent: str, traces: Traces | None, *, counts: bool = True) -> None:
        self.metrics, self.readiness = Metrics(agent), Readiness()
        self._settings, self._agent, self._traces, self._counts = settings, agent, traces, counts
        self._drift, self._health = DriftWatch(settings.drift(agent)), Health()
        self._breakers: Breakers = dict
        self._working: Agent | None = None
        self._asks_within = False
        self._late, self._refusals = LateTotals(), dict[str, int]()
        self._refreshing = threading.Lock()
        self._jobs: ExecutorJobs | None = None
        self._buckets = BucketWatch(ClusterFacts())
        self.batches: BatchObserver = self
        self.calls: CallWatch = self._called

    def begins(self, health: Health, breakers: Breakers) -> None:
        """See RunObserver."""
        self._health, self._breakers = health, breakers
        self.readiness.watch(health)

    @contextmanager
    def working(self, agent: Agent, spec: AgentSpec) -> Iterator[None]:
        """See RunObserver."""
        self._asks_within = spec.llm.mode == "inline"
        with self._refreshing:
            self._late, self._refusals = LateTotals(), dict(agent.budget.refusals)
            self._working = agent
        facts = LakeFacts(PlacedAgent(self._settings, spec), self.metrics, self._drift)
        health, failing = self._health, Condition.METRICS_FAILING
        worker = Worker("lake-facts", facts.round, failing, health, begin=at_low_priority, fatal=())
        if self._counts:
            worker.start()
        self.looped()
        self.readiness.is_running = True
        try:
            yield
        finally:
            self.readiness.is_running = False
            worker.ask_to_end()
            worker.close()
            self._safely(self._drift.keep)
            self.refresh()
            with self._refreshing:
                self._working = None

    def looped(self) -> None:
        """See RunObserver."""
        self.readiness.looped()

    def unread(self, lag: Offsets) -> None:
        """See RunObserver."""
        counts: dict[tuple[str, ...], float] = {
            (topic, each): float(count) for topic, within in lag.items() for each, count in within.items()
        }
        self._safely(lambda: self.metrics.stream.lag.replace(counts))

    def on_cluster(self, session: SparkSession, holds: ClusterFacts) -> None:
        """See RunObserver."""

        def watch() -> None:
            self._buckets = BucketWatch(holds)
            self._jobs = ExecutorJobs(session)

        self._safely(watch)

    def executors(self, count: int) -> None:
        """See RunObserver."""
        self._safely(lambda: self.metrics.executors.working.put(count))

    def begun(self) -> None:
        """See streaming.batch.observer.BatchObserver."""
        self.metrics.stream.begun_at.put(time.time())
        self.readiness.stepped()

    def stepped(self) -> None:
        """See streaming.batch.observer.BatchObserver."""
        self.readiness.stepped()

    def closed(self, seen: BatchSeen) -> None:
        """See streaming.batch.observer.BatchObserver."""
        jobs, buckets = self._jobs_of(seen.key), self._buckets.of_batch()
        if self._counts:
            self._safely(lambda: self._count(seen, jobs, buckets))
        if self._traces is not None:
            traces = self._traces
            self._safely(lambda: traces.batch(seen, jobs, buckets))

    def failed(self, key: BatchKey, times: Sequence[StepTime], fault: BaseException) -> None:
        """See streaming.batch.observer.BatchObserver."""
        jobs = self._jobs_of(key)

        def count() -> None:
            self.metrics.stream.batches.add(1, "failed")
            self.metrics.executors.count(jobs, times)

        self._safely(count)
        if self._traces is not None:
            traces = self._traces
            self._safely(lambda: traces.failed(key, times, fault, jobs))

    def answered(self, result: TriageResult) -> None:
        """See streaming.batch.observer.BatchObserver."""

        def count() -> None:
            count_answers(self.metrics.model, result)
            count_spent(self.metrics.model, result.input_tokens, result.output_tokens, result.cost)

        self._safely(count)

    def headers(self, alerts: pa.Table) -> Sequence[Headers]:
        """See streaming.batch.observer.BatchObserver."""
        return [()] * alerts.num_rows if self._traces is None else self._traces.headers(alerts)

    def refresh(self) -> None:
        """Bring up to date what is not counted as it happens; whoever asks meanwhile waits."""
        with self._refreshing:  # each counts what has come since the one before
            self._safely(self._refresh)

    def _called(self, call: FinishedCall) -> None:
        def count() -> None:
            self.metrics.model.calls.add(1, call.model, call.outcome)
            self.metrics.model.call_seconds.observe([call.seconds], call.model)

        self._safely(count)
        if self._asks_within:  # else they are asked beside the batches, and go on where the loop stands still
            self.readiness.stepped()
        if self._traces is not None:
            traces = self._traces
            self._safely(lambda: traces.call(call))

    def _jobs_of(self, batch: BatchKey) -> Sequence[ExecutorJob]:
        found: list[ExecutorJob] = []
        if self._jobs is not None:
            jobs = self._jobs
            self._safely(lambda: found.extend(jobs.of(batch)))
        return found

    def _count(self, seen: BatchSeen, jobs: Sequence[ExecutorJob], buckets: BucketWork | None) -> None:
        count_batch(self.metrics, seen)
        self.metrics.executors.count(jobs, seen.times)
        if buckets is not None:
            self.metrics.buckets.count(buckets)
        if seen.decided is not None:
            self._drift.add(seen.decided)

    def _refresh(self) -> None:
        health, readiness = self.metrics.health, self.readiness
        health.ready.put(readiness.why_not_ready() is None)
        health.looped_at.put(readiness.looped_at)
        active = {each.condition: each.since.timestamp() for each in readiness.conditions}
        for condition in Condition:
            health.condition.put(condition in active, condition)
            health.since.put(active.get(condition, 0.0), condition)
        for model, is_open in self._breakers().items():
            self.metrics.model.breaker.put(is_open, model)
        if self._working is not None:
            self._refresh_working(self._working)

    def _refresh_working(self, agent: Agent) -> None:
        model = self.metrics.model
        self.metrics.stream.unpublished.put(agent.outbox.unpublished)
        for (window, unit), share in agent.budget.used_shares().items():
            model.budget.put(share, window, unit)
        refusals = dict(agent.budget.refusals)
        for window, count in refusals.items():
            model.over_budget.add(count - self._refusals.get(window, 0), window)
        self._refusals = refusals
        if agent.late is not None:
            model.waiting.put(agent.late.waiting)
            self._note_late(agent.late.totals)

    def _note_late(self, totals: LateTotals) -> None:
        before, self._late = self._late, totals
        self.metrics.model.late.add(totals.answered - before.answered, "answered")
        self.metrics.model.late.add(totals.given_up - before.given_up, "given_up")

    def _safely(self, work: Callable[[], None]) -> None:
        """What goes wrong in watching must not reach what is watched."""
        try:
            work()
        except Exception as fault:
            self._health.begins(Condition.METRICS_FAILING, cause_of(fault))
            trace = traceback.format_exc(limit=-3)
            log("metrics_failing", trace, level=logging.WARNING, agent=self._agent)


@contextmanager
def tracing(settings: Settings, agent: str) -> Iterator[Traces | None]:
    """Yield what makes the traces of an agent, None where the settings ask for none."""
    if settings.traces is None:
        yield None
        return
    from streaming.observe.traces import open_traces  # noqa: PLC0415 -- a tenth of a second that few need

    traces = open_traces(settings.traces, agent)
    try:
        yield traces
    finally:
        traces.close()


@contextmanager
def observed(settings: Settings, agent: str) -> Iterator[Observation]:
    """Watch a run of an agent as the settings say; metrics are served, and traces sent, until it ends.

    Raises:
        MachineError: metrics cannot be served where the settings say.
    """
    with ExitStack() as stack:
        traces = stack.enter_context(tracing(settings, agent))
        observation = Observation(settings, agent, traces, counts=settings.metrics is not None)
        served = (observation.metrics.registry, observation.readiness, observation.refresh)
        stack.enter_context(metrics_served(settings.metrics, *served, agent))
        yield observation
