"""The rows of `batches` and `monitoring` that a batch leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from schemas.instants import moment_of
from streaming.batch.alerting import Alerted
from streaming.batch.alerts_lane import AlertsLane
from streaming.batch.store import Decision
from streaming.delta.lake import Lake

_NO_SECONDS: Mapping[str, float] = MappingProxyType({})


def batch_row(
    lake: Lake,
    decision: Decision,
    alerted: Alerted,
    *,
    closed_at: datetime,
    next_outbox_seq: int,
    seconds: Mapping[str, float] = _NO_SECONDS,
    lane: AlertsLane | None = None,
) -> dict[str, Any]:
    """Return a closed batch as a row of schema `BATCHES`.

    Args:
        lake: whose table versions are noted.
        seconds: what each step took.
        lane: that its alerts have left on, None for a batch that has none to send.
    """
    versions = {table.path.name: table.version for table in lake.tables()}
    return {
        "query_id": decision.query_id,
        "batch_id": decision.batch_id,
        "opened_at": moment_of(decision.opened_at),
        "closed_at": closed_at,
        "first_sequence": decision.first_sequence,
        "next_sequence": decision.next_sequence,
        "next_outbox_seq": next_outbox_seq,
        "labels_through": decision.labels_through,
        "labels_below": decision.labels_below,
        "read": decision.read,
        "stored": decision.stored,
        "quarantined": decision.quarantined,
        "duplicates": decision.duplicates,
        "late": decision.late,
        **alerted.to_metadata(),
        "offsets": _json(decision.offsets),
        "pins": _json(decision.pins),
        "versions": _json(versions),
        "durations": json.dumps(dict(seconds)),
        "rejected": _json(decision.rejected),
        "topic_ids": _json(decision.topic_ids),
        "lost": _json(decision.lost),
        "lane": None if lane is None else lane.to_json(),
    }


def monitoring_row(
    decision: Decision, alerted: Alerted, at: datetime, problems: str | None
) -> dict[str, Any]:
    """Return a batch as a row of schema `MONITORING`.

    Args:
        problems: what is wrong with the input, None where nothing is.
    """
    read, rejected = max(decision.read, 1), decision.rejected
    shares = None if rejected is None else {name: round(count / read, 6) for name, count in rejected.items()}
    return {
        "query_id": decision.query_id,
        "batch_id": decision.batch_id,
        "at": at,
        "alert": alerted.alerts > 0,
        "count": alerted.alerts,
        "status": alerted.status if problems is None else "degraded",
        "problems": problems,
        "rejected_share": round(decision.quarantined / read, 6),
        "rejected_by_reason": _json(shares),
    }


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)
