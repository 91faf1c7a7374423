"""Renders pages: every text on them is escaped, and shows what cannot be seen as what it is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from agent.triage.untrusted_text import escaped
from schemas.errors import FlagstreamError
from streaming.output.redaction import redacted
from streaming.serve.calls import Call
from streaming.serve.case_orders import MOST_AT_ONCE
from streaming.serve.guard import report
from streaming.serve.problems import ProblemAnswer, answer_to
from streaming.tokens.bearer import Scope

_KIB = 1024
FOLDER = Path(__file__).parent
_DIGEST = re.compile("[0-9a-f]{64}")
_PLAIN_ID = re.compile("[A-Za-z0-9_-]{1,200}")
_ID = "id"
STATIC = {
    "console.css": "text/css", "console.js": "text/javascript", "cases.js": "text/javascript",
    "palette.js": "text/javascript", "quarantine.js": "text/javascript",
    "operate.js": "text/javascript", "icon.svg": "image/svg+xml",
}  # fmt: skip
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A form that is sent without a referrer has no origin to be checked by.
_HEADERS = {"Content-Security-Policy": POLICY, "Referrer-Policy": "same-origin"}


def page(request: Request, template: str, status: HTTPStatus = HTTPStatus.OK, **facts: Any) -> HTMLResponse:
    """Render a template.

    Args:
        request: that is answered.
        template: its name.
        status: of the answer.
        facts: what the template shows.
    """
    console = request.app.state.console
    session = console.sessions.of(request)
    principal = getattr(request.state, "principal", None)
    known = {
        "principal": principal,
        "csrf": session.csrf if session and principal else "",
        "call": None,
        "here": request.url.path.removeprefix("/console").strip("/"),
        "may_triage": "call" in facts and may_triage(facts["call"]),
        "may_operate": "call" in facts and may_operate(facts["call"]),
    }
    html = _PAGES.get_template(template).render(
        {**known, "status": status, "now": datetime.now(UTC), **facts}
    )
    return HTMLResponse(html, status, _HEADERS)


class PageRoute(APIRoute):
    """A route whose faults are read by people: pages, not problem documents."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See fastapi.routing.APIRoute."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except (FlagstreamError, HTTPException, RequestValidationError) as fault:
                return _fault_page(request, fault)

        return handled


def link(call: Call, path: str, query: Mapping[str, Any] | None = None) -> str:
    """Return the address of a page or an endpoint about the agent of a call; nothing stands for itself."""
    asked = (query or {}).items()
    given = {name: value for name, value in asked if value not in (None, "", [], ()) or name == _ID}
    if len(call.principal.agents) > 1:
        given["agent"] = call.agent.name
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def entity_place(kind: str, entity_id: str) -> tuple[str, dict[str, str]]:
    """Return path and query of the page of an entity, whatever its id is."""
    path = f"/console/entities/{_part(kind)}"
    if _PLAIN_ID.fullmatch(entity_id):
        return f"{path}/{entity_id}", {}
    return path, {_ID: entity_id}  # browsers, proxies and routes make something else of it in a path


def entity_link(call: Call, kind: str, entity_id: str) -> str:
    """Return the address of the page of an entity."""
    return link(call, *entity_place(kind, entity_id))


def may_triage(call: Call) -> bool:
    """Say whether whoever calls may work on cases and label transactions."""
    return may(call, "triage")


def may_operate(call: Call) -> bool:
    """Say whether whoever calls may move versions and requeue records."""
    return may(call, "operate")


def static_digest() -> str:
    """Return what names the newest style and script, so that browsers may keep them."""
    content = b"".join((FOLDER / "static" / name).read_bytes() for name in sorted(STATIC))
    return hashlib.sha256(content).hexdigest()[:12]


def may(call: Call, scope: Scope) -> bool:
    """Say whether whoever calls has a scope."""
    return scope in call.principal.scopes.get(call.agent.name, frozenset())


def _fault_page(request: Request, fault: Exception) -> Response:
    answer = _answer(fault)
    if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        report(fault, request.state.request_id, request.url.path)
    said = redacted(answer.detail or answer.status.phrase)
    shown = page(request, "fault.html", answer.status, said=said, request_id=request.state.request_id)
    shown.headers.update(answer.headers)
    return shown


def _answer(fault: Exception) -> ProblemAnswer:
    if isinstance(fault, RequestValidationError):
        return ProblemAnswer(HTTPStatus.NOT_FOUND, "there is no such page")
    return answer_to(fault)


def _plain(value: object) -> object:
    """Have nothing invisible in a text that a page shows, and nothing that turns it around."""
    if value is None:
        return "-"
    return value if isinstance(value, Markup) or not isinstance(value, str) else escaped(value, lines=True)


def _outsider(value: object) -> Markup:
    """Mark a text that somebody outside has chosen; it changes the direction of nothing around it."""
    shown = "-" if value is None else escaped(str(value), lines=True)
    return Markup('<bdi class="outsider" title="text from outside">{}</bdi>').format(shown)


def _shortened(value: str | None) -> Markup:
    """Mark a text from outside; of a digest the first characters, the whole one where a pointer rests."""
    if value is None or not _DIGEST.fullmatch(value):
        return _outsider(value)
    return Markup('<span class="mono" title="{}">{}…</span>').format(value, value[:12])


def entity_name(call: Call, kind: str, entity_id: str) -> Markup:
    """Return the id of an entity as text from outside, which leads to its page."""
    shown = entity_id if entity_id.strip() else f"\u201c{entity_id}\u201d"
    return Markup('<a href="{}">{}</a>').format(entity_link(call, kind, entity_id), _outsider(shown))


def _moment(value: datetime | str | None) -> Markup:
    if value is None:
        return Markup("-")
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    shown = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(
        shown.isoformat(timespec="seconds"), f"{shown:%Y-%m-%d %H:%M}"
    )


def _amount(value: float | None, currency: str | None = None) -> str:
    return "-" if value is None else f"{value:,.2f} {currency or ''}".rstrip()


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f} %"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} s"


def _words(value: str | None) -> str:
    return "-" if value is None else value.replace("_", " ")


def _with_code(value: str) -> Markup:
    """Show words of ours, with what stands between backticks as it is typed."""
    parts = value.split("`")
    shown = (
        Markup("<code>{}</code>" if number % 2 else "{}").format(each) for number, each in enumerate(parts)
    )
    return Markup("").join(shown)


def _size(value: int) -> str:
    amount, units = float(value), ["B", "KiB", "MiB", "GiB", "TiB"]
    while amount >= _KIB and len(units) > 1:
        amount, units = amount / _KIB, units[1:]
    return f"{amount:,.0f} B" if units[0] == "B" else f"{amount:,.1f} {units[0]}"


def _part(value: str) -> str:
    return quote(value, safe="")


def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(FOLDER / "templates"), autoescape=True, undefined=StrictUndefined,
        finalize=_plain, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "outsider": _outsider, "moment": _moment, "amount": _amount, "words": _words, "part": _part,
        "share": _share, "number": _number, "seconds": _seconds, "shortened": _shortened,
        "with_code": _with_code, "size": _size,
    }  # fmt: skip
    made.globals |= {
        "link": link,
        "entity": entity_name,
        "entity_link": entity_link,
        "static_digest": static_digest(),
        "most_at_once": MOST_AT_ONCE,
    }
    return made


_PAGES = _environment()
