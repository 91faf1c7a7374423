"""`flagstream run`: one driver process, from start-up to the last batch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from streaming.home.placed_agent import PlacedAgent
from streaming.jvm.launching import Jvm
from streaming.run.display import progress_display
from streaming.run.executors import (
    forget_executors,
)
from streaming.run.mode_advice import forget_mode
from streaming.run.observer import UNOBSERVED_RUN, RunObserver
from streaming.run.progress import Progress
from streaming.run.service_run import Consent, RunCourse, ServiceRun
from streaming.run.session_keeper import SessionKeeper
from streaming.run.surroundings import Hooks, Surroundings
from streaming.service.health import WAITING, Health, beside, is_running
from streaming.service.interrupts import stop_on_interrupt
from streaming.service.supervisor import Supervisor
from streaming.setup.start_times import StartTimes
from streaming.versions.clients import Clients
from streaming.versions.registry import check_reason

PATIENCE_SECONDS = 60.0


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
        consent, course = Consent(accept_loss, move_alerts), RunCourse(stop, until_idle, begun)
        noted = times or StartTimes()
        keeper = SessionKeeper(agent.settings, bootstrap, jvm, noted, kept)
        run = ServiceRun(around, agent.spec, shown, kept, consent, keeper, noted, observer)
        supervisor = Supervisor(run.all_needs(), health, stop, patience=patience)
        supervisor.run(lambda: run.attempt(supervisor, course))
    return shown


def _own_conditions(file: Path) -> Path:
    """Return the file of conditions, another one beside it where a run has it; what is old is removed."""
    kept = beside(file) if is_running(file) else file
    forget_executors(kept)
    forget_mode(kept)
    return kept
