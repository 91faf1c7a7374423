"""`flagstream run`: one driver process, from start-up to the last batch."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

from schemas.contract import load_contract
from schemas.errors import RetryableError
from schemas.spec import AgentSpec
from streaming.batch.late_answers import LateAnswers
from streaming.batch.runner import StreamRunner, TopicWatch
from streaming.detection.reasons import duration_text
from streaming.display import Progress, progress_display
from streaming.downloads import jar_paths
from streaming.interrupts import stop_on_interrupt
from streaming.kafka.broker import ensure_topic, require_topic, topic_retention_ms
from streaming.opening import Hooks, open_agent
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker, cause_of
from streaming.session import start_session
from streaming.settings import Settings
from streaming.versions.clients import Clients
from streaming.versions.renewal import spec_in_force
from streaming.warmup import compile_kernels

_REPORT_SECONDS = 1.0


def drive(
    settings: Settings,
    spec: AgentSpec,
    bootstrap: str,
    *,
    llm: str = "auto",
    stop: threading.Event,
    until_idle: bool = False,
    as_json: bool = False,
    hooks: Hooks = Hooks(),  # noqa: B008 -- frozen and without state
    started: Callable[[], None] = lambda: None,
) -> Progress:
    """Run an agent until `stop` is set or, with `until_idle`, nothing is left to read.

    Args:
        llm: see streaming.versions.clients.
        hooks: seams for crash tests.
        started: called once the agent is repaired and about to read.

    Returns:
        The progress display, with the run's totals.

    Raises:
        FlagstreamError: whatever stopped the agent.
    """
    spec = spec_in_force(settings, spec)
    topic = spec.data_sources.transactions.topic
    if ":" in settings.kafka:
        require_topic(bootstrap, topic)
    else:
        ensure_topic(bootstrap, topic)
    # Alerts are kept for ever unless someone decides otherwise: reconcile compares all of them.
    ensure_topic(bootstrap, spec.alerts.topic, partitions=1, config={"retention.ms": "-1"})
    if spec.data_sources.labels.topic is not None:
        ensure_topic(bootstrap, spec.data_sources.labels.topic)
    say_horizon(spec, bootstrap)
    display = progress_display(as_json=as_json)
    health = Health(settings.health(spec.name), display.condition)
    with closing(health), stop_on_interrupt(stop), Clients(settings, llm) as clients:
        clients.of(spec)  # what cannot be used is said before Spark has started
        contract = load_contract(spec.data_sources.transactions.contract)
        compiling = threading.Thread(target=compile_kernels, args=(spec, contract))
        compiling.start()
        session = start_session(jar_paths(settings.jars_spark), work_dir=settings.spark)
        compiling.join()
        try:
            with open_agent(settings, spec, bootstrap, clients, hooks, health) as agent, display:
                runner = StreamRunner(session, agent.pipeline, agent.stream, display.batch, agent.requested)
                with _Reporter(TopicWatch(agent.stream), agent.late, display, health):
                    started()
                    runner.run(stop, until_idle=until_idle)
        finally:
            session.stop()
    return display


def say_horizon(spec: AgentSpec, bootstrap: str) -> None:
    """Say on standard error when redeliveries may come later than they can be told from new events."""
    contract = load_contract(spec.data_sources.transactions.contract)
    retention = topic_retention_ms(bootstrap, spec.data_sources.transactions.topic)
    horizon = contract.duplicates.horizon
    if retention < 0 or timedelta(milliseconds=retention) > horizon:
        kept = "for ever" if retention < 0 else f"for {duration_text(retention / 1_000)}"
        known = duration_text(horizon.total_seconds())
        sys.stderr.write(
            f"note: the topic keeps records {kept}, duplicates are recognised within {known}; a transaction "
            "id sent again after that counts as new (duplicates.horizon in the contract)\n"
        )


class _Reporter:
    """Tells the display once a second how far behind the stream is, and what late answers have come."""

    def __init__(
        self, watch: TopicWatch, late: LateAnswers | None, display: Progress, health: Health
    ) -> None:
        self._watch, self._late, self._display, self._health = watch, late, display, health
        self._worker = Worker("progress", self._report, Condition.PROGRESS_FAILING, health, fatal=())

    def __enter__(self) -> _Reporter:
        self._worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()
        self._watch.close()
        self._tell_late()

    def _tell_late(self) -> None:
        if self._late is not None:
            self._display.late(self._late.totals)

    def _report(self) -> float:
        self._tell_late()
        try:
            unread = self._watch.unread()
        except RetryableError as fault:
            self._health.begins(Condition.BROKER_AWAY, cause_of(fault))
        else:
            self._health.ends(Condition.BROKER_AWAY)
            self._display.lag(unread)
        return _REPORT_SECONDS
