"""Alerts that move to another topic, on a real broker: all of them leave, each on one topic."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from confluent_kafka.admin import AdminClient

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import AgentLake
from streaming.history.reconcile import Reconciliation, reconcile
from streaming.home.brokers import connection
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.run import opening
from streaming.testing.live_lake import TOPIC, agent, events, records
from streaming.testing.streams import published, stored
from streaming.versions.clients import Clients

CALL_SECONDS = 30.0


def run(
    settings: Settings, spec: AgentSpec, bootstrap: str, number: int, *, move: bool = False, rows: int = 200
) -> None:
    """Run an agent over one batch of payments."""
    first = number * rows
    told = records(events(first + rows)[first:], first)
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, spec), bootstrap, clients, move_alerts=move) as on,
    ):
        on.pipeline.process(lambda: told, "live", number, lambda: {TOPIC: {"0": first + rows}})


def test_alerts_move_when_asked_for_and_not_before(
    settings: Settings, bootstrap: str, topic: Callable[[str], str]
) -> None:
    before, after = (topic(name) for name in ("before", "after"))
    for name in (before, after):
        ensure_topic(bootstrap, name, 1)
    name = topic("tester")
    lake = settings.lake(name)

    def on_topic(alerts: str) -> AgentSpec:
        return agent(name=name, alerts={"topic": alerts})

    def reconciled() -> Reconciliation:
        return reconcile(AgentLake(lake, on_topic(after)), bootstrap, timedelta(hours=1))

    run(settings, on_topic(before), bootstrap, 0)
    with pytest.raises(ConfigurationError, match="--move-alerts"):
        run(settings, on_topic(after), bootstrap, 1)
    assert published(bootstrap, after) == []
    run(settings, on_topic(after), bootstrap, 1, move=True)
    run(settings, on_topic(after), bootstrap, 2)
    ids = [[alert["alert_id"] for alert in published(bootstrap, each)] for each in (before, after)]
    assert [len(each) > 3 for each in ids] == [True, True]
    assert ids[0] + ids[1] == stored(lake, "alerts", "outbox_seq")["alert_id"].to_pylist()
    assert reconciled().differences == 0
    admin = AdminClient(connection(bootstrap))
    admin.delete_topics([before])[before].result(CALL_SECONDS)
    found = reconciled()
    assert (found.differences, found.alerts_on_kafka) == (0, len(ids[1]))
