"""Endpoints about records that were rejected: what waits, one of them, and requests to take them in."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.errors import ConfigurationError
from streaming.batch.queries import REQUEUE
from streaming.quarantine.choosing import RecordFilter, wanted
from streaming.quarantine.inspection import Quarantine, record_document
from streaming.quarantine.paging import WaitingCursor, page_of
from streaming.quarantine.waiting import counts_by
from streaming.serve.calls import Call, needs
from streaming.versions.registry import Author

quarantine_router = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])
Reading = Annotated[Call, needs("read")]
Offset = Annotated[int, Path(ge=0, le=2**63 - 1, description="On its topic.")]
Partition = Annotated[int, Path(ge=0, le=2**31 - 1, description="Partition of the topic.")]
_MOST_OFFSET = 2**62


class WaitingRecord(BaseModel):
    """A record that waits in the quarantine, by its newest rejection."""

    topic: str
    partition: int
    offset: int
    arrived: datetime | None
    rejected: datetime | None
    reason: str
    detail: str | None
    times: int = Field(description="how often it was rejected")
    bytes: int


class WaitingPage(BaseModel):
    """Records that wait, those that came last first."""

    total: int
    by_reason: dict[str, int]
    by_topic: dict[str, int]
    records: list[WaitingRecord]
    next: str | None = Field(description="`after` of the next page; null where there is none")


class RequeueOrder(BaseModel):
    """Which records are to be taken in, as if they arrived when the agent does so."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(max_length=200, description="in a line of plain words, for the audit log")
    reasons: list[str] = Field(default=[], max_length=50, description="codes of the newest rejection")
    topic: str | None = Field(default=None, max_length=300)
    partition: int | None = Field(default=None, ge=0, le=2**31 - 1)
    from_offset: int | None = Field(default=None, ge=0, le=_MOST_OFFSET, description="inclusive")
    to_offset: int | None = Field(default=None, ge=0, le=_MOST_OFFSET, description="inclusive")
    since: AwareDatetime | None = Field(default=None, description="broker time, inclusive")
    until: AwareDatetime | None = Field(default=None, description="exclusive")
    everything: bool = Field(default=False, description="where nothing else is said: every record that waits")
    expect: int | None = Field(
        default=None,
        ge=0,
        le=_MOST_OFFSET,
        description="`records` of a dry run; 409 where it is another number by now",
    )
    dry_run: bool = Field(default=False, description="only say what would become of them")


@quarantine_router.get("")
def list_waiting(
    call: Reading,
    reason: Annotated[
        list[str] | None, Query(max_length=50, description="Code of the newest rejection; any if absent.")
    ] = None,
    topic: Annotated[str | None, Query(max_length=300, description="Topic; any if absent.")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Broker time, inclusive.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Exclusive.")] = None,
    limit: Annotated[int, Query(ge=0, le=1_000, description="Records of a page.")] = 100,
    after: Annotated[str | None, Query(max_length=400, description="`next` of the page before.")] = None,
) -> WaitingPage:
    """List the records that wait, those that came last first, and how many there are by reason and topic."""
    quarantine, cursor = _quarantine(call), None if after is None else WaitingCursor.parse(after)
    meant = wanted(reason, topic, None, (None, None), (since, until))
    found = meant.among(call.agent.quarantined.in_page_order())
    rows, following = page_of(found, cursor, limit)
    names = list(WaitingRecord.model_fields)
    records = [WaitingRecord(**row) for row in quarantine.with_sizes(rows).select(names).to_dicts()]
    return WaitingPage(
        total=found.height, by_reason=counts_by(found, "reason"), by_topic=counts_by(found, "topic"),
        records=records, next=following,
    )  # fmt: skip


@quarantine_router.get("/requests")
def list_requests(call: Reading) -> list[dict[str, Any]]:
    """List the requests to take records in, the newest first, and what became of the records."""
    return requests_of(call)


def requests_of(call: Call, most: int | None = None) -> list[dict[str, Any]]:
    """Return the newest requests; see streaming.quarantine.inspection.Quarantine.requests."""
    return _quarantine(call).requests(most)


@quarantine_router.get("/records/{topic}/{partition}/{offset}")
def show_record(
    call: Reading,
    topic: Annotated[str, Path(max_length=300, description="Topic that it came from.")],
    partition: Partition,
    offset: Offset,
) -> dict[str, Any]:
    """Show one record with every rejection; its bytes are in base64."""
    return record_document(_quarantine(call).record(f"{topic}/{partition}/{offset}"))


@quarantine_router.post("/requeue")
def requeue_records(call: Annotated[Call, needs("operate")], order: RequeueOrder) -> dict[str, Any]:
    """Ask the agent to take records in; it does so between two batches, or when it is next started."""
    meant = wanted(
        order.reasons, order.topic, order.partition, (order.from_offset, order.to_offset),
        (order.since, order.until),
    )  # fmt: skip
    if meant == RecordFilter() and not order.everything:
        raise ConfigurationError("say which records are meant, such as reasons, or everything", where="body")
    found = _quarantine(call).requeue(
        meant, None, Author(call.who, order.why), dry_run=order.dry_run, expect=order.expect
    )
    if order.dry_run:
        call.command += "-dry-run"
    elif found["request"] is not None:
        call.noted = {"query_id": f"{REQUEUE}{found['request']}", "why": order.why}
    call.rows = 0 if found["request"] is None else found["records"] - found["stored_already"]
    return found


def _quarantine(call: Call) -> Quarantine:
    return Quarantine(call.agent.placed)
