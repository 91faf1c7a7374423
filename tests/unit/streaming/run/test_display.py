"""Progress for people: lines where standard output is no terminal, a panel where it is one."""

from __future__ import annotations

import io
import re
import sys
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming.batch.late_answers import LateTotals
from streaming.output.terminal import Terminal
from streaming.run import display as display_module
from streaming.run.display import JsonProgress, LineProgress, TerminalProgress, progress_display
from streaming.run.progress import Activity

CLOCK_TIME = re.compile(r"^\d\d:\d\d:\d\dZ ")


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [CLOCK_TIME.sub("", line) for line in capsys.readouterr().out.splitlines()]


def test_a_busy_run_says_something_every_five_seconds_and_an_idle_one_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    display = LineProgress("payments", clock)
    for second in range(21):
        clock.now = float(second)
        display.totals.events += 200
        display.totals.lag = 0
        display.show()
    said = lines(capsys)
    assert [line.partition(" ")[0] for line in said] == ["200", "1,200", "2,200", "3,200", "4,200"]
    assert said[1].startswith("1,200 events, 200/s; lag 0; 0 alerts")
    for second in range(21, 600):
        clock.now = float(second)
        display.show()
    assert lines(capsys) == []


def test_until_there_is_an_event_what_goes_on_is_said_with_the_seconds_so_far(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = Clock()
    display = LineProgress("payments", clock)
    display.doing(Activity("starting"))
    assert lines(capsys) == ["starting; 0 s so far"]
    for second in range(61):
        clock.now = float(second)
        display.show()
    assert lines(capsys) == [f"starting; {second} s so far" for second in range(5, 61, 5)]
    display.doing(Activity("streaming: 1 of 60 s", 1, 60))
    display.doing(Activity("streaming: 2 of 60 s", 2, 60))
    assert lines(capsys) == ["streaming: 1 of 60 s"]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1), st.sampled_from("ab")), max_size=60))
def test_no_line_comes_again_within_half_a_minute_and_nothing_new_waits_longer_than_five_seconds(
    steps: list[tuple[int, int, str]],
) -> None:
    clock, said = Clock(), list[tuple[float, str]]()
    with patch.object(display_module, "say_line", lambda line: said.append((clock.now, line[10:]))):
        display = LineProgress("payments", clock)
        for seconds, events, doing in steps:
            clock.now += seconds
            display.totals.events += events
            display.doing(Activity(f"waiting: {doing}"))
            told = re.sub(r"[\d.]+/s", "", said[-1][1]) if said else ""
            now = re.sub(r"[\d.]+/s", "", display._line(0.0))
            assert told == now or clock.now - said[-1][0] < 5.0
    for (before, one), (after, other) in pairwise(said):
        same = re.sub(r"[\d.]+/s", "", one) == re.sub(r"[\d.]+/s", "", other)
        assert after - before >= (30.0 if same else 0.0)


def test_the_last_line_has_the_final_totals(capsys: pytest.CaptureFixture[str]) -> None:
    with LineProgress("payments", Clock()) as display:
        display.totals.events, display.totals.alerts, display.totals.quarantined = 12, 3, 1
        display.late(LateTotals(answered=2, given_up=1))
    assert lines(capsys)[-1].endswith("3 alerts, 2 of them classified by the model; 1 quarantined")
    assert display.totals.given_up == 1


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_the_panel_fits_the_terminal(width: int) -> None:
    file = io.StringIO()
    console = Terminal(file=file, width=width)
    with TerminalProgress("payments", console) as display:
        display.totals.events, display.totals.alerts = 12_000, 71
        display.doing(Activity("the model's last answers: 40 of 71 alerts classified", 40, 71))
    drawn = file.getvalue().splitlines()
    assert any("the model's last answers"[: width - 12] in line for line in drawn)
    assert any("12,000" in line for line in drawn)
    assert [line for line in drawn if "━" in line and line.strip("━╸╺ ") == ""], (
        "the bar has a line of its own"
    )
    assert max(map(len, drawn)) <= width


@pytest.mark.parametrize(
    ("terminal", "as_json", "kind"),
    [
        (True, False, TerminalProgress),
        (False, False, LineProgress),
        (True, True, JsonProgress),
        (False, True, JsonProgress),
    ],
)
def test_json_is_for_those_who_ask_for_it(
    terminal: bool, as_json: bool, kind: type[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    assert isinstance(progress_display("payments", as_json=as_json), kind)
