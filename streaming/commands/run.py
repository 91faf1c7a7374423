"""`flagstream run`: an agent at work, with the broker it reads from."""

from __future__ import annotations

import threading

from schemas.spec import AgentSpec
from streaming.commands.broker import broker_of
from streaming.home.settings import Settings
from streaming.run.driver import PATIENCE_SECONDS, drive


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
