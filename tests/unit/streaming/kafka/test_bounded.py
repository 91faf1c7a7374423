"""A call that never returns does not hold its caller for longer than it said."""

from __future__ import annotations

import threading
import time

import pytest

from schemas.errors import MachineError
from streaming.kafka.bounded import MOST_CALLS, within
from streaming.testing.drivers import wait_until


class Panic(BaseException):
    """What no `except Exception` catches."""


def test_what_a_call_returns_or_raises_is_passed_on() -> None:
    assert within(20.0, lambda: 42) == 42

    def fail() -> None:
        raise Panic("index out of range")

    with pytest.raises(Panic, match="out of range"):
        within(20.0, fail)


def test_a_call_that_does_not_return_is_left_behind() -> None:
    released, ended = threading.Event(), threading.Event()

    def wait() -> None:
        released.wait(60)
        ended.set()

    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        within(0.05, wait)
    assert time.monotonic() - begun < 20
    assert not ended.is_set()
    released.set()
    assert ended.wait(20), "it may still do its work later"


def test_calls_that_never_return_do_not_pile_up() -> None:
    released = threading.Event()
    before = threading.active_count()
    for _ in range(MOST_CALLS):
        with pytest.raises(TimeoutError):
            within(0.001, lambda: released.wait(60))
    for _ in range(3):
        with pytest.raises(MachineError, match="start flagstream again"):
            within(20.0, lambda: 42)
    assert threading.active_count() <= before + MOST_CALLS
    released.set()
    wait_until(lambda: threading.active_count() <= before, 20, "the threads to end")
    assert within(20.0, lambda: 42) == 42
