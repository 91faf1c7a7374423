"""Endpoints about cases: lists, one case with its history, and all that people do to cases.

What is done to a case as somebody has seen it names that version: `If-Match` with the ETag of the case. Who
does it is whoever the token names, never what a client writes.
"""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import Response

from schemas.errors import ConfigurationError
from schemas.rules import Severity
from streaming.cases.book import CasePage
from streaming.cases.case_writer import MassUpdate
from streaming.cases.choosing import CaseFilter, CaseState, filter_of
from streaming.cases.folding import Status
from streaming.cases.orders import Order
from streaming.serve.calls import Call, needs
from streaming.serve.case_orders import (
    CASE_ID,
    MOST_LEVEL,
    MOST_WORD,
    AssignOrder,
    CaseChoice,
    CaseKind,
    CloseOrder,
    CommentOrder,
    MassOrder,
    MergeOrder,
    Remark,
)
from streaming.serve.problems import RequestRefusedError, documented

cases_router = APIRouter(prefix="/v1/cases", tags=["cases"])
Reading = Annotated[Call, needs("read")]
Writing = Annotated[Call, needs("triage")]
CaseId = Annotated[str, Path(pattern=CASE_ID, description="A case's id.")]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        pattern='^"[0-9]{1,18}"$',
        description="The ETag of the case as you have seen it.",
    ),
]
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_TAGGED: dict[int | str, dict[str, Any]] = {
    200: {"headers": {"ETag": {"description": "The case's version.", "schema": {"type": "string"}}}}
}
_SEEN = {**_TAGGED, **documented(HTTPStatus.PRECONDITION_FAILED, HTTPStatus.PRECONDITION_REQUIRED)}
_SENT: dict[str, Any] = {"requestBody": {"required": True, "content": _BYTES}}


class CaseAlert(BaseModel):
    """An alert of a case, at its newest revision."""

    alert_id: str
    transaction_id: str
    outbox_seq: int
    revision: int
    severity: str | None
    classification: str | None
    rules: list[str] | None
    amount: float | None
    currency: str | None
    event_time: datetime | None
    alerted_at: datetime | None = Field(description="when its first revision was raised")


class CaseDetail(BaseModel):
    """A case, its newest alerts and its history."""

    case: CaseState
    alerts: list[CaseAlert] = Field(description="the newest first; `case.alerts` says how many there are")
    timeline: list[dict[str, Any]] = Field(
        description="what has happened to it and to cases merged into it, oldest first"
    )


def chosen_cases(
    status: Annotated[
        list[Status] | None, Query(max_length=4, description="Open and closing if absent.")
    ] = None,
    severity: Annotated[list[Severity] | None, Query(max_length=4, description="All if absent.")] = None,
    assignee: Annotated[
        str | None, Query(max_length=MOST_WORD, description="Who has them; - for nobody.")
    ] = None,
    kind: Annotated[CaseKind | None, Query(description="What they are grouped by.")] = None,
    entity: Annotated[str | None, Query(max_length=MOST_WORD, description="Such as customer=c42.")] = None,
    rule: Annotated[str | None, Query(max_length=MOST_WORD, description="That they are about.")] = None,
    *,
    overdue: Annotated[bool | None, Query(description="Whether their deadline is over.")] = None,
    level: Annotated[int | None, Query(ge=0, le=MOST_LEVEL, description="How often escalated.")] = None,
) -> CaseFilter:
    """Return which cases a query chooses.

    Raises:
        ConfigurationError: the entity is not given as name=id.
    """
    return filter_of(status, severity, assignee, kind, entity, rule, overdue=overdue, level=level)


def seen_version(if_match: IfMatch = None) -> int:
    """Return the version that a client has seen.

    Raises:
        RequestRefusedError: 428, it does not say.
    """
    if if_match is None:
        said = "say which version of the case you have seen: If-Match with its ETag"
        raise RequestRefusedError(HTTPStatus.PRECONDITION_REQUIRED, said)
    return int(if_match.strip('"'))


async def sent_bytes(request: Request) -> bytes:
    """Return what was sent, whatever its type says."""
    return await request.body()


Seen = Annotated[int, Depends(seen_version)]


@cases_router.get("")
def list_cases(
    call: Reading,
    wanted: Annotated[CaseFilter, Depends(chosen_cases)],
    limit: Annotated[int, Query(ge=1, le=500, description="Cases of a page.")] = 50,
    after: Annotated[
        str | None, Query(max_length=200, description="`after` of the page before, of the same filter.")
    ] = None,
) -> CasePage:
    """List the cases that are meant, the most urgent first, with counts of all of them."""
    return call.agent.cases.shown().page(wanted, limit, after)


@cases_router.post("/claim-next", responses=_TAGGED)
def claim_next_case(call: Writing, response: Response, where: CaseChoice | None = None) -> CaseState | None:
    """Take the most urgent case that nobody has, for a lease; null where there is none."""
    wanted = (where or CaseChoice()).wanted()
    taken = call.agent.cases.grouped().claim_next(call.who, wanted, call.write_key)
    if taken is None:
        return None
    return _changed(call, taken.case_id, taken, response)


@cases_router.post("/mass")
def update_cases(call: Writing, order: MassOrder) -> MassUpdate:
    """Do something to many cases in one commit; those that it cannot be done to stay, and it says why."""
    if order.expect is None and not order.dry_run:
        raise ConfigurationError("say how many are to be changed, as dry_run says it", where="expect")
    done = call.agent.cases.grouped().mass(
        order.where.wanted(), order.order(), call.who,
        dry_run=order.dry_run, expected=order.expect, key=call.write_key,
    )  # fmt: skip
    call.cases = done.cases
    if done.cases:
        call.noted |= {"action": order.do, **({"reason": order.reason} if order.do == "close" else {})}
    return done


@cases_router.get("/{case_id}", responses=_TAGGED)
def show_case(
    call: Reading,
    case_id: CaseId,
    response: Response,
    limit: Annotated[int, Query(ge=0, le=1_000, description="Alerts listed, the newest first.")] = 100,
) -> CaseDetail:
    """Show a case with its newest alerts and its history; its ETag is what `If-Match` takes."""
    book = call.agent.cases.shown()
    # First: what is shown beside may be newer than the version, and never older.
    case = _tagged(book.case(case_id), response)
    alerts = book.alerts_of(case_id).tail(limit).reverse().select(list(CaseAlert.model_fields))
    return CaseDetail(
        case=case, alerts=[CaseAlert(**row) for row in alerts.to_dicts()], timeline=book.timeline(case_id)
    )


@cases_router.get(
    "/{case_id}/attachments/{digest}", response_class=Response, responses={200: {"content": _BYTES}}
)
def show_attachment(
    call: Reading,
    case_id: CaseId,
    digest: Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file.")],
) -> Response:
    """Return a file that is kept with a case, as it was sent."""
    content = call.agent.cases.shown().attachment(case_id, digest)
    headers = {"Content-Disposition": "attachment"}
    return Response(content, headers=headers, media_type="application/octet-stream")


@cases_router.post("/{case_id}/claim", responses=_TAGGED)
def claim_case(call: Writing, case_id: CaseId, response: Response) -> CaseState:
    """Take a case for a lease, or keep it for another; 409 where somebody else has it."""
    return _done(call, case_id, Order("claim"), None, response)


@cases_router.post("/{case_id}/release", responses=_TAGGED)
def release_case(call: Writing, case_id: CaseId, response: Response) -> CaseState:
    """Give a case back."""
    return _done(call, case_id, Order("release"), None, response)


@cases_router.post("/{case_id}/comment", responses=_TAGGED)
def comment_on_case(call: Writing, case_id: CaseId, order: CommentOrder, response: Response) -> CaseState:
    """Say something about a case, whatever has become of it."""
    return _done(call, case_id, Order("comment", text=order.text), None, response)


@cases_router.post("/{case_id}/attach", responses=_TAGGED, openapi_extra=_SENT)
def attach_to_case(
    call: Writing,
    case_id: CaseId,
    content: Annotated[bytes, Depends(sent_bytes)],
    name: Annotated[str, Query(min_length=1, max_length=255, description="The file's name.")],
    response: Response,
) -> CaseState:
    """Keep a file with a case: the body as it is, of at most 1 MiB."""
    return _done(call, case_id, Order("attach", name=name, content=content), None, response)


@cases_router.post("/{case_id}/assign", responses=_SEEN)
def assign_case(
    call: Writing, case_id: CaseId, seen: Seen, order: AssignOrder, response: Response
) -> CaseState:
    """Give a case to somebody for good, or to nobody."""
    return _done(call, case_id, Order("assign", text=order.text, assignee=order.to), seen, response)


@cases_router.post("/{case_id}/escalate", responses=_SEEN)
def escalate_case(call: Writing, case_id: CaseId, seen: Seen, order: Remark, response: Response) -> CaseState:
    """Raise the level of a case."""
    return _done(call, case_id, Order("escalate", text=order.text), seen, response)


@cases_router.post("/{case_id}/close", responses=_SEEN)
def close_case(
    call: Writing, case_id: CaseId, seen: Seen, order: CloseOrder, response: Response
) -> CaseState:
    """Close a case; where that takes two people, the first call asks for it and another person's closes it.

    As fraud or genuine, its transactions are labelled so. 409 where the second person is the first.
    """
    given = Order("close", text=order.text, reason=order.reason, kind=order.kind)
    call.noted["reason"] = order.reason
    return _done(call, case_id, given, seen, response)


@cases_router.post("/{case_id}/reopen", responses=_SEEN)
def reopen_case(call: Writing, case_id: CaseId, seen: Seen, order: Remark, response: Response) -> CaseState:
    """Open a case again, or refuse to have it closed."""
    return _done(call, case_id, Order("reopen", text=order.text), seen, response)


@cases_router.post("/{case_id}/merge", responses=_SEEN)
def merge_case(
    call: Writing, case_id: CaseId, seen: Seen, order: MergeOrder, response: Response
) -> CaseState:
    """Make a case part of another: its alerts, and those to come, belong to that one."""
    return _done(call, case_id, Order("merge", into=order.into), seen, response)


@cases_router.post("/{case_id}/undo", responses=_SEEN)
def undo_on_case(call: Writing, case_id: CaseId, seen: Seen, response: Response) -> CaseState:
    """Take back what was done last to a case, on all cases that it was done to at once."""
    done = call.agent.cases.grouped().undo(case_id, call.who, seen, call.write_key)
    call.cases = done.cases
    return _tagged(done.case, response)


def _done(call: Call, case_id: str, order: Order, seen: int | None, response: Response) -> CaseState:
    case = call.agent.cases.grouped().act(case_id, order, call.who, seen, call.write_key)
    if order.into:
        call.noted["into"] = f"case-{order.into}"
    return _changed(call, case_id, case, response)


def _changed(call: Call, case_id: str, case: CaseState, response: Response) -> CaseState:
    """Have the audit log name what was done to which case, and the client how that is now."""
    call.cases = [case_id]
    return _tagged(case, response)


def _tagged(case: CaseState, response: Response) -> CaseState:
    response.headers["ETag"] = f'"{case.version}"'
    return case
