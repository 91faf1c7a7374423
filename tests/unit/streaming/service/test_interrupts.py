"""Ctrl-C: the event is set however the wait for it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from streaming.service.interrupts import (
    _end_services,
    ended_on_leaving,
    orderly_termination,
    stop_on_interrupt,
)


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


_LEAVING = """
import os, signal, sys, threading
from streaming.service.interrupts import ended_on_leaving, stop_on_interrupt

def broken():
    raise OSError("cannot be ended")

with stop_on_interrupt(threading.Event()), ended_on_leaving(lambda: print("service ended", flush=True)):
    with ended_on_leaving(broken):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(60)
"""


def test_leaving_at_once_ends_the_services_that_were_started() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LEAVING], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (130, "service ended\n"), done.stderr
    assert "stopped at once" in done.stderr


def test_it_says_what_becomes_of_the_rest() -> None:
    """A server, unlike a run, leaves nothing that a next one would finish."""
    program = _LEAVING.replace("(threading.Event())", "(threading.Event(), then='no agent is touched')")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "stopped at once; no agent is touched" in done.stderr
    assert "next run" not in done.stderr


_WAITING = """
import os, signal, threading
from streaming.service import interrupts

interrupts._LEAVING_SECONDS = 0.2
with interrupts.stop_on_interrupt(threading.Event(), lambda: True):
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        threading.Event().wait(60)
"""


def test_who_waits_for_what_is_away_leaves_with_0_although_the_batch_in_hand_never_ends() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WAITING], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "stopped while waiting" in done.stderr


def test_a_service_that_ended_in_the_usual_way_is_not_ended_again() -> None:
    ended: list[str] = []
    with ended_on_leaving(lambda: ended.append("again")):
        pass
    _end_services()
    assert ended == []


def test_a_command_that_is_told_to_end_leaves_by_its_own_way_out() -> None:
    before, left = signal.getsignal(signal.SIGTERM), list[str]()
    with pytest.raises(SystemExit) as ended, orderly_termination():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(10)
        finally:
            left.append("what it has started was ended")
    assert (ended.value.code, len(left)) == (143, 1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_that_is_told_twice_goes_its_way_out_to_the_end() -> None:
    left = list[str]()
    with pytest.raises(SystemExit) as ended, orderly_termination():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(10)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            left.append("what it has started was ended")
    assert (ended.value.code, len(left)) == (143, 1)
