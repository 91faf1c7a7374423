"""Calls of libraries that may never return: after an outage some wait for ever, whatever their timeout."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from schemas.errors import MachineError

Result = TypeVar("Result")
MOST_CALLS = 16
_slots = threading.BoundedSemaphore(MOST_CALLS)


def within(seconds: float, call: Callable[[], Result], who: str = "the Kafka client") -> Result:
    """Return what a call returns, or raise what it raises, if it does so in time.

    It runs in a thread of its own, which is left behind otherwise: nothing can end a call in C. At most
    MOST_CALLS are under way, those left behind included: neither threads nor producers pile up.

    Args:
        seconds: that it may take.
        call: what is called.
        who: it is a call of, for the error.

    Raises:
        TimeoutError: it did not return in time, and may still do its work later.
        MachineError: too many have never returned; only the end of the process frees them.
    """
    if not _slots.acquire(blocking=False):
        raise MachineError(
            f"{MOST_CALLS} calls of {who} have not returned: start flagstream again, "
            "it goes on where it ended"
        )
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as fault:
            outcome.set_exception(fault)
        finally:
            _slots.release()

    # No worker: a call cannot be tried again before it has returned; its fault is the caller's.
    threading.Thread(target=run, name="bounded-call", daemon=True).start()
    return outcome.result(seconds)
