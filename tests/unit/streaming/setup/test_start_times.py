"""The parts of a start are noted once each, in the order in which they began, and reported once."""

from __future__ import annotations

import json
import time

import psutil
import pytest

from streaming.commands.run import show_start
from streaming.setup.start_times import StartPart, StartTimes, cpu_seconds


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_parts_may_overlap_and_the_first_of_a_name_counts() -> None:
    clock = Clock()
    times = StartTimes(begun=98.0, clock=clock)
    times.note("imports")
    with times.part("session"):
        clock.now += 1.0
        with times.part("kernels"):
            clock.now += 2.0
    with pytest.raises(ValueError, match="broken"), times.part("opening"):
        clock.now += 0.5
        raise ValueError("broken")
    with times.part("session"):
        clock.now += 9.0
    assert times.parts == [
        StartPart("imports", 0.0, 2.0),
        StartPart("session", 2.0, 3.0),
        StartPart("kernels", 3.0, 2.0),
        StartPart("opening", 5.0, 0.5),
    ]


def test_a_start_is_over_once() -> None:
    told: list[StartTimes] = []
    times = StartTimes(finished=told.append)
    times.finish()
    times.finish()
    assert told == [times]


def test_a_process_begins_before_its_first_line() -> None:
    began = psutil.Process().create_time()
    times = StartTimes()
    assert times.now() == pytest.approx(time.time() - began, abs=0.5)
    assert cpu_seconds() > 0


def test_what_is_shown_names_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    times = StartTimes(begun=0.0, clock=lambda: 12.5)
    times.note("opening", 10.0)
    show_start(times, as_json=True)
    told = json.loads(capsys.readouterr().out)["start"]
    assert (told["seconds"], told["parts"]) == (12.5, [{"name": "opening", "began": 10.0, "took": 2.5}])
    show_start(times, as_json=False)
    shown = capsys.readouterr().out
    assert "first batch closed after 12.5 s" in shown
    assert "opening" in shown
