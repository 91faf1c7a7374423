"""The page of the system: what the agent waits for, how far, fast and fresh it is, and what it costs."""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from streaming.console.condition_words import condition_words
from streaming.console.rendering import PageRoute, page
from streaming.console.step_chart import STEP_HEIGHT, STEP_WIDTH, step_chart
from streaming.serve.calls import Call, needs
from streaming.serve.figures_api import show_cost, show_status, show_system
from streaming.serve.served_system import SystemFigures
from streaming.serve.system_figures import COUNTED, DRIFT_BOUNDS

system_router = APIRouter(prefix="/console", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
_DAYS, _FEATURES = 7, 12
_SILENT = timedelta(minutes=10)
_WORDS = condition_words()


@system_router.get("/system", response_class=HTMLResponse)
def show_system_page(request: Request, call: Reading) -> Response:
    """Show how the agent is; while its lake is away, what is known without it."""
    found = show_system(call)
    facts: dict[str, Any] = {"system": found, "words": _WORDS, "breaker": _breaker(found), "lake": found.lake}
    if found.lake is not None:
        facts |= _of_lake(call, found)
    return page(request, "system.html", HTTPStatus.OK, call=call, **facts)


def _of_lake(call: Call, found: SystemFigures) -> dict[str, Any]:
    lake, cost = found.lake, show_cost(call, "day")
    assert lake is not None
    last = lake.batches[-1].closed_at if lake.batches else None
    return {
        "state": show_status(call),
        "last_closed": last,
        "silent": last is not None and found.running and found.at - last > _SILENT,
        "chart": step_chart(lake.batches),
        "size": (STEP_WIDTH, STEP_HEIGHT),
        "features": list(lake.drift.features.items())[:_FEATURES] if lake.drift else [],
        "cost": cost,
        "days": cost.rows[-_DAYS:][::-1],
        "ago": lambda moment: _ago(found.at, moment),
        "drifted": _drifted,
        "psi": DRIFT_BOUNDS,
        "counts": COUNTED,
    }


def _breaker(found: SystemFigures) -> str | None:
    """Say why questions to models are held back; the running agent says so by a condition."""
    held = (each.cause for each in found.conditions if each.condition == "model_failing")
    return next(held, None)


def _drifted(index: float) -> str:
    """Return how much a population stability index says has changed."""
    slight, much = DRIFT_BOUNDS
    return "none" if index < slight else "some" if index < much else "much"


def _ago(now: datetime, moment: datetime | None) -> str:
    if moment is None:
        return "-"
    seconds = max(0, int((now - moment).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
