"""Endpoints about alerts: lists with filters and counts, one alert taken apart, its like, the live feed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Header, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from schemas.counts import count_of
from schemas.errors import ConfigurationError
from streaming.inbox.cursor import Order
from streaming.inbox.filter_language import MOST_CHARACTERS
from streaming.serve.alert_details import AlertDetail, SimilarAlert
from streaming.serve.alert_lists import AlertPage, AlertRow, FilterField
from streaming.serve.calls import Call, is_still_allowed, needs
from streaming.serve.problems import RequestRefusedError
from streaming.serve.served_agent import ServedAgent

alerts_router = APIRouter(prefix="/v1/alerts", tags=["alerts"])
Reading = Annotated[Call, needs("read")]
FilterText = Annotated[
    str,
    Query(
        alias="filter",
        max_length=MOST_CHARACTERS,
        description='Such as `severity >= high and not (rule = large or customer in (c1, "c 2"))`.',
    ),
]
AlertId = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="An alert's id.")]
_DEFAULT_FACETS = ("severity", "classification", "label", "rule", "reason")
_BEAT_SECONDS = 15.0
_MOST_SENT, _MOST_FEEDS = 1_000, 100
_LARGEST = 2**63 - 1


@alerts_router.get("")
def list_alerts(
    call: Reading,
    filter_: FilterText = "",
    order: Annotated[Order, Query(description="The largest first; of equal ones the newest.")] = "newest",
    cursor: Annotated[str | None, Query(max_length=200, description="`next` of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Alerts of a page.")] = 50,
    facet: Annotated[
        list[str] | None, Query(max_length=20, description="Fields whose values are counted; five if absent.")
    ] = None,
) -> AlertPage:
    """List alerts that a filter chooses, with counts; the cursor goes on, whatever is raised meanwhile."""
    facets = _DEFAULT_FACETS if facet is None else tuple(facet)
    return call.agent.lists.page(filter_, order, cursor, limit, facets)


@alerts_router.get("/fields")
def list_fields(call: Reading) -> list[FilterField]:
    """List the fields that alerts are filtered by."""
    return call.agent.lists.fields()


@alerts_router.get(
    "/live",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
def follow_alerts(
    call: Reading,
    filter_: FilterText = "",
    after: Annotated[
        int | None,
        Query(ge=-1, le=_LARGEST, description="`outbox_seq` after which it begins; now if absent."),
    ] = None,
    last_event_id: Annotated[str | None, Header(max_length=20, description="As browsers send it.")] = None,
) -> StreamingResponse:
    """Follow alerts and revisions by server-sent events; an event's id is its `outbox_seq`.

    None is sent twice; of several revisions that came at once the newest is sent. It ends with the token.
    """
    _check_feeds(call)
    begin = _begin(call.agent, after, last_event_id)
    call.agent.lists.chosen(call.agent.inbox.view, filter_)
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_events(call, filter_, begin), 200, headers, "text/event-stream")


@alerts_router.get("/{alert_id}")
def show_alert(call: Reading, alert_id: AlertId) -> AlertDetail:
    """Show one alert: the parts of its score, what is normal, near payments, labels, pins and revisions."""
    return call.agent.details.detail(call.agent.reader(), alert_id)


@alerts_router.get("/{alert_id}/similar")
def list_similar(
    call: Reading,
    alert_id: AlertId,
    limit: Annotated[int, Query(ge=1, le=50, description="Alerts listed.")] = 10,
) -> list[SimilarAlert]:
    """List the alerts most like one: what raised them, in shares, and how large the amounts were."""
    return call.agent.details.similar(alert_id, limit)


def _begin(agent: ServedAgent, after: int | None, last_event_id: str | None) -> int:
    if last_event_id is None:
        return agent.inbox.view.next_outbox_seq - 1 if after is None else after
    if not last_event_id.isdecimal() or int(last_event_id) > _LARGEST:
        raise ConfigurationError("expected the id of an event of this feed", where="Last-Event-ID")
    return int(last_event_id)


def _check_feeds(call: Call) -> None:
    """A feed holds one of the server's connections for as long as somebody likes."""
    if call.agent.changes.feeds_of(call.principal.key) >= _MOST_FEEDS:
        said = f"this token follows {count_of(_MOST_FEEDS, 'feed')} already"
        headers = {"Retry-After": str(int(_BEAT_SECONDS))}
        raise RequestRefusedError(HTTPStatus.TOO_MANY_REQUESTS, said, headers=headers)


async def _events(call: Call, filter_: str, after: int) -> AsyncIterator[bytes]:
    with call.agent.changes.feed_of(call.principal.key):
        async for each in _parts(call, filter_, after):
            yield each


async def _parts(call: Call, filter_: str, after: int) -> AsyncIterator[bytes]:
    async for is_new in call.agent.changes.rounds(_BEAT_SECONDS):
        if not is_new:
            yield b": still here\n\n"
        # Before each part: a client takes as long for one as it likes.
        while await is_still_allowed(call, "read"):
            found = await run_in_threadpool(_newer, call.agent, filter_, after)
            if found is None:
                break
            after, events = found
            yield events
        else:
            return


def _newer(agent: ServedAgent, filter_: str, after: int) -> tuple[int, bytes] | None:
    """Return the newest revisions after a place, in their order, as far as one may send at once."""
    view = agent.inbox.view
    rows = np.flatnonzero((view.newest > after) & agent.lists.chosen(view, filter_))
    rows = rows[np.argsort(view.newest[rows])][:_MOST_SENT]
    found = [AlertRow(**each) for each in view.alerts(rows)]
    return (found[-1].outbox_seq, b"".join(map(_event, found))) if found else None


def _event(row: AlertRow) -> bytes:
    return f"event: alert\nid: {row.outbox_seq}\ndata: {row.model_dump_json()}\n\n".encode()
