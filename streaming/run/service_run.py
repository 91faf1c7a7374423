"""One run of an agent: what its attempts share, and how one is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import NoReturn

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from schemas.errors import RetryableError
from schemas.spec import AgentSpec
from streaming.batch.pipeline import ClosedBatch
from streaming.batch.runner import StreamRunner
from streaming.batch.stream_faults import ExecutorEndedError, as_project_error
from streaming.batch.topic_watch import TopicWatch
from streaming.delta.lake import Tenure
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.planned import planned_spans
from streaming.kafka.poll_size import FEW_AT_ONCE
from streaming.kafka.source import fewer_at_once
from streaming.profiles.entity_buckets import BucketPlace
from streaming.run.beside import RunReporter, RunWorkers
from streaming.run.bucket_jobs import BucketJobs
from streaming.run.currencies import log_currencies
from streaming.run.executors import (
    ClusterFacts,
    EndedExecutors,
    ExecutorWatch,
    executors_of,
    forget_executors,
    tasks_of,
)
from streaming.run.history_overlap import OverlapCheck
from streaming.run.learning import log_learning
from streaming.run.mode_advice import Mode, ModeWatch
from streaming.run.needs import Needs
from streaming.run.observer import RunObserver
from streaming.run.opening import Agent, open_agent
from streaming.run.ownership import Ownership
from streaming.run.progress import Progress
from streaming.run.session_keeper import SessionKeeper
from streaming.run.surroundings import Surroundings
from streaming.run.topics import log_horizon, prepare_topics
from streaming.service.health import Condition
from streaming.service.supervisor import Need, Supervisor
from streaming.setup.session import end_context, is_alive
from streaming.setup.start_times import StartTimes
from streaming.versions.registry_watch import spec_in_force

_WATCH_CALL_SECONDS = 3.0


@dataclass(frozen=True)
class Consent:
    """What is done in this run alone, because somebody has asked for it; see drive()."""

    accept_loss: str | None
    move_alerts: bool


@dataclass(frozen=True)
class RunCourse:
    """How long a run goes on, and who hears that it has begun; see drive()."""

    stop: threading.Event
    until_idle: bool
    started: Callable[[], None]


class ServiceRun:
    """One run of an agent: what its attempts share, and how one is made.

    Args:
        kept: closed when the run ends: the display, once there is one.
        keeper: has the Spark session.
        times: where it is noted how long the start takes.
        observer: learns of the run.
    """

    def __init__(
        self,
        around: Surroundings,
        spec: AgentSpec,
        display: Progress,
        kept: ExitStack,
        consent: Consent,
        keeper: SessionKeeper,
        times: StartTimes,
        observer: RunObserver,
    ) -> None:
        self._observer = observer
        self._around, self._settings, self._bootstrap = around, around.settings, around.bootstrap
        self._spec, self._health = spec, around.health
        self._display, self._kept, self._consent = display, kept, consent
        self._keeper, self._times = keeper, times
        ownership = Ownership.of(
            PlacedAgent(around.settings, spec), around.health, around.hooks.takeover_seconds
        )
        self._ownership = kept.enter_context(closing(ownership))
        self.needs = Needs(PlacedAgent(around.settings, spec), around.bootstrap, around.clients)
        self._tenure = Tenure()
        self._executors: ExecutorWatch | None = None
        self._ended = EndedExecutors()
        execution: Mode = "local" if around.settings.cluster is None else "cluster"
        self._mode = ModeWatch(spec.name, around.settings.health(spec.name), execution)
        self._was_up, self._reading_since = False, 0.0
        self._most_at_once, self._may_take_more = FEW_AT_ONCE, True
        self._overlap = OverlapCheck(PlacedAgent(around.settings, spec))

    def all_needs(self) -> list[Need]:
        """Return what the agent cannot begin without; last, that nobody else runs it."""
        return [*self.needs.all(), Need(Condition.ANOTHER_RUN, self._ownership.waits_for)]

    def attempt(self, supervisor: Supervisor, course: RunCourse) -> None:
        """Open the agent and run it until it ends.

        Raises:
            RetryableError: the JVM has died under it, or executors have; the next attempt has others.
            MachineError: executors have ended over the same batch in three attempts.
        """
        spec = spec_in_force(PlacedAgent(self._settings, self._spec))
        with self._times.part("topics"):
            prepare_topics(spec, self._bootstrap, ours=":" not in self._settings.kafka)
        if not self._was_up:
            log_horizon(spec, self._bootstrap)
        session = self._keeper.session(spec)
        try:
            while self._run(spec, session, supervisor, course) and not course.stop.is_set():
                self._most_at_once = FEW_AT_ONCE
        except ExecutorEndedError as fault:
            self._may_take_more = False  # it may have ended over what a poll unpacked to
            self._ended.weigh(fault)
        except (Py4JError, PySparkException, OSError) as fault:
            if not is_alive(session):
                raise RetryableError(self._jvm_has_ended(spec)) from fault
            self._raise_as_ours(fault)

    def _raise_as_ours(self, fault: Exception) -> NoReturn:
        """Raise what Spark has raised beside a query, as where executors finish an open batch first."""
        if isinstance(fault, OSError):
            raise fault
        said = as_project_error(fault, self._bootstrap)
        if isinstance(said, ExecutorEndedError):
            self._ended.weigh(said)
        raise said from fault

    def _jvm_has_ended(self, spec: AgentSpec) -> str:
        """Say so; what was read when it ended is read again by fewer records at once."""
        ended, before = "Spark's JVM has ended; did the machine run out of memory?", self._most_at_once
        self._most_at_once, self._may_take_more = fewer_at_once(before), False
        if before > 1:
            return ended
        read = planned_spans(self._settings.checkpoint(spec.name))
        return (
            f"{ended} It took one record at a time: one among {read} may unpack to more than it holds. More "
            "memory reads it; a broker can delete it"
        )

    def _run(self, spec: AgentSpec, session: SparkSession, supervisor: Supervisor, course: RunCourse) -> bool:
        """Run until there is no more to do; True where that was one batch read carefully, and others wait."""
        began = self._times.now()
        buckets = self._buckets(session, course.stop)
        with self._opened(spec, buckets) as agent, self._beside(agent, supervisor):
            self._times.note("opening", began)
            stream = replace(
                agent.stream,
                accept_loss=self._consent.accept_loss,
                most_at_once=self._most_at_once,
                may_take_more=self._may_take_more,
            )
            on_closed = self._on_closed(supervisor)
            runner = StreamRunner(session, agent.pipeline, stream, on_closed, agent.requested, self._polled)
            self._watch_executors(session, buckets)
            supervisor.opened()
            if not self._was_up:
                placed = PlacedAgent(self._settings, spec)
                log_currencies(placed)
                log_learning(placed)
            self._come_up(course.started)
            self._reading_since = self._times.now()
            with self._observer.working(agent, spec):
                runner.run(course.stop, until_idle=course.until_idle)
        return stream.is_careful

    def _buckets(self, session: SparkSession, stop: threading.Event) -> BucketPlace | None:
        """Return where entities are held, where that is on executors."""
        cluster = self._settings.cluster
        if cluster is None or cluster.buckets is None:
            return None
        return BucketPlace(BucketJobs(session, stop), cluster.buckets, self._settings.spark)

    def _watch_executors(self, session: SparkSession, buckets: BucketPlace | None) -> None:
        file = self._settings.health(self._spec.name)
        if self._settings.cluster is None:
            forget_executors(file)  # of another run's, which this one has taken over from
        else:
            holds = None if buckets is None else buckets.facts
            self._observer.on_cluster(session, ClusterFacts(buckets=holds))
            self._executors = ExecutorWatch(
                partial(self._count_executors, session),
                partial(tasks_of, session),
                self._health,
                file,
                partial(end_context, session),
                facts=holds,
            )

    def _count_executors(self, session: SparkSession) -> int | None:
        found = executors_of(session)
        if found is not None:
            self._observer.executors(found)
        return found

    def _polled(self) -> None:
        self._ownership.check()
        self._observer.looped()
        if self._executors is not None:
            self._executors.check()

    def _opened(self, spec: AgentSpec, buckets: BucketPlace | None) -> AbstractContextManager[Agent]:
        around = self._around
        around.clients.let_go()
        at = (PlacedAgent(around.settings, spec), around.bootstrap, around.clients, around.hooks)
        return open_agent(
            *at,
            around.health,
            self._tenure,
            move_alerts=self._consent.move_alerts,
            observer=around.observer,
            last_read=around.last_read,
            buckets=buckets,
        )

    def _come_up(self, started: Callable[[], None]) -> None:
        """Say so the first time; an attempt that follows another goes on where that was."""
        if not self._was_up:
            self._was_up = self.needs.lake_is_known = True
            started()

    def _on_closed(self, supervisor: Supervisor) -> Callable[[ClosedBatch], None]:
        def closed(batch: ClosedBatch) -> None:
            # What was asked for has been done: what is lost later is asked about anew.
            self._consent = Consent(None, move_alerts=False)
            self._ended.closed()
            self._mode.closed(batch.row)
            self._display.batch(batch)
            self._times.note("first batch", self._reading_since)
            self._times.finish()
            supervisor.settle()
            self._overlap.closed(batch.row)

        return closed

    def _beside(self, agent: Agent, supervisor: Supervisor) -> RunWorkers:
        watch = TopicWatch(agent.stream, call_seconds=_WATCH_CALL_SECONDS)
        report = RunReporter(
            watch,
            agent.late,
            self._display,
            self._health,
            settle=supervisor.settle,
            trouble=self._around.clients.trouble,
            check=agent.check_rules,
            observer=self._observer,
        )
        return RunWorkers(report, self.needs.revive, self._health)
