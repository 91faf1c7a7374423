"""The pages of versions: where each stands, what it has to pass, and how it does beside the one in force."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path
from markupsafe import escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from streaming.console.rendering import PageRoute, may, page
from streaming.serve.calls import Call, needs
from streaming.serve.registry_api import (
    VersionGates,
    VersionRow,
    list_beside,
    list_versions,
    preview_rollback,
    show_gates,
    show_version,
)
from streaming.serve.rule_figures import LEAST_JUDGED

version_router = APIRouter(prefix="/console/versions", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
# The nearer a version is to deciding, the further up it stands.
_ORDER: Mapping[str, int] = {"active": 0, "canary": 1, "shadow": 2, "sandbox": 3, "retired": 4}
_WORDS: Mapping[str, str] = {
    "active": "in force", "canary": "canary", "shadow": "shadow", "sandbox": "sandbox", "retired": "former",
}  # fmt: skip
_ENDPOINT = "endpoint"


@version_router.get("", response_class=HTMLResponse)
def show_versions_page(request: Request, call: Reading) -> Response:
    """Show where each version stands."""
    found = sorted(list_versions(call), key=lambda each: -each.since.timestamp())
    found.sort(key=lambda each: _ORDER[each.stage])
    waiting = [
        show_gates(call, each.version) for each in found if each.stage in ("canary", "shadow", "sandbox")
    ]
    return page(
        request, "versions.html", call=call, versions=found, waiting=waiting, beside=list_beside(call),
        back=preview_rollback(call), **_facts(call, found),
    )  # fmt: skip


@version_router.get("/{version}", response_class=HTMLResponse)
def show_version_page(
    request: Request, call: Reading, version: Annotated[str, Path(pattern=r"^\d{1,6}\.\d{1,6}\.\d{1,6}$")]
) -> Response:
    """Show a version, what it has otherwise than the one in force, and what has happened to it."""
    found, gates = show_version(call, version), show_gates(call, version)
    history = [(each, _shown(each.evidence)) for each in reversed(found.history)]
    return page(
        request, "version.html", call=call, found=found, waits=gates, history=history,
        spec_text=_shown(found.spec), spec_json=escape(json.dumps(found.spec)),
        back=preview_rollback(call), **_facts(call, list_versions(call)),
    )  # fmt: skip


def is_promotable(gates: VersionGates) -> bool:
    """Say whether all gates are open but that of endpoints, which a word of somebody opens."""
    return all(each.closed is None or each.name == _ENDPOINT for each in gates.gates)


def _facts(call: Call, versions: list[VersionRow]) -> dict[str, Any]:
    active = next((each for each in versions if each.stage == "active"), None)
    return {
        "words_of": _WORDS,
        "stages_json": json.dumps(dict(_WORDS)),
        "least_judged": LEAST_JUDGED,
        "active": active,
        "is_promotable": is_promotable,
        "may_change_endpoints": may(call, "admin"),
    }


def _shown(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False)
