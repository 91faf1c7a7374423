"""Ctrl-C: the event is set however the wait for it is interrupted."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from streaming.interrupts import stop_on_interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_to_stop_and_the_handler_is_put_back(number: int) -> None:
    before = signal.getsignal(number)
    stop = threading.Event()
    with stop_on_interrupt(stop):
        os.kill(os.getpid(), number)
        assert stop.wait(10)
    assert signal.getsignal(number) is before


def test_a_signal_during_a_wait_on_the_event_does_not_lock_up() -> None:
    for _ in range(200):
        stop = threading.Event()
        with stop_on_interrupt(stop):
            timer = threading.Timer(0.0005, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            while not stop.is_set():
                stop.wait(0.00001)
            timer.join()
