"""`flagstream run`: an agent at work, with the broker it reads from."""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

from schemas.errors import FlagstreamError
from schemas.spec import AgentSpec
from streaming.commands.broker import broker_of
from streaming.commands.registry import active_beside
from streaming.home.settings import Settings
from streaming.output.log import log
from streaming.run.driver import PATIENCE_SECONDS, drive
from streaming.setup.process import prepare_process


def run_until_stopped(
    settings: Settings,
    spec: AgentSpec,
    *,
    llm: str,
    until_idle: bool,
    accept_loss: str | None,
    move_alerts: bool,
    as_json: bool,
) -> None:
    """Run an agent until Ctrl-C or, with `until_idle`, nothing is left to read; see streaming.run.driver."""
    prepare_process(settings.home)
    _compare_with_registry(settings, spec)
    with broker_of(settings) as bootstrap:
        drive(
            settings,
            spec,
            bootstrap,
            llm=llm,
            stop=threading.Event(),
            until_idle=until_idle,
            accept_loss=accept_loss,
            move_alerts=move_alerts,
            as_json=as_json,
            patience=PATIENCE_SECONDS if until_idle else None,
        )


def _compare_with_registry(settings: Settings, spec: AgentSpec) -> None:
    """Log where the registry has another spec in force; what cannot be compared here, the run will name."""
    with suppress(FlagstreamError, OSError):
        active = active_beside(settings, spec)
        if active is not None:
            log(
                "spec_not_in_force",
                f"the registry has version {active.version} in force, and this file, version {spec.version}, "
                "says something else: it takes no part until it is registered and promoted",
                level=logging.WARNING, agent=spec.name, version=active.version,
            )  # fmt: skip
