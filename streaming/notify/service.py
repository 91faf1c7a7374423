"""All routes of a file at work, each by itself: one that fails holds up no other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack

from streaming.home.placed_agent import PlacedAgent
from streaming.notify.case_changes import CASES, CaseChangeReader, CaseEvents
from streaming.notify.lane import AlertSource, RouteLane
from streaming.notify.opening import OpenRoute
from streaming.notify.reader import PlacedReader
from streaming.notify.state import RouteState, StateFile
from streaming.output.log import log
from streaming.service.health import ActiveCondition, Condition, Health
from streaming.service.worker import Worker
from streaming.store.opening import files_of

_CHECK_SECONDS = 0.5


class Deliveries:
    """The routes of one agent's alerts, each in a worker of its own.

    Args:
        agent: whose alerts they are; its settings say where it is on record how far each has come.
        bootstrap: address of the broker.
        routes: as they were opened.
        cases: where changes of cases are read, for routes that take them.
    """

    def __init__(
        self,
        agent: PlacedAgent,
        bootstrap: str,
        routes: Sequence[OpenRoute],
        cases: CaseEvents,
    ) -> None:
        self._agent, self._bootstrap = agent, bootstrap
        self._end, self._cases = threading.Event(), cases
        self._lanes = {each.route.name: self._lane(each) for each in routes}
        self._workers: dict[str, Worker] = {}
        self._health: dict[str, Health] = {}

    def run(self, stop: threading.Event) -> None:
        """Deliver until `stop` is set; deliveries under way are waited for.

        Raises:
            FencedError: another process delivers for one of the routes.
            ConfigurationError: a right is missing, or an alert is of a later version.
        """
        with ExitStack() as closing:
            for name, lane in self._lanes.items():
                worker = self._workers[name] = self._worker(name, lane)
                closing.callback(lane.close)
                closing.callback(worker.close)
                worker.start()
            # Called first on the way out: no route waits for another's delivery before it learns of the end.
            closing.callback(self._end.set)
            while not stop.wait(_CHECK_SECONDS):
                for worker in self._workers.values():
                    worker.check()

    @property
    def states(self) -> dict[str, RouteState]:
        """How far each route has come."""
        return {name: lane.state for name, lane in self._lanes.items()}

    @property
    def conditions(self) -> list[ActiveCondition]:
        """What holds of any route."""
        return [state for health in list(self._health.values()) for state in health.active]

    def why_not_live(self) -> str | None:
        """Return None: a route that cannot go on ends the process by itself."""
        return None

    def why_not_ready(self) -> str | None:
        """Say which routes read no alerts, None where all do; what receivers do is no matter of it."""
        still = [name for name, lane in self._lanes.items() if not lane.is_open or self._stalled(name)]
        return f"routes that read no alerts: {', '.join(still)}" if still else None

    def _stalled(self, route: str) -> bool:
        return route not in self._health or bool(self._health[route].active)

    def _lane(self, opened: OpenRoute) -> RouteLane:
        topic = CASES if opened.route.when.case else self._agent.spec.alerts.topic
        file = StateFile(files_of(self._agent.settings.deliveries(self._agent.name)), opened.route.name)
        return RouteLane(
            opened, self._agent.name, topic, file,
            lambda: self._source(opened), self._end.is_set,
        )  # fmt: skip

    def _source(self, opened: OpenRoute) -> AlertSource:
        wanted, agent = opened.route.when.case, self._agent.name
        if wanted:
            return CaseChangeReader(self._cases, agent, wanted, self._end.wait)
        return PlacedReader(self._bootstrap, self._agent.spec.alerts.topic, agent)

    def _worker(self, name: str, lane: RouteLane) -> Worker:
        health = self._health[name] = Health(changed=lambda _, state: self._log_state(name, state))
        return Worker(f"route-{name}", lane.round, Condition.ROUTE_STALLED, health, begin=lane.begin)

    def _log_state(self, route: str, state: ActiveCondition | None) -> None:
        """Say that a route cannot read alerts, or its place; what a receiver does the lane says itself."""
        if state is None:
            log("route_goes_on", "a route reads alerts again", agent=self._agent.name, route=route)
        else:
            log(
                "route_stalled", state.cause, level=logging.WARNING, agent=self._agent.name, route=route
            )  # fmt: skip
