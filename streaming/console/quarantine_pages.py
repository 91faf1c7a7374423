"""The quarantine: records that wait with counts at the left, one of them at the right, and requests."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from schemas.errors import ConfigurationError, NotFoundError
from streaming.console.queue_pages import Choice
from streaming.console.record_bytes import shown_bytes
from streaming.console.rendering import PageRoute, link, page
from streaming.serve.calls import Call, needs
from streaming.serve.quarantine_api import (
    Offset,
    Partition,
    WaitingPage,
    list_waiting,
    requests_of,
    show_record,
)

record_router = APIRouter(prefix="/console/quarantine", route_class=PageRoute, include_in_schema=False)
Reading = Annotated[Call, needs("read")]
Word = Annotated[str, Query(max_length=400)]
QUARANTINE = "/console/quarantine"
_PLACE = re.compile("(.+)/([0-9]{1,9})/([0-9]{1,18})")
_ROWS, _NEWEST_REQUESTS, _MOST_REQUESTS = 50, 5, 200
_SHOWN = "milliseconds"  # more figures a form leaves out
_TIMES = ("since", "until")


@record_router.get("", response_class=HTMLResponse)
def show_quarantine(
    request: Request,
    call: Reading,
    reason: Word = "",
    topic: Word = "",
    since: Word = "",
    until: Word = "",
    after: Annotated[str | None, Query(max_length=400)] = None,
    selected: Word = "",
) -> Response:
    """Show the records that wait, those that came last first."""
    given = {"reason": reason, "topic": topic, "since": since.strip(), "until": until.strip()}
    found, said = _waiting(call, given, after)
    return page(
        request, "quarantine.html", HTTPStatus.BAD_REQUEST if said else HTTPStatus.OK, call=call, given=given,
        found=found, said=said, facets=_choices(call, given, found), selected=selected, after=after,
        following=_next(call, given, found), order=_order(given),
        requests=requests_of(call, _NEWEST_REQUESTS), times={name: _field(given[name]) for name in _TIMES},
        **_selected_facts(call, selected),
    )  # fmt: skip


@record_router.get("/requests", response_class=HTMLResponse)
def show_requests(request: Request, call: Reading) -> Response:
    """Show the requests to take records in, the newest first."""
    return page(request, "requests.html", call=call, requests=requests_of(call, _MOST_REQUESTS))


@record_router.get("/records/{topic}/{partition}/{offset}", response_class=HTMLResponse)
def show_record_page(
    request: Request, call: Reading, topic: str, partition: Partition, offset: Offset
) -> Response:
    """Show one record with its bytes and every rejection."""
    return page(request, "record.html", call=call, **record_facts(call, topic, partition, offset))


def record_facts(call: Call, topic: str, partition: int, offset: int) -> dict[str, Any]:
    """Return what the template of a record shows, as the API has it.

    Raises:
        NotFoundError: nothing of this place was rejected.
    """
    found = show_record(call, topic, partition, offset)
    headers = [(each["key"], shown_bytes(_bytes(each["value"]))) for each in found["headers"]]
    own = {"topic": topic, "partition": partition, "from_offset": offset, "to_offset": offset}
    return {
        "record": found,
        "record_place": f"{topic}/{partition}/{offset}",
        "record_path": f"{QUARANTINE}/records/{quote(topic, safe='')}/{partition}/{offset}",
        "parts": [("Value", shown_bytes(_bytes(found["value"]))), ("Key", shown_bytes(_bytes(found["key"])))],
        "headers": headers,
        "record_order": json.dumps(own),
    }


def _selected_facts(call: Call, selected: str) -> dict[str, Any]:
    """What is chosen may have been erased: the list is shown all the same."""
    place = _PLACE.fullmatch(selected)
    if place is None:
        return {"record": None}
    try:
        return record_facts(call, place[1], int(place[2]), int(place[3]))
    except NotFoundError:
        return {"record": None}


def _waiting(call: Call, given: Mapping[str, str], after: str | None) -> tuple[WaitingPage, str]:
    """Return a page as the API lists it; where what was asked cannot be used, none, and why."""
    try:
        since, until = (_moment(given[name], name) for name in _TIMES)
        reasons = [given["reason"]] if given["reason"] else None
        return list_waiting(call, reasons, given["topic"] or None, since, until, _ROWS, after), ""
    except ConfigurationError as fault:
        return WaitingPage(total=0, by_reason={}, by_topic={}, records=[], next=None), str(fault)


def _moment(text: str, where: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError("expected a time such as 2026-05-01T10:00, in UTC", where=where) from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _field(text: str) -> str:
    """Return a time as the form has it, in UTC: fields of forms know no time zone."""
    try:
        found = _moment(text, "")
        return "" if found is None else found.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=_SHOWN)
    except (ConfigurationError, OverflowError):
        return ""


def _choices(call: Call, given: Mapping[str, str], found: WaitingPage) -> dict[str, list[Choice]]:
    shown = {}
    for name, counts in (("reason", found.by_reason), ("topic", found.by_topic)):
        known: dict[str, int | None] = {**({given[name]: 0} if given[name] else {}), **counts}
        shown[name] = [
            Choice(
                value, count, link(call, QUARANTINE, {**given, name: None if is_chosen else value}), is_chosen
            )
            for value, count in known.items()
            for is_chosen in [given[name] == value]
        ]
    return shown


def _order(given: Mapping[str, str]) -> str:
    """Return what the API is asked to take in: all that the list chooses, on every page of it."""
    try:
        times = {name: _moment(given[name], name) for name in _TIMES}
    except ConfigurationError:
        return ""
    order = {
        "reasons": [given["reason"]] if given["reason"] else [], "topic": given["topic"] or None,
        **{name: None if each is None else each.isoformat() for name, each in times.items()},
    }  # fmt: skip
    return json.dumps({**order, "everything": not any(given.values())})


def _next(call: Call, given: Mapping[str, str], found: WaitingPage) -> str | None:
    return None if found.next is None else link(call, QUARANTINE, {**given, "after": found.next})


def _bytes(content: str | None) -> bytes | None:
    return None if content is None else base64.b64decode(content)
