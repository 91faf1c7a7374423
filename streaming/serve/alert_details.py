"""One alert with all that is known of it: its parts, what is normal, labels, what decided it, its like."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from schemas.alert import ALERTS
from schemas.alert_documents import alert_documents
from schemas.errors import NotFoundError
from streaming.arrays.compilation import Ints
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable
from streaming.history.explain import Explanation, explained
from streaming.history.payments import Payments
from streaming.history.similar import COMPARED, most_alike
from streaming.inbox.inbox import Inbox
from streaming.inbox.view import InboxView

_MOST_DRAWN = 500
_CANDIDATES = 200
_LABEL_COLUMNS = ["transaction_id", "is_fraud", "kind", "decided_at", "decided_by", "recorded_at", "source"]


class NormalOf(BaseModel):
    """What is normal for one entity: its payments before the alerted one, in the alert's currency."""

    kind: str
    entity: str
    payments: int
    first: datetime | None
    median_amount: float | None
    largest_amount: float | None
    median_days_between: float | None


class NearPayment(BaseModel):
    """A past payment like the alerted one."""

    transaction_id: str
    event_time: datetime
    amount: float
    currency: str | None
    distance: float = Field(description="of log-amounts and of times of day")


class DrawnPayment(BaseModel):
    """A payment as a plot shows it."""

    time: datetime
    amount: float


class LabelOfTransaction(BaseModel):
    """What somebody has found out about a transaction."""

    transaction_id: str
    is_fraud: bool
    kind: str | None
    decided_at: datetime
    decided_by: str
    recorded_at: datetime
    source: str


class AlertDetail(BaseModel):
    """One alert, taken apart."""

    alert: dict[str, Any] = Field(description="as on the topic: `flagstream spec alert-schema`")
    adds_up: bool = Field(description="whether base and contributions give the log-odds within 1e-9")
    normal: list[NormalOf]
    nearest: list[NearPayment]
    history: list[DrawnPayment] = Field(description="the payer's newest payments before, at most 500")
    labels: list[LabelOfTransaction] = Field(description="of its transaction, in order of recording")
    pins: dict[str, Any] = Field(description="what decided it: version, model, prompt and digests")
    revisions: list[dict[str, Any]] = Field(description="what each revision says, oldest first")


class SimilarAlert(BaseModel):
    """An alert like another one."""

    alert_id: str
    transaction_id: str
    time: datetime
    amount: float
    currency: str | None
    score: float
    severity: str
    classification: str
    distance: float


class AlertDetails:
    """Answers for single alerts of one agent.

    Args:
        inbox: where an alert's place is looked up.
        payments: finds those of its entities.
        primary: the entity whose history is shown.
    """

    def __init__(self, inbox: Inbox, payments: Payments, primary: str) -> None:
        self._inbox, self._payments, self._primary = inbox, payments, primary

    def detail(self, reader: LakeReader, alert_id: str) -> AlertDetail:
        """Return an alert, taken apart.

        Raises:
            NotFoundError: there is none of this id.
        """
        revisions = self._revisions(reader, alert_id)
        newest = revisions.slice(revisions.num_rows - 1)
        row = newest.to_pylist()[0]
        found = explained(row, self._payments, self._primary)
        return AlertDetail(
            alert=_documents(newest)[0],
            adds_up=found.adds_up,
            normal=[NormalOf(**vars(each)) for each in found.normal],
            nearest=[NearPayment(**each) for each in found.nearest],
            history=_drawn(found),
            labels=labels_of(reader, row["transaction_id"]),
            pins=_pins(reader, row),
            revisions=[_said(each) for each in _documents(revisions)],
        )

    def similar(self, reader: LakeReader, alert_id: str, limit: int) -> list[SimilarAlert]:
        """Return the alerts most like one, of those that share its largest reason or its rules.

        Raises:
            NotFoundError: there is none of this id.
        """
        view = self._inbox.view
        row = self._row(view, alert_id)
        candidates = _candidates(view, row)
        places = np.unique(np.append(view.newest[candidates], view.newest[row]))
        stored = _alerts(reader)
        rows = stored.at("outbox_seq", places, COMPARED).to_pylist()
        one = next((each for each in rows if each["alert_id"] == alert_id), None)
        if one is None:  # erased since the inbox has read it
            raise NotFoundError("no alert of this id", where="alert_id")
        others = [each for each in rows if each["alert_id"] != alert_id]
        return [_similar(each, distance) for each, distance in most_alike(one, others, limit)]

    def _row(self, view: InboxView, alert_id: str) -> int:
        found = view.find("alert", alert_id)
        if len(found) != 1:
            raise NotFoundError("no alert of this id", where="alert_id")
        return int(found[0])

    def _revisions(self, reader: LakeReader, alert_id: str) -> pa.Table:
        view = self._inbox.view
        row = self._row(view, alert_id)
        stored = _alerts(reader)
        places = np.unique(np.array([view.places[row], view.newest[row]], np.int64))
        found = stored.at("outbox_seq", places, stored.schema.names)
        found = found.filter(pc.equal(found["alert_id"], alert_id))
        if found.num_rows == 0:
            raise NotFoundError("no alert of this id", where="alert_id")
        return found


def _alerts(reader: LakeReader) -> StoredTable:
    """A reader that was opened before the first alert has none."""
    stored = reader.table("alerts")
    if stored is None:
        raise NotFoundError("no alert of this id", where="alert_id")
    return stored


def labels_of(reader: LakeReader, transaction_id: str) -> list[LabelOfTransaction]:
    """Return all labels of a transaction, in order of recording."""
    columns = [*_LABEL_COLUMNS, "label_sequence"]
    rows = reader.frame("labels", columns, pc.field("transaction_id") == transaction_id)
    return [
        LabelOfTransaction(**each) for each in rows.sort("label_sequence").select(_LABEL_COLUMNS).to_dicts()
    ]


def _documents(rows: pa.Table) -> list[dict[str, Any]]:
    known = [name for name in ALERTS.names if name in rows.column_names]
    return [orjson.loads(each) for each in alert_documents(rows.select(known))]


def _said(document: Mapping[str, Any]) -> dict[str, Any]:
    names = (
        "revision", "created_at", "severity", "classification", "classification_source", "fallback_reason",
        "rationale", "model", "prompt_id", "prompt_version", "evidence", "outbox_seq",
    )  # fmt: skip
    return {name: document.get(name) for name in names}


def _drawn(found: Explanation) -> list[DrawnPayment]:
    newest = found.history.sort("event_time").tail(_MOST_DRAWN)
    return [DrawnPayment(time=time, amount=amount) for time, amount in newest.iter_rows()]


def _pins(reader: LakeReader, alert: Mapping[str, Any]) -> dict[str, Any]:
    """Whole specs and contracts stay where they are: their digests name them."""
    batch = (pc.field("query_id") == alert["query_id"]) & (pc.field("batch_id") == alert["batch_id"])
    found = reader.first("batches", ["pins", "query_id", "batch_id"], batch)
    if found.num_rows == 0:
        return {}
    pins: dict[str, Any] = json.loads(found["pins"][0].as_py())
    spec = pins.get("spec") or {}
    plain = {name: value for name, value in pins.items() if isinstance(value, str | int | float | None)}
    return {"spec_version": spec.get("version"), **plain}


def _candidates(view: InboxView, row: int) -> Ints:
    """Return the alerts nearest in amount among those of the same largest reason, or the same rules."""
    reason, rule = view.words["reason"], view.words["rule"]
    alike = reason.codes == reason.codes[row]
    alike |= (rule.codes == rule.codes[row]) & (rule.codes[row] > 0)
    alike[row] = False
    rows = np.flatnonzero(alike)
    amounts = np.log1p(np.maximum(view.numbers["amount"], 0.0))
    apart = np.abs(amounts[rows] - amounts[row])
    if len(rows) > _CANDIDATES:
        rows = rows[np.argpartition(apart, _CANDIDATES)[:_CANDIDATES]]
    return rows


def _similar(row: Mapping[str, Any], distance: float) -> SimilarAlert:
    shown = ("alert_id", "transaction_id", "amount", "currency", "score", "severity", "classification")
    plain = {name: row[name] for name in shown}
    return SimilarAlert(**plain, time=row["event_time"], distance=round(distance, 6))
