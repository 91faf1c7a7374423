"""Metrics of the processes beside an agent: `flagstream serve` and `flagstream notify run`.

They have names of their own where an agent has some that mean another thing: a server that is ready is no
agent that decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from streaming.observe.health_metrics import ConditionMetrics
from streaming.observe.metric import MetricBook
from streaming.observe.metrics import SECONDS, add_those_of_the_process
from streaming.service.health import ActiveCondition, Condition

NO_AGENT = "none"


class ApiMetrics:
    """What `serve` answers, and how fast."""

    def __init__(self, book: MetricBook) -> None:
        self.requests = book.counter(
            "api_requests_total",
            "Requests to `flagstream serve` by endpoint and status, those for its health left out.",
            "endpoint",
            "status",
        )
        self.seconds = book.histogram(
            "api_request_duration_seconds",
            "Time until an answer of `flagstream serve` begins, by endpoint.",
            "endpoint",
            buckets=SECONDS,
        )
        self.ready = book.gauge(
            "api_ready", "1 once `flagstream serve` has read what it serves of the agent."
        )


class DeliveryMetrics:
    """What `notify run` delivers, and which receivers fail."""

    def __init__(self, book: MetricBook) -> None:
        self.attempts = book.counter(
            "delivery_attempts_total",
            "Attempts to deliver, by route and what became of them (delivered, failed or refused).",
            "route",
            "outcome",
        )
        self.seconds = book.histogram(
            "delivery_duration_seconds",
            "Time that attempts to deliver take, by route.",
            "route",
            buckets=SECONDS,
        )
        self.failing = book.gauge(
            "route_failing_since_timestamp_seconds",
            "Since when the receiver of a route takes nothing, in seconds since 1970; 0 while it does.",
            "route",
        )
        self.set_aside = book.gauge(
            "route_set_aside_alerts", "Alerts that a route has set aside since it began, by route.", "route"
        )


@dataclass(frozen=True)
class ServedState:
    """How one agent of a server is.

    Attributes:
        agent: its name.
        is_ready: whether what is served of it was read.
        conditions: that hold.
    """

    agent: str
    is_ready: bool
    conditions: Sequence[ActiveCondition]


class ServeMetrics:
    """All metrics of a server.

    Args:
        agents: that it serves, by name.
    """

    def __init__(self, agents: Sequence[str]) -> None:
        self.book = MetricBook(NO_AGENT)
        self.registry = self.book.registry
        self._api, conditions = ApiMetrics(self.book), ConditionMetrics(self.book)
        add_those_of_the_process(self.registry)
        names = (NO_AGENT, *agents)
        self._requests = {each: self._api.requests.of(each) for each in names}
        self._seconds = {each: self._api.seconds.of(each) for each in names}
        self._conditions = {each: _Conditions(conditions, each, _OF_SERVE) for each in agents}

    def answered(self, agent: str | None, endpoint: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            agent: that it was about, None where nobody knows.
            endpoint: method and path, with names in the place of ids.
            status: of HTTP.
            seconds: until the answer began.
        """
        name = agent or NO_AGENT
        self._requests[name].add(1, endpoint, status)
        self._seconds[name].observe([seconds], endpoint)

    def refresh(self, states: Iterable[ServedState]) -> None:
        """Say how each agent is served now."""
        for each in states:
            self._api.ready.of(each.agent).put(each.is_ready)
            self._conditions[each.agent].put(each.conditions)


@dataclass(frozen=True)
class RouteFacts:
    """How one route is.

    Attributes:
        route: its name.
        failing_since: seconds since 1970, 0 while its receiver takes alerts.
        set_aside: alerts that will not arrive.
    """

    route: str
    failing_since: float
    set_aside: int


class NotifyMetrics:
    """All metrics of a process that delivers.

    Args:
        agent: whose alerts they are.
    """

    def __init__(self, agent: str) -> None:
        self.book = MetricBook(agent)
        self.registry, self._deliveries = self.book.registry, DeliveryMetrics(self.book)
        self._conditions = _Conditions(ConditionMetrics(self.book), agent, _OF_NOTIFY)
        add_those_of_the_process(self.registry)

    def attempted(self, route: str, outcome: str, seconds: float) -> None:
        """Count an attempt."""
        self._deliveries.attempts.add(1, route, outcome)
        self._deliveries.seconds.observe([seconds], route)

    def refresh(self, routes: Iterable[RouteFacts], conditions: Sequence[ActiveCondition]) -> None:
        """Say how each route is now."""
        for each in routes:
            self._deliveries.failing.put(each.failing_since, each.route)
            self._deliveries.set_aside.put(each.set_aside, each.route)
        self._conditions.put(conditions)


_OF_SERVE = (
    Condition.AUDIT_FAILING,
    Condition.TOKENS_UNREADABLE,
    Condition.INBOX_STALE,
    Condition.COPIES_STALE,
    Condition.FOLLOWER_STALE,
)
_OF_NOTIFY = (Condition.ROUTE_STALLED,)


class _Conditions:
    """The conditions that a process beside an agent may suffer from, no others: the agent has its own."""

    def __init__(self, metrics: ConditionMetrics, agent: str, known: Sequence[Condition]) -> None:
        self._active, self._since = metrics.condition.of(agent), metrics.since.of(agent)
        self._known = known

    def put(self, held: Sequence[ActiveCondition]) -> None:
        """Say which of them hold."""
        for condition in self._known:
            since = [each.since.timestamp() for each in held if each.condition is condition]
            self._active.put(bool(since), condition)
            self._since.put(min(since, default=0.0), condition)
