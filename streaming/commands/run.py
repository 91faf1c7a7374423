"""`flagstream run`: an agent at work, with the broker it reads from."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from dataclasses import asdict

from schemas.errors import FlagstreamError
from streaming.commands.broker import broker_of
from streaming.home.placed_agent import PlacedAgent
from streaming.jvm.launching import Jvm
from streaming.observe.watching import observing
from streaming.output.log import log
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json
from streaming.run.driver import PATIENCE_SECONDS, drive
from streaming.setup.start_times import StartTimes, cpu_seconds
from streaming.versions.moving import active_beside


def run_until_stopped(
    agent: PlacedAgent,
    jvm: Jvm | None,
    *,
    llm: str,
    until_idle: bool,
    accept_loss: str | None,
    move_alerts: bool,
    as_json: bool,
    report_start: bool,
) -> None:
    """Run an agent until Ctrl-C or, with `until_idle`, nothing is left to read; see streaming.run.driver."""
    times = StartTimes(finished=lambda found: show_start(found, as_json=as_json) if report_start else None)
    times.note("Python and imports")
    _compare_with_registry(agent)
    began = times.now()
    with observing(agent.settings, agent.name) as observer, broker_of(agent.settings) as bootstrap:
        times.note("broker", began)
        drive(
            agent,
            bootstrap,
            llm=llm,
            stop=threading.Event(),
            until_idle=until_idle,
            accept_loss=accept_loss,
            move_alerts=move_alerts,
            as_json=as_json,
            patience=PATIENCE_SECONDS if until_idle else None,
            jvm=jvm,
            times=times,
            observer=observer,
        )


def show_start(times: StartTimes, *, as_json: bool) -> None:
    """Print where the time of a start went, up to the first batch."""
    whole, cpu = round(times.now(), 3), cpu_seconds()
    if as_json:
        parts = [asdict(each) for each in times.parts]
        print_json({"start": {"seconds": whole, "cpu_seconds": cpu, "parts": parts}})
        return
    rows = [(each.name, f"{each.began:.2f}", f"{each.took:.2f}") for each in times.parts]
    title = f"first batch closed after {whole:.1f} s, {cpu:.1f} s of processor time"
    show_table(Terminal(), ("part of the start", "began at s", "took s"), rows, title)


def _compare_with_registry(agent: PlacedAgent) -> None:
    """Log where the registry has another spec in force; what cannot be compared here, the run will name."""
    with suppress(FlagstreamError, OSError):
        active = active_beside(agent)
        if active is not None:
            log(
                "spec_not_in_force",
                f"the registry has version {active.version} in force, and this file, "
                f"version {agent.spec.version}, says something else: it takes no part until it is "
                "registered and promoted",
                level=logging.WARNING, agent=agent.name, version=active.version,
            )  # fmt: skip
