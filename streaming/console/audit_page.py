"""The audit log, the newest row first: who did what to which data, how it ended, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from agent.audit.events import EVENT_KINDS, Doer
from schemas.errors import ConfigurationError, FlagstreamError
from streaming.console.rendering import PageRoute, link, page
from streaming.serve.audit_api import AuditSpan, audit_rows_of, check_audit_span
from streaming.serve.calls import Call, needs
from streaming.serve.problems import words_of

audit_page_router = APIRouter(prefix="/console/audit", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
_AUDIT = "/console/audit"
_ROWS, _CHECKED, _MOST_SHOWN = 100, 1_000, 5
_WHO, _MODEL = ("who", "actor"), ("model",)  # of a version, who asked goes before the process
_WHAT = ("command", "action", "change", "tool", "decision", "stage", "prompt")
_DOERS: Mapping[str, Doer] = {each: each for each in get_args(Doer)}
_DATA, _OUTCOME = ("tables", "table"), ("outcome", "status", "level")


@dataclass(frozen=True)
class AuditEntry:
    """One row as people read it: what its detail says under the names that matter, and the rest."""

    row: Mapping[str, Any]
    who: str
    what: str
    model: str
    data: str
    outcome: str
    rest: Mapping[str, str]


@audit_page_router.get("", response_class=HTMLResponse)
def show_audit_page(
    request: Request,
    call: Reading,
    kind: Annotated[str, Query(max_length=40)] = "",
    who: Annotated[str, Query(max_length=100)] = "",
    by: Annotated[Literal["people", "agent", "all"] | None, Query()] = None,
    before: Annotated[int | None, Query(ge=0, le=2**62)] = None,
) -> Response:
    """Show the rows before one, or the newest, and whether they are what was written.

    A batch leaves a row every few seconds: unless more is asked for, what people have done is shown.
    """
    by = by or ("all" if kind or who.strip() else "people")
    given = {"kind": kind, "who": who.strip(), "by": by}
    rows, said = _rows(call, given, before)
    span, why = _checked(call, before)
    more = len(rows) > _ROWS
    rows = rows[-_ROWS:]
    older = link(call, _AUDIT, {**given, "before": rows[0]["number"]}) if more else None
    return page(
        request, "audit.html", HTTPStatus.BAD_REQUEST if said else HTTPStatus.OK, call=call, given=given,
        entries=[entry_of(each) for each in reversed(rows)], said=said, kinds=EVENT_KINDS, span=span,
        unchecked=why, before=before, older=older, most_checked=_CHECKED,
        lines=link(call, "/v1/audit", {**given, "by": _DOERS.get(by), "before": before, "limit": 1_000}),
    )  # fmt: skip


def entry_of(row: Mapping[str, Any]) -> AuditEntry:
    """Return a row as people read it."""
    rest = {name: value for name, value in row["detail"].items() if value is not None}
    who, what, model, data, outcome = (_first(rest, each) for each in (_WHO, _WHAT, _MODEL, _DATA, _OUTCOME))
    if data == "-" and {"first_sequence", "next_sequence"} <= rest.keys():
        first, last = rest.pop("first_sequence"), rest.pop("next_sequence") - 1
        data = f"rows {first} to {last}" if last >= first else "no rows"
    return AuditEntry(
        row, who, what, model, data, outcome, {name: _text(each) for name, each in rest.items()}
    )


def _first(detail: dict[str, Any], names: tuple[str, ...]) -> str:
    """Take the first of some names out of a detail."""
    found = next((name for name in names if name in detail), None)
    return "-" if found is None else _text(detail.pop(found))


def _text(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    some, more = value[:_MOST_SHOWN], len(value) - _MOST_SHOWN
    return ", ".join(map(str, some)) + (f" and {more:,} more" if more > 0 else "")


def _rows(call: Call, given: Mapping[str, str], before: int | None) -> tuple[list[dict[str, Any]], str]:
    """Return one row more than a page has, in order; where what was asked cannot be used, none, and why."""
    try:
        kind, who, by = (given[name] or None for name in ("kind", "who", "by"))
        return audit_rows_of(call, None, _ROWS + 1, kind, before, who, _DOERS.get(by or "")), ""
    except ConfigurationError as fault:
        return [], words_of(fault)


def _checked(call: Call, before: int | None) -> tuple[AuditSpan | None, str]:
    """Whoever may read the rows reads them, though the key or the anchor are not here."""
    try:
        return check_audit_span(call, before, _CHECKED), ""
    except FlagstreamError as fault:
        return None, str(fault)
