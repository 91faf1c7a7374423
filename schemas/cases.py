"""How alerts become cases, and by when somebody must have decided one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from schemas.loading import Document, Duration
from schemas.rules import Severity

CloseReason = Literal["fraud", "genuine", "other"]
MassAction = Literal["assign", "close", "escalate", "reopen", "release"]  # what is done to many at once
# What routes may ask for: a closed case by its reason.
CaseChange = Literal[
    "opened", "escalated", "close_asked", "closed_fraud", "closed_genuine", "closed_other", "reopened"
]
CLOSE_REASONS: tuple[CloseReason, ...] = get_args(CloseReason)
Span = Annotated[Duration, Field(gt=timedelta(0))]


class CaseDeadlines(Document):
    """By when a case must be closed, by its severity, counted from its first alert, or its last reopening."""

    critical: Span | None = timedelta(hours=1)
    high: Span | None = timedelta(hours=4)
    medium: Span | None = timedelta(hours=24)
    low: Span | None = timedelta(hours=72)

    @property
    def by_severity(self) -> Mapping[Severity, timedelta | None]:
        """Severity → the time there is, None for no deadline."""
        return {"critical": self.critical, "high": self.high, "medium": self.medium, "low": self.low}


class IncidentNorm(Document):
    """When a rule's alerts are one incident: they exceed `factor` times its norm within an hour.

    The norm is the median number of its alerts per hour over the `past` before that hour, by event time, but
    never less than `least`.
    """

    factor: float = Field(default=5, gt=1)
    past: Span = Field(default=timedelta(days=7), ge=timedelta(hours=1), le=timedelta(days=60))
    least: int = Field(default=10, ge=1, description="alerts per hour")


class CaseSettings(Document):
    """How the desk groups alerts into cases, and how cases are worked on; decides nothing of the agent.

    Alerts of the same `entity` are one case, as long as each comes at most `window` of event time after the
    newest of the alerts before it. Those of a rule in `rules` are one case of that rule instead, whoever they
    are about. Who claims a case has it for `lease`.
    """

    entity: str | None = Field(
        default=None, description="of the contract; not given, the one that events are keyed by"
    )
    rules: tuple[str, ...] = Field(default=(), description="names of rules whose alerts are one case")
    window: Span = timedelta(days=7)
    lease: Span = timedelta(minutes=15)
    second_person: tuple[CloseReason, ...] = Field(
        default=(), description="a case is closed as one of these by two people"
    )
    deadlines: CaseDeadlines = CaseDeadlines()
    incidents: IncidentNorm = IncidentNorm()

    @field_validator("rules", "second_person")
    @classmethod
    def _named_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value):
            raise ValueError("one is named twice")
        return value
