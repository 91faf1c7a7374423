"""`flagstream run`: one driver process, from start-up to the last batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from schemas.errors import RetryableError
from schemas.spec import AgentSpec
from streaming.batch.late_answers import LateAnswers
from streaming.batch.pipeline import ClosedBatch
from streaming.batch.runner import StreamRunner
from streaming.batch.stream_faults import ExecutorEndedError, as_project_error
from streaming.batch.topic_watch import TopicWatch
from streaming.delta.lake import Tenure
from streaming.home.placed_agent import PlacedAgent
from streaming.jvm.launching import Jvm
from streaming.kafka.intake import planned_spans
from streaming.kafka.open_transactions import waiting_for
from streaming.kafka.poll_size import FEW_AT_ONCE
from streaming.kafka.source import fewer_at_once
from streaming.profiles.entity_buckets import BucketPlace
from streaming.run.bucket_jobs import BucketJobs
from streaming.run.currencies import log_currencies
from streaming.run.display import progress_display
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
from streaming.run.mode_advice import Mode, ModeWatch, forget_mode
from streaming.run.needs import Needs
from streaming.run.observer import UNOBSERVED_RUN, RunObserver
from streaming.run.opening import Agent, open_agent
from streaming.run.ownership import Ownership
from streaming.run.progress import Progress
from streaming.run.session_keeper import SessionKeeper
from streaming.run.surroundings import Hooks, Surroundings
from streaming.run.topics import log_horizon, prepare_topics
from streaming.service.health import WAITING, Condition, Health, beside, is_running
from streaming.service.interrupts import stop_on_interrupt
from streaming.service.supervisor import Need, Supervisor
from streaming.service.worker import Worker, cause_of
from streaming.setup.session import end_context, is_alive
from streaming.setup.start_times import StartTimes
from streaming.versions.clients import Clients
from streaming.versions.registry import check_reason
from streaming.versions.registry_watch import spec_in_force

PATIENCE_SECONDS = 60.0
_REPORT_SECONDS = 1.0
_WATCH_CALL_SECONDS = 3.0


def drive(
    agent: PlacedAgent,
    bootstrap: str,
    *,
    llm: str = "auto",
    stop: threading.Event,
    until_idle: bool = False,
    as_json: bool = False,
    accept_loss: str | None = None,
    move_alerts: bool = False,
    hooks: Hooks = Hooks(),  # noqa: B008 -- frozen and without state
    started: Callable[[], None] = lambda: None,
    patience: float | None = None,
    display: Progress | None = None,
    jvm: Jvm | None = None,
    times: StartTimes | None = None,
    observer: RunObserver = UNOBSERVED_RUN,
) -> Progress:
    """Run an agent until `stop` is set or, with `until_idle`, nothing is left to read.

    What it needs and is away is waited for, before anything is claimed; what passes is tried again.

    Args:
        llm: see streaming.versions.clients.
        accept_loss: why records that the topic no longer holds may be given up, None where they may not.
        move_alerts: the next alerts may leave on another topic than those before.
        hooks: seams for crash tests.
        started: called once the agent is repaired and about to read, the first time.
        patience: seconds after which it gives up waiting; None: as long as it takes.
        display: shows already; by default one for standard output, which shows once the agent reads.
        jvm: Spark's, which somebody has launched ahead, see streaming.setup.spark_jvm; launched when needed
            unless given.
        times: where it is noted how long the parts of the start take.
        observer: learns of the run and of its batches.

    Returns:
        The progress display, with the run's totals.

    Raises:
        FlagstreamError: whatever stopped the agent.
    """
    if accept_loss is not None:
        check_reason(accept_loss, "--accept-loss")
    shown = display or progress_display(agent.name, as_json=as_json)
    health = Health(_own_conditions(agent.settings.health(agent.name)), shown.condition)

    def waiting() -> bool:
        return any(each.condition in WAITING for each in health.active)

    def begun() -> None:
        if display is None:
            kept.enter_context(shown)
        started()

    with (
        closing(health),
        stop_on_interrupt(stop, waiting),
        Clients(agent.settings, llm, stop.is_set, observer.calls) as clients,
        ExitStack() as kept,
    ):
        observer.begins(health, clients.breakers)
        around = Surroundings(agent.settings, bootstrap, clients, hooks, health, observer.batches)
        consent, course = _Consent(accept_loss, move_alerts), _Course(stop, until_idle, begun)
        noted = times or StartTimes()
        keeper = SessionKeeper(agent.settings, bootstrap, jvm, noted, kept)
        run = _ServiceRun(around, agent.spec, shown, kept, consent, keeper, noted, observer)
        supervisor = Supervisor(run.all_needs(), health, stop, patience=patience)
        supervisor.run(lambda: run.attempt(supervisor, course))
    return shown


def _own_conditions(file: Path) -> Path:
    """Return the file of conditions, another one beside it where a run has it; what is old is removed."""
    kept = beside(file) if is_running(file) else file
    forget_executors(kept)
    forget_mode(kept)
    return kept


@dataclass(frozen=True)
class _Consent:
    """What is done in this run alone, because somebody has asked for it; see drive()."""

    accept_loss: str | None
    move_alerts: bool


@dataclass(frozen=True)
class _Course:
    """How long a run goes on, and who hears that it has begun; see drive()."""

    stop: threading.Event
    until_idle: bool
    started: Callable[[], None]


class _ServiceRun:
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
        consent: _Consent,
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

    def attempt(self, supervisor: Supervisor, course: _Course) -> None:
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

    def _run(self, spec: AgentSpec, session: SparkSession, supervisor: Supervisor, course: _Course) -> bool:
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
            self._consent = _Consent(None, move_alerts=False)
            self._ended.closed()
            self._mode.closed(batch.row)
            self._display.batch(batch)
            self._times.note("first batch", self._reading_since)
            self._times.finish()
            supervisor.settle()
            self._overlap.closed(batch.row)

        return closed

    def _beside(self, agent: Agent, supervisor: Supervisor) -> _Workers:
        watch = TopicWatch(agent.stream, call_seconds=_WATCH_CALL_SECONDS)
        report = _Report(
            watch,
            agent.late,
            self._display,
            self._health,
            settle=supervisor.settle,
            trouble=self._around.clients.trouble,
            check=agent.check_rules,
            observer=self._observer,
        )
        return _Workers(report, self.needs.revive, self._health)


class _Report:
    """Tells once a second how far behind the stream is, and what late answers have come.

    Args:
        settle: called as often.
        trouble: says what keeps models from answering, None where nothing does.
        check: called as often, to see what a quiet topic would hide.
        observer: learns how far behind the stream is.
    """

    def __init__(
        self,
        watch: TopicWatch,
        late: LateAnswers | None,
        display: Progress,
        health: Health,
        settle: Callable[[], None],
        trouble: Callable[[], str | None],
        check: Callable[[], None] = lambda: None,
        observer: RunObserver = UNOBSERVED_RUN,
    ) -> None:
        self._observer = observer
        self._watch, self._late, self._display, self._health = watch, late, display, health
        self._settle, self._trouble, self._check = settle, trouble, check

    def round(self) -> float:
        """Tell once; return the seconds until the next time."""
        self._settle()
        self._show_late()
        self._check()
        self._health.update(Condition.MODEL_FAILING, self._trouble())
        try:
            unread, held = self._watch.unread_by_partition(), self._watch.open_transactions()
        except RetryableError as fault:
            self._health.begins(Condition.BROKER_AWAY, cause_of(fault))
        else:
            self._health.ends(Condition.BROKER_AWAY)
            self._observer.unread(unread)
            self._display.lag(sum(count for within in unread.values() for count in within.values()))
            self._health.update(Condition.TRANSACTION_OPEN, waiting_for(held))
        return _REPORT_SECONDS

    def close(self) -> None:
        """Tell a last time what late answers have come."""
        self._show_late()

    def _show_late(self) -> None:
        if self._late is not None:
            self._display.late(self._late.totals)


class _Workers:
    """The two threads beside a running agent: one reports, one revives what has died."""

    def __init__(self, report: _Report, revive: Callable[[], float], health: Health) -> None:
        self._report = report
        self._workers = (
            Worker("progress", report.round, Condition.PROGRESS_FAILING, health, fatal=()),
            Worker("services", revive, Condition.MODEL_AWAY, health, fatal=()),
        )

    def __enter__(self) -> _Workers:
        for each in self._workers:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in self._workers:
            each.ask_to_end()
        for each in self._workers:
            each.close()
        self._report.close()
