"""The page of one case: what it is about, its alerts, and all that has happened to it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from streaming.console.rendering import PageRoute, page
from streaming.serve.calls import Call, needs
from streaming.serve.case_orders import CASE_ID
from streaming.serve.cases_api import show_case

case_router = APIRouter(prefix="/console/cases", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
_MOST_ALERTS, _MOST_ENTRIES = 50, 100
_DONE: Mapping[str, str] = {
    "opened": "opened", "alerted": "alerted", "claimed": "claimed it", "released": "gave it back",
    "assigned": "assigned it", "commented": "commented", "attached": "attached a file",
    "escalated": "escalated it", "close_asked": "asked to close it", "closed": "closed it",
    "labelled": "labels were written", "reopened": "reopened it", "merged": "merged it into another",
    "absorbed": "another was merged into it", "undone": "took an action back",
}  # fmt: skip

_ENTRY = dict.fromkeys(
    ("who", "reason", "alerted_at", "assignee", "name", "size", "text", "alerts", "revision", "undone"), None
)


@case_router.get("/{case_id}", response_class=HTMLResponse)
def show_case_page(
    request: Request, call: Reading, case_id: Annotated[str, Path(pattern=CASE_ID)]
) -> Response:
    """Show a case."""
    return page(request, "case.html", call=call, **case_facts(call, case_id))


def case_facts(call: Call, case_id: str) -> dict[str, Any]:
    """Return what the template of a case shows, as the API has it.

    Raises:
        NoSuchCaseError: there is none.
    """
    found = show_case(call, case_id, Response(), _MOST_ALERTS)
    now = datetime.now(UTC)
    entries = [{**_ENTRY, **each} for each in found.timeline[::-1]]
    left = None if found.case.deadline is None else found.case.deadline - now
    return {
        "case": found.case,
        "case_alerts": found.alerts,
        "entries": entries[:_MOST_ENTRIES],
        "more_entries": max(0, len(entries) - _MOST_ENTRIES),
        "done": _DONE,
        "clock": None if left is None else span_text(left),
    }


def span_text(span: timedelta) -> str:
    """Return how long there is, or how long ago it was, in two units at most."""
    minutes = abs(int(span.total_seconds())) // 60
    days, hours, rest = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (rest, "min")) if count]
    shown = " ".join(parts[:2]) or "less than a minute"
    return f"{shown} over" if span < timedelta(0) else f"{shown} left"
