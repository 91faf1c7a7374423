"""What clients send to have something done to cases, and the order of the case book that each comes to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from schemas.cases import CloseReason, MassAction
from schemas.rules import Severity
from streaming.cases.actions import MOST_TEXT
from streaming.cases.choosing import NOBODY, CaseFilter, filter_of
from streaming.cases.folding import Status
from streaming.cases.orders import Order

CASE_ID = "^[0-9a-f]{16}$"
MOST_AT_ONCE = 10_000
MOST_WORD = 600
MOST_LEVEL = 10_000
CaseKind = Literal["entity", "rule", "incident", "alert"]
CaseRef = Annotated[str, Field(pattern=CASE_ID)]
Said = Annotated[str, Field(max_length=MOST_TEXT, description="what you say about it")]
Holder = Annotated[
    str | None, Field(max_length=MOST_WORD, description="such as token:bert; nobody if absent")
]
FraudKind = Annotated[
    str | None, Field(min_length=1, max_length=200, description="kind of fraud, for the labels")
]


class _Sent(BaseModel):
    model_config = ConfigDict(extra="forbid")


class CaseChoice(_Sent):
    """Which cases are meant; what is not given restricts nothing."""

    status: list[Status] | None = Field(
        default=None, max_length=4, description="open and closing if absent, any where `cases` are named"
    )
    severity: list[Severity] | None = Field(default=None, max_length=4)
    assignee: str | None = Field(
        default=None, max_length=MOST_WORD, description=f"who has them; {NOBODY} for nobody"
    )
    kind: CaseKind | None = Field(default=None, description="what they are grouped by")
    entity: str | None = Field(default=None, max_length=MOST_WORD, description="such as customer=c42")
    rule: str | None = Field(default=None, max_length=MOST_WORD)
    overdue: bool | None = Field(default=None, description="whether their deadline is over")
    level: int | None = Field(default=None, ge=0, le=MOST_LEVEL, description="how often escalated")
    cases: list[CaseRef] | None = Field(default=None, max_length=MOST_AT_ONCE, description="their ids")

    def wanted(self) -> CaseFilter:
        """Return it as the case book has it.

        Raises:
            ConfigurationError: the entity is not given as name=id.
        """
        return filter_of(
            self.status, self.severity, self.assignee, self.kind, self.entity, self.rule,
            overdue=self.overdue, cases=self.cases, level=self.level,
        )  # fmt: skip


class Remark(_Sent):
    """Why something is done."""

    text: Said = ""


class CommentOrder(_Sent):
    """What is said about a case."""

    text: Said = Field(min_length=1)


class AssignOrder(_Sent):
    """Who gets a case for good."""

    to: Holder = None
    text: Said = ""


class CloseOrder(_Sent):
    """How a case ends."""

    reason: CloseReason
    kind: FraudKind = None
    text: Said = ""


class MergeOrder(_Sent):
    """Which case another becomes part of."""

    into: CaseRef


class MassOrder(_Sent):
    """What is to be done to many cases, in one commit."""

    do: MassAction
    where: CaseChoice = Field(description="which cases")
    to: Holder = None
    reason: CloseReason = Field(default="other", description="for `close`")
    kind: FraudKind = None
    text: Said = ""
    dry_run: bool = Field(default=False, description="only say how many it would change")
    expect: int | None = Field(
        default=None, ge=0, le=MOST_AT_ONCE,
        description="how many cases are to be changed, as a dry run said; needed where it is none",
    )  # fmt: skip

    def order(self) -> Order:
        """Return it as the case book has it."""
        return Order(self.do, text=self.text, assignee=self.to, reason=self.reason, kind=self.kind)
