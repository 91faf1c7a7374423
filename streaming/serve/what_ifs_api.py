"""Endpoints about what-ifs: stored transactions decided again under a changed spec, in the background."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import ConfigurationError, ConflictError
from schemas.loading import parse_document
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.named_files import files_of
from streaming.history.asking import RECORDED
from streaming.history.replay_evidence import note_replay
from streaming.history.replay_runs import OnProgress, ReplaySpan, run_what_if, warm_up_of
from streaming.history.what_if_found import WhatIf
from streaming.serve.calls import Call, needs
from streaming.serve.spec_differences import SpecDifference, differences
from streaming.serve.what_if_jobs import JobState, WhatIfJob, WhatIfJobs
from streaming.versions.arithmetic import with_arithmetic
from streaming.versions.registry import check_replaceable

what_ifs_router = APIRouter(prefix="/v1/what-ifs", tags=["what-ifs"])
Reading = Annotated[Call, needs("read")]
Operating = Annotated[Call, needs("operate")]
JobId = Annotated[str, Path(pattern="^[0-9a-f]{16}$", description="A what-if's id.")]
_WHERE = "changes"


class WhatIfOrder(BaseModel):
    """A changed spec, and the span to decide again: all there is, an alert, or a time."""

    model_config = ConfigDict(extra="forbid")

    changes: dict[str, Any] = Field(
        description="keys of the spec in force with their new values, such as threshold or rules; the "
        "others stay"
    )
    alert: str | None = Field(default=None, max_length=500, description="the batch that this alert is of")
    from_time: datetime | None = Field(
        default=None, description="event time, inclusive; in UTC where it names no zone"
    )
    to_time: datetime | None = Field(default=None, description="exclusive")
    warm_up: str | None = Field(
        default=None, max_length=20, description="such as 7d: profiles begin so early"
    )


class WhatIfStatus(BaseModel):
    """How far a what-if is."""

    job_id: str
    who: str
    state: JobState = Field(
        description="`outdated`: its report was dropped, as rows were erased or aged out after it began"
    )
    started: datetime
    ended: datetime | None
    order: WhatIfOrder | None = Field(description="what was asked for")
    differences: list[SpecDifference] = Field(description="what the candidate has otherwise")
    replayed: int = Field(description="transactions so far")
    rows: int = Field(description="of the whole span; 0 until that is known")
    problem: str | None = Field(description="why it failed, or why its report could not be kept")
    is_kept: bool = Field(description="the report is evidence for promotions")


@what_ifs_router.post("", status_code=HTTPStatus.ACCEPTED)
def start_what_if(call: Operating, order: WhatIfOrder) -> WhatIfStatus:
    """Begin to decide a span again under a changed spec; nobody is asked, recorded answers are used."""
    agent, before = call.agent, call.agent.in_force()
    candidate = candidate_of(before, order.changes)
    AgentDefinition.load(with_arithmetic(candidate, agent.placed), _WHERE)  # what it cannot use is said now
    begin, end = _plain(order.from_time, "from_time"), _plain(order.to_time, "to_time")
    span = ReplaySpan(alert=order.alert, from_time=begin, to_time=end)
    warm_up = warm_up_of(order.warm_up)

    def work(moved_on: OnProgress) -> WhatIf:
        return run_what_if(agent.placed, candidate, span, warm_up, RECORDED, moved_on)

    asked = {
        "order": order.model_dump(),
        "differences": differences(before, candidate),
        "in_force": before.digest,
        "rewritten_at": agent.frauds.rewritten_at(),
    }
    job = agent.what_ifs.start(call.who, work, lambda found: _kept(call, candidate, found), asked)
    call.rows = 1
    return _status(job)


@what_ifs_router.get("")
def list_what_ifs(call: Reading) -> list[WhatIfStatus]:
    """List the what-ifs that this server has begun, the newest first."""
    return [_status(each) for each in jobs_of(call).all()]


@what_ifs_router.get("/{job_id}")
def show_what_if(call: Reading, job_id: JobId) -> WhatIfStatus:
    """Show how far a what-if is."""
    return _status(jobs_of(call).one(job_id))


@what_ifs_router.post("/{job_id}/stop")
def stop_what_if(call: Operating, job_id: JobId) -> WhatIfStatus:
    """Have a what-if come to its end soon."""
    return _status(call.agent.what_ifs.stop(job_id))


@what_ifs_router.get("/{job_id}/report")
def show_report(call: Reading, job_id: JobId) -> dict[str, Any]:
    """Show what would have been otherwise; 409 until the what-if is done."""
    job = jobs_of(call).one(job_id)
    if job.report is None:
        raise ConflictError(f"this what-if has no report: it is {job.state}")
    found: dict[str, Any] = json.loads(json.dumps(job.report, default=str))
    return found


def jobs_of(call: Call) -> WhatIfJobs:
    """Return the agent's what-ifs, without reports that tell of rows which were erased since."""
    jobs, mark = call.agent.what_ifs, call.agent.frauds.rewritten_at()
    jobs.drop_before(mark)
    return jobs


def candidate_of(spec: AgentSpec, changes: Mapping[str, Any]) -> AgentSpec:
    """Return a spec with other values of some keys.

    Raises:
        ConfigurationError: it is none, changes what is fixed in a running agent, or names other files: who
            asks over the network chooses no file of this machine.
    """
    content = {**spec.model_dump(mode="json", by_alias=True), **changes}
    candidate = parse_document(content, AgentSpec, where=_WHERE)
    others = sorted(files_of(candidate) - files_of(spec))
    if others or candidate.policy != spec.policy:
        raise ConfigurationError("a what-if over HTTP names no other file and no other policy", where=_WHERE)
    check_replaceable(spec, candidate)  # only now: it reads contracts
    return candidate


def _kept(call: Call, candidate: AgentSpec, found: WhatIf) -> bool:
    return note_replay(call.agent.placed, candidate, found, call.who)


def _status(job: WhatIfJob) -> WhatIfStatus:
    asked = {"order": job.asked.get("order"), "differences": job.asked.get("differences", [])}
    names = WhatIfStatus.model_fields.keys() - asked.keys()
    return WhatIfStatus(**{name: getattr(job, name) for name in names}, **asked)


def _plain(moment: datetime | None, where: str) -> datetime | None:
    """Spans are in UTC without saying so, as times without a zone are read."""
    if moment is None or moment.tzinfo is None:
        return moment
    try:
        return moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise ConfigurationError("expected a time of the years 1 to 9999 in UTC", where=where) from None
