"""Ctrl-C: the first lets the current batch finish, the second stops at once; nothing is lost either way."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from streaming.output.log import last_words, log

_INTERRUPTED = 130
_SIGNALLED = 128
_LEAVING_SECONDS = 5.0
_LOGGING_SECONDS = 1.0
_TO_END: list[Callable[[], object]] = []


@contextmanager
def stop_on_interrupt(
    stop: threading.Event,
    waiting: Callable[[], bool] = lambda: False,
    doing: str = "finishing the current batch",
    then: str = "the next run finishes what is open",
) -> Iterator[None]:
    """Set `stop` on the first SIGINT or SIGTERM, leave the process at once on the second.

    Leaving at once is safe because every step of a batch is idempotent: the next run repairs what is open.

    Args:
        stop: checked by the work.
        waiting: whether the current batch waits for something that is away: then the process leaves after a
            few seconds, with 0, whether or not the work has come to its end.
        doing: what is done until the work stops, for people.
        then: what becomes of the rest where the process leaves, for people.
    """
    request = _StopRequest(stop, waiting, (doing, then))
    try:
        with _handled(request.handle, signal.SIGINT, signal.SIGTERM):
            yield
    finally:
        request.settle()


class _StopRequest:
    """What the first signal asks for; see stop_on_interrupt."""

    def __init__(self, stop: threading.Event, waiting: Callable[[], bool], said: tuple[str, str]) -> None:
        self._stop, self._waiting, self._left = stop, waiting, threading.Event()
        self._doing, self._then = said
        self._interrupted, self._asking = False, list[threading.Thread]()

    def handle(self, _: int, __: FrameType | None) -> None:
        """Ask the work to stop; the second time, leave."""
        if self._interrupted:
            _leave(f"stopped at once; {self._then}", _INTERRUPTED)
        self._interrupted = True
        # No worker, which takes locks. In a thread of its own: the handler may have interrupted a wait that
        # holds the event's lock.
        self._asking.append(threading.Thread(target=self._ask, daemon=True))
        self._asking[0].start()

    def settle(self) -> None:
        """The work has come to its end: nobody needs to leave."""
        self._left.set()
        for thread in self._asking:
            thread.join(_LOGGING_SECONDS)

    def _ask(self) -> None:
        self._stop.set()
        log("stopping", f"{self._doing}; press Ctrl-C again to stop at once")
        if self._waiting() and not self._left.wait(_LEAVING_SECONDS):
            _leave(f"stopped while waiting; {self._then}", 0)


@contextmanager
def ended_on_leaving(end: Callable[[], object]) -> Iterator[None]:
    """Have a service that this process started ended even when the process leaves at once."""
    _TO_END.append(end)
    try:
        yield
    finally:
        _TO_END.remove(end)


def _leave(how: str, code: int) -> None:
    last_words("stopped", how)
    _end_services()
    os._exit(code)


def _end_services() -> None:
    """Beside the main thread, which may hold what ending waits for; then it is left running."""
    # No worker: the process ends in a few seconds, whatever becomes of it.
    ending = threading.Thread(target=_end_each, daemon=True)
    ending.start()
    ending.join(_LEAVING_SECONDS)


def _end_each() -> None:
    for end in reversed(_TO_END):
        with suppress(Exception):
            end()


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Have SIGTERM end a command by its own way out, so that what it has started ends with it.

    A second one does not cut that short: `timeout` tells a process, and then its group, which it is part of.
    """

    def leave(number: int, _: FrameType | None) -> NoReturn:
        signal.signal(number, _pass_over)
        sys.exit(_SIGNALLED + number)

    with _handled(leave, signal.SIGTERM):
        yield


def _pass_over(_: int, __: FrameType | None) -> None:
    """Unlike SIG_IGN, this is not handed down to programs that are started."""


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Have signals handled, in the main thread alone: a platform may run us in another one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {each: signal.signal(each, handler) for each in numbers}
    try:
        yield
    finally:
        for each, before in previous.items():
            signal.signal(each, before)
