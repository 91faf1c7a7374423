"""Calls of librdkafka that may never return: after an outage some wait for ever, whatever their timeout."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def within(seconds: float, call: Callable[[], Result]) -> Result:
    """Return what a call returns, or raise what it raises, if it does so in time.

    It runs in a thread of its own, which is left behind otherwise: nothing can end a call in C.

    Raises:
        TimeoutError: it did not return in time, and may still do its work later.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as fault:
            outcome.set_exception(fault)

    threading.Thread(target=run, name="kafka-call", daemon=True).start()
    return outcome.result(seconds)
