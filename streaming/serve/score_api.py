"""The endpoint that scores one event without changing anything; `serve --score` switches it on."""

from __future__ import annotations

import math
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from schemas.errors import NotFoundError
from streaming.serve.calls import Call, needs
from streaming.serve.follower import EventScore

score_router = APIRouter(prefix="/v1/score", tags=["score"])
_CAUGHT_UP = 1e-9


class ScoreOrder(BaseModel):
    """An event, as the agent's contract has it on the topic."""

    model_config = ConfigDict(extra="forbid")

    event: dict[str, Any] = Field(description="`flagstream spec event-schema` prints its JSON Schema")


class Contribution(BaseModel):
    """A part of a score."""

    name: str
    contribution: float = Field(description="in log-odds")
    text: str


class ScoreOfEvent(BaseModel):
    """What the agent would say of an event that came now; nothing was stored."""

    sequence: int = Field(description="of the row that it would be: everything before it is known")
    age_seconds: float = Field(description="since the newest batch was closed")
    spec_version: str = Field(description="that decided the newest batch")
    score: float
    threshold: float
    flagged: bool = Field(description="whether an alert would be raised, by score or by a rule")
    log_odds: float
    base: float
    adds_up: bool = Field(description="whether base and contributions give the log-odds within 1e-9")
    contributions: list[Contribution] = Field(description="the largest first")
    rules: list[str] = Field(description="that would be hit")
    severity: str | None
    classification: str | None = Field(description="by rules; no model is asked")


@score_router.post("")
def score_event(call: Annotated[Call, needs("read")], order: ScoreOrder) -> ScoreOfEvent:
    """Score one event without changing anything: its contributions, and the rules that it would hit."""
    if call.agent.follower is None:
        raise NotFoundError("this server scores nothing: start it with `flagstream serve --score`")
    return _answer(call.agent.follower.score(order.event))


def _answer(found: EventScore) -> ScoreOfEvent:
    alert = found.alert or {}
    parts = [Contribution(**each._asdict()) for each in found.reasons]
    whole = found.base + math.fsum(each.contribution for each in parts)
    return ScoreOfEvent(
        sequence=found.sequence,
        age_seconds=found.age.total_seconds(),
        spec_version=found.spec_version,
        score=found.score,
        threshold=found.threshold,
        flagged=found.alert is not None,
        log_odds=found.log_odds,
        base=found.base,
        adds_up=abs(whole - found.log_odds) <= _CAUGHT_UP,
        contributions=parts,
        rules=list(alert.get("rules", ())),
        severity=alert.get("severity"),
        classification=alert.get("classification"),
    )
