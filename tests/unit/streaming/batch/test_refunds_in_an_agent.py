"""Refunds from the record to the alert: stored with their direction, scored apart, and read by rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.contract import load_contract
from schemas.spec import AgentSpec
from streaming.commands.explain import _refund
from streaming.history.explain import explain
from streaming.home.placed_agent import PlacedAgent
from streaming.testing.live_lake import agent, events
from streaming.testing.trial import trial

RULE: dict[str, Any] = {
    "name": "large_refund",
    "when": "direction = 'refund' and amount > 150 and count_customer_refunds_1_day >= 0",
    "severity": "high",
    "reason": "a large refund",
}


def spec_with(folder: Path, money: dict[str, Any], **changes: Any) -> AgentSpec:
    content = load_contract("simulator").model_dump(mode="json")
    content["amount"] |= money
    path = folder / "refunds.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    source = {"transactions": {"contract": str(path), "topic": "events"}}
    return agent(**{"data_sources": source, "rules": [RULE], **changes})


def with_refunds(count: int) -> list[dict[str, Any]]:
    payments = events(count)
    for place in range(0, count, 4):
        payments[place]["amount"] = -payments[place]["amount"]
    payments[-2] |= {"amount": -190.0, "customer_id": "c1"}
    payments[-1] |= {"amount": 190.0, "customer_id": "c2"}
    return payments


def test_refunds_are_stored_scored_and_alerted_as_such(tmp_path: Path) -> None:
    payments = with_refunds(600)
    spec = spec_with(tmp_path, {"negative": "refund"})
    with trial(tmp_path / "home", spec) as tried:
        for first in range(0, 400, 130):
            tried.send(payments[first : min(first + 130, 400)])
    with trial(tmp_path / "home", spec) as tried:
        tried.send(payments[400:])
        stored = tried.stored("transactions", "sequence")
        raised = {each["transaction_id"]: each for each in tried.alerts if "large_refund" in each["rules"]}
        alerts = tried.alerts
        assert tried.replay().differences == ()
    signs = [each["amount"] < 0 for each in payments]
    assert stored["direction"].to_pylist() == ["refund" if sign else "payment" for sign in signs]
    assert stored["amount"].to_pylist() == [abs(each["amount"]) for each in payments]
    refunds = {each["tx_id"] for each in payments if each["amount"] < -150}
    assert raised.keys() == refunds
    assert {each["direction"] for each in raised.values()} == {"refund"}
    assert {each["direction"] for each in alerts} == {"refund", "payment"}
    found = explain(PlacedAgent(tried.settings, spec), payments[-2]["tx_id"], "customer")
    past = [-each["amount"] for each in payments[:-2] if each["customer_id"] == "c1" and each["amount"] < 0]
    assert _refund(found.alert) == "refund of "
    assert sorted(found.history["amount"].to_list()) == pytest.approx(sorted(past))


def test_a_lake_of_payments_learns_of_refunds_under_a_new_contract(tmp_path: Path) -> None:
    payments = with_refunds(300)
    good = [each for each in payments[:200] if each["amount"] > 0]
    with trial(tmp_path / "home", spec_with(tmp_path, {}, rules=[])) as tried:
        tried.send(good)
    with trial(tmp_path / "home", spec_with(tmp_path, {"negative": "refund"})) as tried:
        tried.send(payments[200:])
        stored = tried.stored("transactions", "sequence")
        assert tried.replay().differences == ()
    assert stored["direction"].to_pylist()[: len(good)] == [None] * len(good)
    assert set(stored["direction"].to_pylist()[len(good) :]) == {"payment", "refund"}


def test_where_nobody_knows_refunds_alerts_say_nothing_of_them(tmp_path: Path) -> None:
    with trial(tmp_path, agent()) as tried:
        tried.send(events(200))
        assert {each["direction"] for each in tried.alerts} == {None}
        assert "direction" not in tried.stored("transactions", "sequence").column_names
