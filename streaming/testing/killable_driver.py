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
from streaming.home.settings import Settings
from streaming.kafka.publish import OutboxRecord
from streaming.output.terminal import say_line
from streaming.run.driver import PATIENCE_SECONDS, drive
from streaming.run.surroundings import Hooks

MID_PUBLISH = "mid-publish"


def main(order: dict[str, Any]) -> int:
    """Run an agent under an order: spec, home, bootstrap, llm, at (a place), signal, live, endless, patience.

    A live strike waits for a batch of its own, another hits the repair of what a predecessor left, too. An
    endless driver goes on when everything is read, until it is struck or told to stop.
    """
    armed = not order.get("live")

    def arm() -> None:
        nonlocal armed
        armed = True

    def strike(place: str) -> None:
        if armed and place == order.get("at"):
            os.kill(os.getpid(), getattr(signal, order["signal"]))

    def reached(step: BatchStep | LateStep) -> None:
        strike(step.value)

    def before_commit(_: Sequence[OutboxRecord]) -> None:
        strike(MID_PUBLISH)

    settings = Settings.load(Path(order["home"]), os.environ)
    spec = load_spec(Path(order["spec"]))
    hooks = Hooks(reached, before_commit, reached)
    try:
        drive(
            settings,
            spec,
            order["bootstrap"],
            llm=order.get("llm", "none"),
            stop=threading.Event(),
            until_idle=not order.get("endless"),
            as_json=True,
            hooks=hooks,
            started=arm,
            patience=None if order.get("endless") else order.get("patience", PATIENCE_SECONDS),
        )
    except FlagstreamError as fault:
        say_line(f"{type(fault).__name__} {fault}")
        return fault.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
