"""What the desk costs an agent is measured in pairs of windows, of the events sent within them alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from benchmarks.beside import AskedIds, LatencyWindow, in_order, percent_more
from benchmarks.desk_lake import LISTS
from benchmarks.latency import delays_since
from benchmarks.live_agent import BenchAnswer

IDS = AskedIds("bench", ["a1", "a2"], ["c1", "c2", "c3"], "bench-live")


def test_a_p99_that_is_a_fifth_longer_is_twenty_percent_more() -> None:
    alone = np.linspace(0.1, 1.0, 400)
    assert percent_more(alone, 1.2 * alone) == pytest.approx(20.0)
    assert percent_more(alone, np.append(alone[:-1], 100.0)) == pytest.approx(0.0, abs=1.0)


@pytest.mark.parametrize("windows", [(np.empty(0), np.ones(3)), (np.ones(3), np.empty(0))])
def test_an_agent_that_stands_still_is_no_fast_one(windows: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="stands still"):
        percent_more(*windows)


def test_the_window_with_the_server_is_the_second_of_its_pair() -> None:
    alone, beside = LatencyWindow(0.0, 9.0), LatencyWindow(9.0, 18.0, (BenchAnswer("list", 0.1),))
    assert in_order(alone, beside) == in_order(beside, alone) == (alone, beside)


def test_alerts_belong_to_the_window_in_which_their_event_was_sent() -> None:
    sent = {"early": 0.9, "first": 1.0, "last": 1.9, "next": 2.0}
    arrivals = {**dict.fromkeys(sent, 2.5), "of nobody": 1.5}
    assert sorted(delays_since(sent, arrivals, 1.0, 2.0)) == pytest.approx([0.6, 1.5])
    assert len(delays_since(sent, arrivals, 1.0)) == 3


def test_the_mix_has_every_list_and_asks_about_every_id() -> None:
    asked = [IDS.request(number) for number in range(60)]
    assert Counter(each.kind for each in asked) == {
        "score": 24,
        "list": 12,
        "page": 12,
        "alert": 6,
        "entity": 6,
    }
    told = {tuple(sorted(each.params.items())) for each in asked if each.kind == "list"}
    assert told == {tuple(sorted({"agent": "bench", **each}.items())) for each in LISTS.values()}
    paths = {each.path for each in asked}
    assert paths >= {f"/console/alerts/{each}" for each in IDS.alerts}
    assert paths >= {f"/v1/entities/customer/{each}" for each in IDS.customers}
    assert {each.params["agent"] for each in asked if each.kind == "score"} == {"bench-live"}
