"""The inbox: a queue of cases or of alerts, with counts at the left and the chosen one at the right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from schemas.errors import ConfigurationError
from schemas.rules import Severity
from streaming.cases.book import CasePage
from streaming.cases.folding import Status
from streaming.console.alert_pages import alert_facts
from streaming.console.case_pages import case_facts
from streaming.console.rendering import PageRoute, link, page
from streaming.inbox.cursor import Order
from streaming.inbox.filter_language import MOST_CHARACTERS, AnyPart, parse_filter, quoted
from streaming.serve.alert_lists import AlertPage
from streaming.serve.alerts_api import list_alerts
from streaming.serve.calls import Call, needs
from streaming.serve.case_orders import CASE_ID, MOST_LEVEL, MOST_WORD, CaseKind
from streaming.serve.cases_api import chosen_cases, list_cases

queue_router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
After = Annotated[str | None, Query(max_length=200)]
CASES, ALERTS = "/console/cases", "/console/alerts"
_ROWS = 50
_MOST_VALUES = 8
_CASE_FACETS: tuple[str, ...] = ("status", "severity", "assignee", "kind", "level")
_STATUSES = ("open", "closing", "closed", "merged")


@dataclass(frozen=True)
class Choice:
    """A value of a facet, and where it leads: to it alone, or back from it.

    Attributes:
        value: as it is shown.
        count: how many of the list have it, None where that was not counted.
        href: of the list with it, or without it where it is chosen already.
        chosen: whether the list has nothing else.
    """

    value: str
    count: int | None
    href: str
    chosen: bool


@dataclass(frozen=True)
class Queue:
    """What a page of the inbox shows.

    Attributes:
        path: of the list.
        query: what chooses it, without the chosen row.
        after: where the page begins, None for the first.
        facets: name → values.
        following: address of the next page.
        where: the same cases as a mass update means them.
    """

    path: str
    query: Mapping[str, Any]
    after: str | None
    facets: Mapping[str, Sequence[Choice]] = field(default_factory=dict)
    following: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)


@queue_router.get("/cases", response_class=HTMLResponse)
def show_case_queue(
    request: Request,
    call: Reading,
    status: Annotated[Status | None, Query()] = None,
    severity: Annotated[Severity | None, Query()] = None,
    assignee: Annotated[str | None, Query(max_length=MOST_WORD)] = None,
    kind: Annotated[CaseKind | None, Query()] = None,
    entity: Annotated[str, Query(max_length=MOST_WORD)] = "",
    *,
    overdue: Annotated[bool | None, Query()] = None,
    level: Annotated[int | None, Query(ge=0, le=MOST_LEVEL)] = None,
    after: After = None,
    selected: Annotated[str | None, Query(pattern=CASE_ID)] = None,
) -> Response:
    """Show the cases that are meant, the most urgent first."""
    given = {
        "status": status, "severity": severity, "assignee": assignee, "kind": kind, "entity": entity.strip(),
        "overdue": "true" if overdue else None, "level": None if level is None else str(level),
    }  # fmt: skip
    found, said = _cases(call, given, overdue, after)
    following = _next(call, CASES, given, found.after)
    queue = Queue(CASES, given, after, _case_choices(call, given, found), following, _where(given))
    chosen = None if selected is None else case_facts(call, selected)
    return page(
        request, "cases.html", HTTPStatus.BAD_REQUEST if said else HTTPStatus.OK, call=call, queue=queue,
        found=found, said=said, selected=selected, statuses=_STATUSES, **({} if chosen is None else chosen),
    )  # fmt: skip


@queue_router.get("/alerts", response_class=HTMLResponse)
def show_alert_queue(
    request: Request,
    call: Reading,
    filter_: Annotated[str, Query(alias="filter", max_length=MOST_CHARACTERS)] = "",
    order: Annotated[Order, Query()] = "newest",
    after: After = None,
    selected: Annotated[str | None, Query(pattern="^[0-9a-f]{32}$")] = None,
) -> Response:
    """Show the alerts that a filter chooses."""
    given = {"filter": filter_.strip(), "order": None if order == "newest" else order}
    found, said = _alerts(call, given["filter"] or "", order, after)
    queue = Queue(
        ALERTS, given, after, _alert_choices(call, given, found), _next(call, ALERTS, given, found.next)
    )
    chosen = None if selected is None else alert_facts(call, selected)
    return page(
        request, "alerts.html", HTTPStatus.BAD_REQUEST if said else HTTPStatus.OK, call=call, queue=queue,
        found=found, said=said, selected=selected, order=order, **({} if chosen is None else chosen),
    )  # fmt: skip


def _cases(
    call: Call, given: Mapping[str, Any], overdue: bool | None, after: str | None
) -> tuple[CasePage, str]:
    """Return a page as the API lists it; where the search cannot be used, none, and why."""
    several = {name: [given[name]] if given[name] else None for name in ("status", "severity")}
    try:
        wanted = chosen_cases(
            several["status"], several["severity"], given["assignee"], given["kind"], given["entity"] or None,
            overdue=overdue, level=None if given["level"] is None else int(given["level"]),
        )  # fmt: skip
        return list_cases(call, wanted, _ROWS, after), ""
    except ConfigurationError as fault:
        return CasePage((), 0, None, {}), str(fault)


def _where(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same cases as a mass update means them."""
    several = {name: [given[name]] for name in ("status", "severity") if given[name]}
    others = {name: given[name] for name in ("assignee", "kind", "entity") if given[name]}
    level = {"level": int(given["level"])} if given["level"] else {}
    return {**several, **others, **level, **({"overdue": True} if given["overdue"] else {})}


def _alerts(call: Call, filter_: str, order: Order, after: str | None) -> tuple[AlertPage, str]:
    """Return a page as the API lists it; where the filter cannot be used, none, and why."""
    try:
        return list_alerts(call, filter_, order, after, _ROWS), ""
    except ConfigurationError as fault:
        return AlertPage(alerts=[], total=0, next=None, facets={}, outbox_seq=0), str(fault)


def _case_choices(call: Call, given: Mapping[str, Any], found: CasePage) -> dict[str, list[Choice]]:
    """What the list has of each facet; all statuses, since it shows live cases unless asked."""
    shown: dict[str, list[Choice]] = {}
    for name in _CASE_FACETS:
        counts: dict[str, int | None] = dict(list(found.facets.get(name, {}).items())[:_MOST_VALUES])
        for value in _STATUSES if name == "status" else [given[name]] if given[name] else []:
            counts.setdefault(value, None)
        shown[name] = [
            Choice(value, count, link(call, CASES, {**given, name: None if is_chosen else value}), is_chosen)
            for value, count in counts.items()
            for is_chosen in [given[name] == value]
        ]
    return shown


def _alert_choices(call: Call, given: Mapping[str, Any], found: AlertPage) -> dict[str, list[Choice]]:
    """What the list has of each facet; a choice is one condition more in the filter, or one less."""
    parts = _conditions(given["filter"]) if found.facets else []

    def choice(name: str, value: str, count: int) -> Choice:
        mine = f"{name} = {quoted(value)}"
        is_chosen = mine in parts
        rest = [each for each in parts if each != mine] if is_chosen else [*parts, mine]
        href = link(call, ALERTS, {**given, "filter": " and ".join(rest)})
        return Choice(value, count, href, is_chosen)

    return {
        name: [choice(name, value, count) for value, count in list(counts.items())[:_MOST_VALUES]]
        for name, counts in found.facets.items()
    }


def _conditions(text: str) -> list[str]:
    """Return what a filter asks for one by one; as a whole where it is more than an `and`."""
    parts = [each for each in text.split(" and ") if each]
    try:
        joined = not isinstance(parse_filter(text), AnyPart)
        for each in parts:
            parse_filter(each)
    except ConfigurationError:
        joined = False
    return parts if joined else [f"({text})"]


def _next(call: Call, path: str, given: Mapping[str, Any], after: str | None) -> str | None:
    return None if after is None else link(call, path, {**given, "after": after})
