"""Routes of cases hear of a case though nobody else reads the alerts that make it."""

from __future__ import annotations

from pathlib import Path

import pytest

from streaming.cases.actions import NoSuchCaseError
from streaming.cases.orders import Order
from streaming.commands.case_events import BookedCases
from streaming.home.placed_agent import PlacedAgent
from tests.unit.streaming.cases.case_samples import Desk, alert_row


def test_alerts_become_cases_by_whoever_tells_of_cases_now_and_then(tmp_path: Path) -> None:
    desk, now = Desk(tmp_path), [0.0]
    cases = BookedCases(PlacedAgent(desk.settings, desk.spec), lambda: now[0])
    assert (cases.next_number(), cases.since(0, ["opened"])) == (0, [])
    desk.alert(alert_row(0, "c1"))
    assert cases.since(0, ["opened"]) == [], "a moment ago somebody has looked"
    now[0] += 10
    (opened,) = cases.since(0, ["opened"])
    assert opened["case"]["entity_id"] == "c1"
    desk.grouped().act(opened["case_id"], Order("escalate"), "anna")
    now[0] += 10
    (escalated,) = cases.since(opened["number"] + 1, ["opened", "escalated"])
    assert cases.newest(opened["case_id"][:6], ["opened", "escalated"]) == escalated
    assert cases.newest(opened["case_id"], ["reopened"]) is None
    with pytest.raises(NoSuchCaseError):
        cases.newest("0" * 16, ["opened"])


def test_a_route_that_begins_with_the_newest_hears_of_no_case_of_older_alerts(tmp_path: Path) -> None:
    desk, now = Desk(tmp_path), [0.0]
    desk.alert(alert_row(0, "c1"))
    cases = BookedCases(PlacedAgent(desk.settings, desk.spec), lambda: now[0])
    end = cases.end()
    assert end > 0
    now[0] += 10
    assert cases.since(end, ["opened"]) == []
    desk.alert(alert_row(1, "c2"))
    now[0] += 10
    (opened,) = cases.since(end, ["opened"])
    assert opened["case"]["entity_id"] == "c2"
