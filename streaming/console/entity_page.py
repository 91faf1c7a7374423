"""The page of one entity: what is usual for it, its cases, alerts and payments, whom it has paid with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from schemas.errors import FlagstreamError
from schemas.event_columns import REFUND
from streaming.cases.book import CasePage
from streaming.console.alert_pages import cases_of
from streaming.console.charts import HEIGHT, WIDTH, Plot, amounts_plot
from streaming.console.graph import neighbours_graph
from streaming.console.rendering import PageRoute, entity_place, link, page
from streaming.inbox.filter_language import quoted
from streaming.serve.calls import Call, needs
from streaming.serve.cases_api import chosen_cases, list_cases
from streaming.serve.entities_api import MOST_ID, Kind
from streaming.serve.entity_pages import EntityPage, EntityPayment, KnownEntity

entity_router = APIRouter(prefix="/console/entities", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
Before = Annotated[int | None, Query(ge=0, le=2**63 - 1)]
Currency = Annotated[str | None, Query(max_length=100)]
_NO_CURRENCY = "-"
_DRAWN, _ROWS, _CASES = 500, 50, 20
_HOURS, _MINUTES = 24, 24 * 60
_NEIGHBOURS, _MOST_COUNTED = 24, 200


@entity_router.get("/{kind}", response_class=HTMLResponse)
def show_entity_by_query(
    request: Request,
    call: Reading,
    kind: Kind,
    entity_id: Annotated[str, Query(alias="id", max_length=MOST_ID)],
    before: Before = None,
    currency: Currency = None,
) -> Response:
    """Show an entity whose id a path may not hold, such as `..`."""
    return show_entity_page(request, call, kind, entity_id, before, currency)


@entity_router.get("/{kind}/{entity_id:path}", response_class=HTMLResponse)
def show_entity_page(
    request: Request,
    call: Reading,
    kind: Kind,
    entity_id: Annotated[str, Path(min_length=1, max_length=MOST_ID)],
    before: Before = None,
    currency: Currency = None,
) -> Response:
    """Show an entity; an id may hold slashes."""
    return page(request, "entity.html", call=call, **entity_facts(call, kind, entity_id, before, currency))


def entity_facts(
    call: Call, kind: str, entity_id: str, before: int | None, currency: str | None
) -> dict[str, Any]:
    """Return what the template of an entity shows, as the API has it.

    Args:
        before: `sequence` before which the payments of the table were stored, None for the newest.
        currency: of the payments that are drawn, `-` for those without one, None for the most frequent.

    Raises:
        NotFoundError: nothing of it is stored.
    """
    entity, without = call.agent.entities.meanwhile(kind, entity_id)
    found, newest = entity.page(), entity.history(_DRAWN, None)
    listed = newest if before is None else entity.history(_ROWS + 1, before)
    path, query = entity_place(kind, entity_id)
    return {
        "found": found,
        "without": without,
        "between": days_text(found.median_days_between),
        "here_path": path,
        "here_query": query,
        "cases_found": _cases_of(call, kind, entity_id),
        "alert_cases": cases_of(call, [each.alert_id for each in found.newest_alerts]),
        "alerts_link": _alerts_link(call, kind, entity_id),
        "payments": listed[:_ROWS],
        "following": listed[_ROWS - 1].sequence if len(listed) > _ROWS else None,
        "before": before,
        "transaction_filter": lambda transaction: f"transaction = {quoted(transaction)}",
        **_drawn_facts(found, newest, currency),
        **_neighbour_facts(entity),
    }


def days_text(days: float | None) -> str:
    """Return a number of days in the largest unit of which there is one."""
    if days is None:
        return "-"
    for unit, of_day in (("days", 1), ("h", _HOURS), ("min", _MINUTES)):
        if days * of_day >= 1:
            return f"{days * of_day:,.1f} {unit}"
    return "less than a minute"


def _alerts_link(call: Call, kind: str, entity_id: str) -> str:
    field = call.agent.inbox.fields.of_entity(kind)
    return link(call, "/console/alerts", {"filter": f"{field} = {quoted(entity_id)}"})


def _drawn_facts(found: EntityPage, newest: Sequence[EntityPayment], currency: str | None) -> dict[str, Any]:
    known = [each.currency or _NO_CURRENCY for each in found.currencies]
    drawn = currency if currency in known else known[0] if known else _NO_CURRENCY
    return {
        "plot": _plot(newest, drawn),
        "currencies": known,
        "drawn_currency": drawn,
        "chosen_currency": currency,
        "size": (WIDTH, HEIGHT),
    }


def _plot(payments: Sequence[EntityPayment], currency: str) -> Plot | None:
    """Amounts of several currencies, and of payments and refunds, have no common axis."""
    paid = [each for each in payments if each.direction != REFUND]
    rows = [each for each in paid if (each.currency or _NO_CURRENCY) == currency]
    return amounts_plot([(each.time, each.amount, each.alerted) for each in rows]) if rows else None


def _cases_of(call: Call, kind: str, entity_id: str) -> CasePage | None:
    """Return the open cases about an entity; cases that cannot be read keep nobody from reading the rest."""
    try:
        wanted = chosen_cases(None, None, None, None, f"{kind}={entity_id}", overdue=None)
        return list_cases(call, wanted, _CASES, None)
    except FlagstreamError:
        return None


def _neighbour_facts(entity: KnownEntity) -> dict[str, Any]:
    found = entity.neighbours(_MOST_COUNTED)
    counts = [sum(each.kind == name for each in found) for name in {each.kind for each in found}]
    shown = sorted(found, key=lambda each: -each.payments)[:_NEIGHBOURS]
    drawn = sorted(shown, key=lambda each: (each.kind, -each.payments))
    return {
        "neighbours": shown,
        "more_neighbours": len(found) - len(shown),
        "counted_all": max(counts, default=0) < _MOST_COUNTED,
        "graph": neighbours_graph(entity.id, drawn, kinds=len(counts)),
    }
