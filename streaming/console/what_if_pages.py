"""The pages of what-ifs: those that this server has begun, and what each would have moved."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from streaming.console.rendering import PageRoute, page
from streaming.console.rule_pages import MOST_MISSED
from streaming.serve.calls import Call, needs
from streaming.serve.registry_api import list_versions
from streaming.serve.what_ifs_api import WhatIfStatus, list_what_ifs, show_report, show_what_if

what_if_router = APIRouter(prefix="/console/what-ifs", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
# Figure of a side → what it is called, and how it is shown.
_FIGURES = {
    "alerts": ("Alerts", "number"), "alerts_per_day": ("Alerts a day", "number"),
    "judged": ("Transactions with alert and label", "number"), "frauds": ("Of these frauds", "number"),
    "precision": ("Precision", "share"), "recall": ("Recall", "share"),
    "cp100": ("Card precision@100", "share"), "days_over_budget": ("Days over the budget", "number"),
}  # fmt: skip


@what_if_router.get("", response_class=HTMLResponse)
def show_what_ifs_page(request: Request, call: Reading) -> Response:
    """Show the what-ifs, the newest first."""
    return page(request, "what_ifs.html", call=call, jobs=list_what_ifs(call))


@what_if_router.get("/{job_id}", response_class=HTMLResponse)
def show_what_if_page(
    request: Request, call: Reading, job_id: Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
) -> Response:
    """Show how far a what-if is, or what it has found."""
    job = show_what_if(call, job_id)
    report: dict[str, Any] | None = show_report(call, job_id) if job.state == "done" else None
    return page(
        request, "what_if.html", call=call, job=job, version=_version_of(call, job), report=report,
        figures=_FIGURES, most_missed=MOST_MISSED,
        primary=call.agent.definition.contract.primary_entity,
        most=max((max(each) for each in report["per_day"].values()), default=0) if report else 0,
    )  # fmt: skip


def _version_of(call: Call, job: WhatIfStatus) -> str | None:
    """Return the version of the registry that a what-if replays, None where it tries an edit."""
    tried = next((each.after for each in job.differences if each.key == "version"), None)
    # Values of differences are JSON.
    return next((each.version for each in list_versions(call) if f'"{each.version}"' == tried), None)
