"""A driver process that ends or stops at a step: `python -m streaming.testing.killable_driver`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schemas.errors import FlagstreamError
from schemas.spec import load_spec
from streaming.batch.late_answers import LateStep
from streaming.batch.steps import BatchStep
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord
from streaming.output.terminal import say_line
from streaming.run.driver import PATIENCE_SECONDS, drive
from streaming.run.surroundings import Hooks
from streaming.store.owner import TAKEOVER_SECONDS

MID_PUBLISH = "mid-publish"


class _Killer:
    """Kills this process when it reaches the place of an order."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._armed, self._order = not order.get("live"), order

    def arm(self) -> None:
        self._armed = True

    def reached(self, step: BatchStep | LateStep) -> None:
        self._strike(step.value)

    def before_commit(self, _: Sequence[OutboxRecord]) -> None:
        self._strike(MID_PUBLISH)

    def _strike(self, place: str) -> None:
        if self._armed and place == self._order.get("at"):
            os.kill(os.getpid(), getattr(signal, self._order["signal"]))


def main(order: dict[str, Any]) -> int:
    """Run an agent under an order: spec, home, bootstrap, llm, at (a place), signal, live, endless, patience,
    takeover (seconds for which the counter of another run has to stand still).

    A live strike waits for a batch of its own, another hits the repair of what a predecessor left, too. An
    endless driver goes on when everything is read, until it is struck or asked to stop.
    """
    killer = _Killer(order)
    spec = load_spec(Path(order["spec"]))
    settings = Settings.load(Path(order["home"]), os.environ).under(spec)
    takeover = order.get("takeover", TAKEOVER_SECONDS)
    hooks = Hooks(killer.reached, killer.before_commit, killer.reached, takeover_seconds=takeover)
    try:
        drive(
            PlacedAgent(settings, spec),
            settings.kafka if order["bootstrap"] == settings.kafka else order["bootstrap"],
            llm=order.get("llm", "none"),
            stop=threading.Event(),
            until_idle=not order.get("endless"),
            as_json=True,
            hooks=hooks,
            started=killer.arm,
            patience=None if order.get("endless") else order.get("patience", PATIENCE_SECONDS),
        )
    except FlagstreamError as fault:
        say_line(f"{type(fault).__name__} {fault}")
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
