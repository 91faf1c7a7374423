"""Endpoints about labels: what is known of a transaction, and what people have found out."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import pyarrow as pa
from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.errors import ConfigurationError
from schemas.label import GIVEN
from streaming.labels.book import LabelBook, label_status
from streaming.labels.recorded import Recorded
from streaming.serve.calls import Call, needs
from streaming.serve.labels_found import LabelOfTransaction
from streaming.tokens.principal import OF_TOKEN

labels_router = APIRouter(prefix="/v1/labels", tags=["labels"])
SOURCE = "api"


class GivenLabel(BaseModel):
    """What somebody has found out about a transaction."""

    model_config = ConfigDict(extra="forbid")

    transaction_id: str = Field(min_length=1, max_length=500)
    is_fraud: bool
    kind: str | None = Field(default=None, max_length=200, description="kind of fraud, where known")
    decided_at: AwareDatetime | None = Field(default=None, description="now if absent")
    decided_by: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="who decided, the token's name if absent; never the name of another token",
    )


class GivenLabels(BaseModel):
    """Labels to be recorded, in this order."""

    model_config = ConfigDict(extra="forbid")

    labels: list[GivenLabel] = Field(min_length=1, max_length=10_000)


class RejectedLabel(BaseModel):
    """A label that cannot be recorded."""

    position: int = Field(description="its place in what was sent, from 1")
    reason: str


class LabelsRecorded(BaseModel):
    """What became of labels; each is counted once."""

    stored: int = Field(description="new ones")
    repeated: int = Field(description="what is on record already")
    rejects: list[RejectedLabel]


class LabelCounts(BaseModel):
    """Counts over all labels; the last four are by the label in force."""

    labels: int
    transactions: int
    frauds: int
    fraud_share: float | None
    newest_decided_at: datetime | None
    newest_recorded_at: datetime | None


@labels_router.post("")
def record_labels(call: Annotated[Call, needs("triage")], given: GivenLabels) -> LabelsRecorded:
    """Record labels. One that says what is on record already is counted and not stored again."""
    _check_deciders(given.labels, call.who)
    reader, spec = call.agent.reader(), call.agent.spec
    book = LabelBook(reader.place("labels"), retention=spec.replay_horizon)
    done = book.record(_table(given.labels, call.who), source=SOURCE)
    call.rows = done.stored
    return _recorded(done)


@labels_router.get("")
def list_labels(
    call: Annotated[Call, needs("read")],
    transaction: Annotated[str, Query(min_length=1, max_length=500, description="A transaction's id.")],
) -> list[LabelOfTransaction]:
    """List the labels of a transaction in order of recording."""
    return call.agent.labels.of(transaction)


@labels_router.get("/status")
def count_labels(call: Annotated[Call, needs("read")]) -> LabelCounts:
    """Count labels, labelled transactions and frauds."""
    found = label_status(call.agent.reader().place("labels"), call.agent.spec.replay_horizon)
    return LabelCounts(**vars(found))


def _check_deciders(labels: Sequence[GivenLabel], who: str) -> None:
    """Somebody may say what others have found out, but not as another token.

    Raises:
        ConfigurationError: a label is to be one of another token.
    """
    named = {each.decided_by or who for each in labels}
    if any(each.startswith(OF_TOKEN) for each in named - {who}):
        raise ConfigurationError("a label is that of a token where it records it itself", where="decided_by")


def _table(labels: list[GivenLabel], who: str) -> pa.Table:
    rows = [
        {**each.model_dump(), "decided_by": each.decided_by or who, "source_position": position}
        for position, each in enumerate(labels, 1)
    ]
    return pa.Table.from_pylist(rows, schema=GIVEN)


def _recorded(done: Recorded) -> LabelsRecorded:
    rejects = [
        RejectedLabel(position=each["source_position"], reason=each["reason"])
        for each in done.rejects.to_pylist()
    ]
    return LabelsRecorded(stored=done.stored, repeated=done.repeated, rejects=rejects)
