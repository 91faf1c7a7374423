"""`flagstream notify`: alerts delivered by a file of routes, routes tried and shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, get_args

import orjson

from schemas.alert_documents import alert_documents
from schemas.cases import CaseChange
from schemas.errors import ConfigurationError, FlagstreamError
from schemas.routes import When
from schemas.spec import AgentSpec
from streaming.commands.broker import broker_of
from streaming.commands.case_events import BookedCases
from streaming.delta.lake_reader import LakeReader
from streaming.history.explain import find_alert_row
from streaming.home.placed_agent import PlacedAgent
from streaming.notify.case_changes import CASES, CaseNotice
from streaming.notify.notices import Notice
from streaming.notify.opening import OpenRoute, open_routes
from streaming.notify.outcomes import DeliveryOutcome, Receiver
from streaming.notify.reader import PlacedReader
from streaming.notify.sample import sample_alert, sample_change
from streaming.notify.service import Deliveries
from streaming.notify.state import RouteState, StateFile
from streaming.observe.desk_metrics import NotifyMetrics, RouteFacts
from streaming.observe.endpoint import metrics_served
from streaming.output.facts import show_facts
from streaming.output.log import log
from streaming.service.interrupts import stop_on_interrupt
from streaming.store.opening import files_of


def run_routes(agent: PlacedAgent, file: Path, *, as_json: bool) -> None:
    """Deliver alerts until Ctrl-C, then print how far each route has come."""
    opened = open_routes(file, agent.settings.environ)
    stop, metrics = threading.Event(), NotifyMetrics(agent.name)
    counted = [
        replace(each, receiver=CountedReceiver(each.receiver, each.route.name, metrics.attempted))
        for each in opened
    ]
    with broker_of(agent.settings) as bootstrap, stop_on_interrupt(stop), ExitStack() as serving:
        deliveries = Deliveries(agent, bootstrap, counted, BookedCases(agent))
        refresh = partial(_refresh, metrics, deliveries)
        served = (metrics.registry, deliveries, refresh, agent.name)
        serving.enter_context(metrics_served(agent.settings.metrics, *served))
        log(
            "routes_served",
            f"routes at work: {', '.join(each.route.name for each in opened)}",
            agent=agent.name,
        )
        deliveries.run(stop)
    show_facts(
        {"routes": [_row(each, deliveries.states[each.route.name]) for each in opened]}, as_json=as_json
    )


@dataclass(frozen=True)
class CountedReceiver:
    """A receiver whose attempts are counted; see streaming.notify.outcomes.Receiver."""

    receiver: Receiver
    route: str
    count: Callable[[str, str, float], None]

    def deliver(self, notice: Notice) -> DeliveryOutcome:
        """See Receiver."""
        began = time.perf_counter()
        outcome = self.receiver.deliver(notice)
        self.count(self.route, outcome.became, time.perf_counter() - began)
        return outcome

    def close(self) -> None:
        """See Receiver."""
        self.receiver.close()


def _refresh(metrics: NotifyMetrics, deliveries: Deliveries) -> None:
    facts = [_facts(name, state) for name, state in deliveries.states.items()]
    metrics.refresh(facts, deliveries.conditions)


def _facts(name: str, state: RouteState) -> RouteFacts:
    failing = state.failing_since
    since = 0.0 if failing is None else datetime.fromisoformat(failing).timestamp()
    return RouteFacts(name, since, state.refused)


@dataclass(frozen=True)
class TriedNotice:
    """What is delivered to try routes: what each of them takes, made up, unless something is given.

    Attributes:
        alert: one in the lake, see find_alert_row.
        case: one in the lake, by its id or the first characters of it; its newest change is delivered.
    """

    alert: str | None = None
    case: str | None = None


def check_routes(agent: PlacedAgent, file: Path, *, as_json: bool) -> None:
    """Check a routes file with its secrets and addresses, sending nothing; print where each route stands."""
    opened = open_routes(file, agent.settings.environ)
    files = files_of(agent.settings.deliveries(agent.name))
    states = {each.route.name: StateFile(files, each.route.name).read() for each in opened}
    waiting = _waiting(agent, states)
    rows = [
        {**_row(each, states[each.route.name]), "waiting": waiting.get(each.route.name)} for each in opened
    ]
    show_facts({"routes": rows}, as_json=as_json)


def try_routes(
    agent: PlacedAgent, file: Path, tried: TriedNotice, *, only: str | None, as_json: bool
) -> bool:
    """Say which routes take a notice, deliver it along them once, and print what became of it.

    Args:
        tried: what is delivered.
        only: name of the one route that is tried.

    Returns:
        Whether all took it that were to.
    """
    opened = [each for each in open_routes(file, agent.settings.environ) if only in (None, each.route.name)]
    if not opened:
        raise ConfigurationError(f"no route is called {only!r}", where=str(file))
    made_up = tried == TriedNotice()
    stored = None if made_up else _stored(agent, tried)
    notices = [(each, stored or _sample(agent.spec, each.route.when)) for each in opened]
    rows = [_tried(each, notice, always=made_up) for each, notice in notices]
    what = "case" if tried.case else "alert"
    show_facts({what: notices[0][1].incident, "routes": rows}, as_json=as_json)
    return all(row["became"] in ("delivered", "not taken") for row in rows)


def _tried(opened: OpenRoute, notice: Notice, *, always: bool) -> dict[str, Any]:
    row = {"route": opened.route.name, "receiver": opened.kind}
    if not always and not notice.is_wanted(opened.route.when):
        return {**row, "became": "not taken", "said": "`when` leaves it out"}
    with closing(opened.receiver) as receiver:
        outcome = receiver.deliver(notice)
    return {**row, "became": outcome.became, "said": outcome.said}


def _sample(spec: AgentSpec, when: When) -> Notice:
    if when.case:
        return CaseNotice.of_change(spec.name, sample_change(spec.name, when.case[0]))
    document = sample_alert(spec.name)
    return Notice(orjson.loads(document), document)


def _stored(agent: PlacedAgent, tried: TriedNotice) -> Notice:
    if tried.case is not None:
        change = BookedCases(agent).newest(tried.case, get_args(CaseChange))
        assert change is not None, "a case that there is was opened"
        return CaseNotice.of_change(agent.name, change)
    assert tried.alert is not None, "one of both is given"
    row = find_alert_row(LakeReader.of(agent), tried.alert)
    (document,) = alert_documents(row)
    return Notice(orjson.loads(document), document)


def _waiting(agent: PlacedAgent, states: dict[str, RouteState | None]) -> dict[str, int | None]:
    """Return how many records each route has not read; none is known while the broker is away.

    Nor is it of routes that take changes of cases: their place is a number of the table.
    """
    known = {name: state for name, state in states.items() if state is not None and state.topic != CASES}
    if not known:
        return {}
    try:
        with broker_of(agent.settings) as bootstrap:
            return _behind(PlacedReader(bootstrap, agent.spec.alerts.topic, agent.name), known)
    except FlagstreamError:
        return {}


def _behind(reader: PlacedReader, known: dict[str, RouteState]) -> dict[str, int | None]:
    try:
        return {name: reader.waiting(state.places) for name, state in known.items()}
    finally:
        reader.close()


def _row(opened: OpenRoute, state: RouteState | None) -> dict[str, Any]:
    found = state or RouteState("")
    return {
        "route": opened.route.name,
        "receiver": opened.kind,
        "delivered": found.delivered,
        "set_aside": found.refused,
        "unread": found.unread,
        "failing_since": found.failing_since,
        "said": found.said,
    }
