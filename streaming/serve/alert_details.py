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
from streaming.history.alert_cost import cost_of_alert
from streaming.history.explain import Explanation, explained
from streaming.history.payments import NoPayments, NotIndexedYetError, Payments
from streaming.history.similar import most_alike
from streaming.inbox.inbox import Inbox
from streaming.inbox.view import InboxView
from streaming.serve.kept_alerts import KeptAlerts
from streaming.serve.labels_found import FoundLabels, LabelOfTransaction

_MOST_DRAWN = 500
_CANDIDATES = 200


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


class AnswerCost(BaseModel):
    """What an alert's batch took of a model, and the alert's part of it."""

    calls: int = Field(description="of its batch, those for late answers included")
    shared_by: int = Field(description="alerts of the batch that share equally what the calls took")
    input_tokens: int = Field(description="its part")
    output_tokens: int = Field(description="its part")
    usd: float = Field(description="its part, at the prices of that time; 0 where the model had none")


class AlertDetail(BaseModel):
    """One alert, taken apart."""

    alert: dict[str, Any] = Field(description="as on the topic: `flagstream spec alert-schema`")
    without: str | None = Field(
        description="why `normal`, `nearest` and `history` are empty as yet; null where they are not"
    )
    adds_up: bool = Field(description="whether base and contributions give the log-odds within 1e-9")
    normal: list[NormalOf]
    nearest: list[NearPayment]
    history: list[DrawnPayment] = Field(description="the payer's newest payments before, at most 500")
    labels: list[LabelOfTransaction] = Field(description="of its transaction, in order of recording")
    pins: dict[str, Any] = Field(description="what decided it: version, model, prompt and digests")
    revisions: list[dict[str, Any]] = Field(description="what each revision says, oldest first")
    cost: AnswerCost | None = Field(
        description="null where no model was asked about its batch, or others of it had the answers"
    )


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
        labels: of transactions.
        alerts: finds them by their place.
        primary: the entity whose history is shown.
    """

    def __init__(
        self, inbox: Inbox, payments: Payments, labels: FoundLabels, alerts: KeptAlerts, primary: str
    ) -> None:
        self._inbox, self._payments, self._primary = inbox, payments, primary
        self._labels, self._alerts = labels, alerts

    def detail(self, reader: LakeReader, alert_id: str) -> AlertDetail:
        """Return an alert, taken apart.

        Raises:
            NotFoundError: there is none of this id.
        """
        revisions = self._revisions(alert_id)
        newest = revisions.slice(revisions.num_rows - 1)
        row = newest.to_pylist()[0]
        cost = cost_of_alert(reader, row)
        found, without = self._explained(row)
        return AlertDetail(
            alert=_documents(newest)[0],
            without=without,
            adds_up=found.adds_up,
            normal=[] if without else [NormalOf(**vars(each)) for each in found.normal],
            nearest=[NearPayment(**each) for each in found.nearest],
            history=_drawn(found),
            labels=self._labels.of(row["transaction_id"]),
            pins=_pins(reader, row),
            revisions=[_said(each) for each in _documents(revisions)],
            cost=None if cost is None else AnswerCost(**vars(cost)),
        )

    def _explained(self, row: dict[str, Any]) -> tuple[Explanation, str | None]:
        """Return why an alert was raised, and why nothing was found about the payments before."""
        try:
            return explained(row, self._payments, self._primary), None
        except NotIndexedYetError as wait:
            return explained(row, NoPayments(), self._primary), str(wait)

    def similar(self, alert_id: str, limit: int) -> list[SimilarAlert]:
        """Return the alerts most like one, of those that share its largest reason or its rules.

        Raises:
            NotFoundError: there is none of this id.
        """
        view = self._inbox.view
        row = self._row(view, alert_id)
        found = self._compared(view, np.append(row, _candidates(view, row)))
        if not found or found[0]["alert_id"] != alert_id:  # erased since the inbox has read it
            raise NotFoundError("no alert of this id", where="alert_id")
        return [_similar(each, distance) for each, distance in most_alike(found[0], found[1:], limit)]

    def _compared(self, view: InboxView, rows: Ints) -> list[dict[str, Any]]:
        """Return alerts with what they are compared by, without those that are gone."""
        reasons = self._alerts.reasons(view.newest[rows])
        shown = view.alerts(rows)
        known = [each for each in shown if each["outbox_seq"] in reasons]
        return [{**each, "reasons": reasons[each["outbox_seq"]]} for each in known]

    def _row(self, view: InboxView, alert_id: str) -> int:
        found = view.row_of(alert_id)
        if found is None:
            raise NotFoundError("no alert of this id", where="alert_id")
        return found

    def _revisions(self, alert_id: str) -> pa.Table:
        view = self._inbox.view
        row = self._row(view, alert_id)
        found = self._alerts.at(np.array([view.places[row], view.newest[row]], np.int64))
        found = found.filter(pc.equal(found["alert_id"], alert_id))
        if found.num_rows == 0:  # erased since the inbox has read it
            raise NotFoundError("no alert of this id", where="alert_id")
        return found


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
    stored = reader.table("batches")
    if stored is None:
        return {}
    found = stored.at("batch_id", np.array([alert["batch_id"]], np.int64), ["pins", "query_id"])
    found = found.filter(pc.equal(found["query_id"], alert["query_id"]))
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
    amounts = view.numbers["amount"]
    mine = np.log1p(np.maximum(amounts[row], 0.0))
    apart = np.abs(np.log1p(np.maximum(amounts[rows], 0.0)) - mine)
    if len(rows) > _CANDIDATES:
        rows = rows[np.argpartition(apart, _CANDIDATES)[:_CANDIDATES]]
    return rows


def _similar(row: Mapping[str, Any], distance: float) -> SimilarAlert:
    shown = ("alert_id", "transaction_id", "amount", "currency", "score", "severity", "classification")
    plain = {name: row[name] for name in shown}
    return SimilarAlert(**plain, time=row["time"], distance=round(distance, 6))
