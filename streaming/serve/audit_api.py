"""Endpoints about an agent's audit log: its rows, and whether they are what was written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import StreamingResponse

from agent.audit.events import Doer
from streaming.audit.audit_check import check_span
from streaming.audit.audit_log import AuditPlaces
from streaming.audit.audit_reading import events_from
from streaming.serve.calls import Call, needs

audit_router = APIRouter(prefix="/v1/audit", tags=["figures"])
Reading = Annotated[Call, needs("read")]
Before = Annotated[
    int | None,
    Query(ge=0, le=2**62, description="Number before which they end; the log's end if absent."),
]
Kind = Annotated[str | None, Query(max_length=40, description="Such as model_call; every kind if absent.")]
Who = Annotated[
    str | None, Query(max_length=100, description="Who did it, such as token:anna; anybody if absent.")
]
By = Annotated[
    Doer | None,
    Query(description="What `people` have done, or what the `agent` has by itself; both if absent."),
]
_LINES = "application/x-ndjson"


class AuditFault(BaseModel):
    """What is wrong at a row."""

    number: int
    problem: str = Field(description="such as edited, moved, missing, doubled, forked, unlinked or cut")
    detail: str


class AuditSpan(BaseModel):
    """A part of the log, checked against its hash chain."""

    sound: bool
    rows: int = Field(description="checked")
    first: int
    last: int = Field(description="number of the last row that the chain reaches, -1 for none")
    anchored: int | None = Field(description="number of the row that the anchor names; null without one")
    findings: list[AuditFault]


@audit_router.get(
    "",
    response_class=StreamingResponse,
    responses={200: {"content": {_LINES: {"schema": {"type": "string"}}}}},
)
def list_audit(
    call: Reading,
    after: Annotated[
        int | None,
        Query(ge=-1, le=2**62, description="Number after which rows are listed; the newest if absent."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100_000, description="Rows listed at most.")] = 1_000,
    kind: Kind = None,
    before: Before = None,
    who: Who = None,
    by: By = None,
) -> StreamingResponse:
    """List rows of the audit log, in order, one JSON object per line, with the hashes that chain them."""
    rows = audit_rows_of(call, after, limit, kind, before, who, by)
    return StreamingResponse(_lines(rows), media_type=_LINES)


@audit_router.get("/check")
def check_audit_span(
    call: Reading,
    before: Before = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Rows checked at most, the last ones.")] = 1_000,
) -> AuditSpan:
    """Check the newest rows, or those before one: that each has its hash and follows the row before it."""
    return AuditSpan.model_validate(check_span(AuditPlaces(call.agent.placed), before, limit).facts())


def audit_rows_of(
    call: Call,
    after: int | None,
    limit: int,
    kind: str | None,
    before: int | None,
    who: str | None,
    by: Doer | None,
) -> list[dict[str, Any]]:
    """Return rows of the audit log in order; see streaming.audit.audit_reading.events_from."""
    places = AuditPlaces(call.agent.placed)
    return events_from(places, after, limit, kind, before=before, who=who, by=by)


def _lines(rows: list[dict[str, Any]]) -> Iterator[bytes]:
    for row in rows:
        yield orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
