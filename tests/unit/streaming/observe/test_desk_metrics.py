"""Metrics of the processes beside an agent, as they are scraped."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import generate_latest

from streaming.observe.desk_metrics import NotifyMetrics, RouteFacts, ServedState, ServeMetrics
from streaming.observe.metrics import Metrics
from streaming.service.health import ActiveCondition, Condition

AT = datetime(2026, 3, 1, tzinfo=UTC)


def scraped(metrics: ServeMetrics | NotifyMetrics) -> dict[str, float]:
    """Return what is scraped of ours: series → value."""
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name[:1] == "f"
    }


def held(condition: Condition) -> list[ActiveCondition]:
    return [ActiveCondition(condition, "why", AT)]


def test_agents_of_one_server_are_counted_each_by_itself() -> None:
    metrics = ServeMetrics(["a", "b"])
    for agent, status in (("a", 200), ("a", 200), ("b", 503), (None, 401)):
        metrics.answered(agent, "GET /v1/alerts", status, 0.02)
    found = scraped(metrics)
    counts = {
        (agent, status): found[f'flagstream_api_requests_total{{agent="{agent}",{_AT}status="{status}"}}']
        for agent, status in (("a", 200), ("b", 503), ("none", 401))
    }
    assert counts == {("a", 200): 2, ("b", 503): 1, ("none", 401): 1}
    assert found[f'flagstream_api_request_duration_seconds_count{{agent="a",{_AT[:-1]}}}'] == 2


_AT = 'endpoint="GET /v1/alerts",'


def test_conditions_of_a_server_are_its_own_and_those_of_each_agent() -> None:
    metrics = ServeMetrics(["a", "b"])
    metrics.refresh([ServedState("a", True, held(Condition.AUDIT_FAILING)), ServedState("b", False, ())])
    found = scraped(metrics)
    assert (found['flagstream_api_ready{agent="a"}'], found['flagstream_api_ready{agent="b"}']) == (1, 0)
    assert found['flagstream_condition_active{agent="a",condition="audit_failing"}'] == 1
    assert found['flagstream_condition_active{agent="b",condition="audit_failing"}'] == 0
    assert found['flagstream_condition_since_timestamp_seconds{agent="a",condition="audit_failing"}'] == (
        AT.timestamp()
    )
    assert not [name for name in found if "broker_away" in name], "the agent says that itself"


def test_routes_say_what_became_of_attempts_and_since_when_they_fail() -> None:
    metrics = NotifyMetrics("a")
    metrics.attempted("desk", "delivered", 0.1)
    metrics.attempted("desk", "failed", 2.0)
    metrics.refresh([RouteFacts("desk", 7.0, 3), RouteFacts("mail", 0.0, 0)], held(Condition.ROUTE_STALLED))
    found = scraped(metrics)
    assert found['flagstream_delivery_attempts_total{agent="a",outcome="failed",route="desk"}'] == 1
    assert found['flagstream_delivery_duration_seconds_count{agent="a",route="desk"}'] == 2
    assert found['flagstream_route_failing_since_timestamp_seconds{agent="a",route="desk"}'] == 7
    assert found['flagstream_route_failing_since_timestamp_seconds{agent="a",route="mail"}'] == 0
    assert found['flagstream_route_set_aside_alerts{agent="a",route="desk"}'] == 3
    assert found['flagstream_condition_active{agent="a",condition="route_stalled"}'] == 1


def test_no_process_beside_an_agent_says_that_the_agent_is_ready() -> None:
    """Else an agent that is gone would be taken for one that is there."""
    own = {"flagstream_condition_active", "flagstream_condition_since_timestamp_seconds"}
    agent = {each.name for each in Metrics("a").book.meanings} - own
    for metrics in (ServeMetrics(["a"]), NotifyMetrics("a")):
        assert not agent & {each.name for each in metrics.book.meanings}
