"""Payments without one of their entities: scored by the others, alerted, labelled, explained and replayed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from streaming.actions.entity_actions import EntityActions
from streaming.delta.lake_reader import AgentLake
from streaming.history.explain import explain
from streaming.home.placed_agent import PlacedAgent
from streaming.testing.live_lake import CONTRACT, LARGE, SILENT, events, judge
from streaming.testing.trial import Trial, trial
from tests.unit.streaming.batch.test_filters import under

OPEN = CONTRACT.model_dump(mode="json")
OPEN["entities"]["terminal"] |= {"required": False, "null_values": ["UNKNOWN", "0", ""]}
RULES = [
    LARGE,
    SILENT,
    {
        "name": "again",
        "sequence": {"entity": "terminal", "first": "amount > 15", "then": "amount > 30", "within": "1h"},
        "severity": "low",
        "reason": "again",
    },
]
CHANGES: dict[str, Any] = {
    "rules": RULES,
    "profiles": {
        "block_rows": 64,
        "checkpoint_rows": 100,
        "pairs": [["customer", "terminal"]],
        "windows": {"terminal": {"horizons": ["1h", "1d"], "lateness": "1h"}},
    },
    "detectors": {
        "counterparties": {"enabled": True, "entities": ["customer", "terminal"]},
        "habit": {"enabled": True, "entities": ["terminal"]},
    },
}


def with_guests(seed: int, names: Sequence[Any]) -> list[dict[str, Any]]:
    """Return payments of which some have no terminal, by turns."""
    told = events(300, seed)
    return [
        each if place % 3 else {**each, "terminal_id": names[place % len(names)]}
        for place, each in enumerate(told)
    ]


def send(tried: Trial, stream: Sequence[dict[str, Any]], rows: int) -> None:
    for first in range(0, len(stream), rows):
        tried.send(stream[first : first + rows])


@pytest.mark.long
@settings(
    max_examples=3,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],  # whole batches take too long to shrink
)
@given(st.integers(0, 2**32), st.integers(20, 200))
def test_payments_of_nobody_are_scored_recovered_and_replayed(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int
) -> None:
    folder = tmp_path_factory.mktemp("guests")
    stream, spec = with_guests(seed, (None, "UNKNOWN", "", 0, "0")), under(folder, OPEN, **CHANGES)
    with trial(folder, spec) as tried:
        send(tried, stream[:150], rows)
        guests = [each["tx_id"] for each in stream[:150:3]]
        judge(PlacedAgent(tried.settings, spec), guests[:5])
    with trial(folder, spec) as tried:
        send(tried, stream[150:], rows)
        stored = tried.stored("transactions", "sequence")
        assert (tried.rejected, stored.num_rows) == ([], len(stream))
        assert stored["terminal"].null_count == len(stream[::3])
        assert tried.replay().differences == ()
        for alert in tried.alerts:
            has_one = int(alert["transaction_id"].removeprefix("t")) % 3 != 0
            assert ("terminal" in alert["entities"]) == has_one
            assert has_one or not any(each["name"].endswith("terminal") for each in alert["reasons"])


def test_an_alert_of_a_guest_is_explained_and_listed_beside_others(tmp_path: Path) -> None:
    stream, spec = with_guests(3, (None,)), under(tmp_path, OPEN, **CHANGES)
    with trial(tmp_path, spec) as tried:
        send(tried, stream, 100)
        guest = next(each for each in tried.alerts if "terminal" not in each["entities"])
        lake = tried.settings.lake(spec.name)
        found = explain(AgentLake(lake, spec), guest["alert_id"], "customer")
        assert [each.kind for each in found.normal] == ["customer"]
        similar = EntityActions(PlacedAgent(tried.settings, spec), ("customer", "terminal")).similar(
            guest["alert_id"], 50
        )
        assert similar.reveals["terminal"] == frozenset({"entities.terminal"})
