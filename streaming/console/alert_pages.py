"""The page of one alert: why it was raised, what is normal, what it is like, and what the model has said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from schemas.errors import FlagstreamError
from streaming.console.charts import BAR_WIDTH, HEIGHT, WIDTH, contribution_bars, payments_plot
from streaming.console.rendering import PageRoute, page
from streaming.serve.alerts_api import list_similar, show_alert
from streaming.serve.calls import Call, needs

alert_router = APIRouter(prefix="/console/alerts", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
_SIMILAR = 8


@alert_router.get("/{alert_id}", response_class=HTMLResponse)
def show_alert_page(
    request: Request, call: Reading, alert_id: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]
) -> Response:
    """Show an alert."""
    return page(request, "alert.html", call=call, **alert_facts(call, alert_id))


def alert_facts(call: Call, alert_id: str) -> dict[str, Any]:
    """Return what the template of an alert shows, as the API has it.

    Raises:
        NotFoundError: there is none.
    """
    found = show_alert(call, alert_id)
    alert = found.alert
    return {
        "alert": alert,
        "found_alert": found,
        "bars": contribution_bars(alert),
        "bar_width": BAR_WIDTH,
        "plot": payments_plot(found.history, alert),
        "size": (WIDTH, HEIGHT),
        "label": call.agent.labels.in_force(alert["transaction_id"]),
        "similar": list_similar(call, alert_id, _SIMILAR),
        "case_id": case_of(call, alert_id),
    }


def case_of(call: Call, alert_id: str) -> str | None:
    """Return the case of an alert; cases that cannot be read keep nobody from reading an alert."""
    return cases_of(call, [alert_id])[alert_id]


def cases_of(call: Call, alert_ids: Sequence[str]) -> Mapping[str, str | None]:
    """Return the case of each of some alerts; see case_of."""
    try:
        return call.agent.cases.shown().cases_of_alerts(alert_ids)
    except FlagstreamError:
        return dict.fromkeys(alert_ids)
