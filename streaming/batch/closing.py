"""Step 8: the rows of `batches` and `monitoring` that a batch leaves behind, and their commits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa

from schemas.batch_key import BatchKey
from schemas.instants import moment_of
from streaming.batch.alerting import Alerted
from streaming.batch.alerts_lane import AlertsLane
from streaming.batch.decision import Decision
from streaming.batch.moved import computed_on
from streaming.batch.queries import stamp_of
from streaming.delta.lake import Lake
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.output.log import log_routine
from streaming.output.trace_ids import trace_of_batch

_COUNTED = (
    "first_sequence", "next_sequence", "labels_through", "labels_below",
    "read", "stored", "quarantined", "duplicates", "late",
)  # fmt: skip
_NO_SECONDS: Mapping[str, float] = MappingProxyType({})


def stamp_for(agent: str, decision: Decision) -> Stamp:
    """Return the stamp under which an agent commits what comes of a decided batch."""
    return Stamp(stamp_of(agent, decision.query_id), decision.batch_id)


def close_batch(
    lake: Lake,
    agent: str,
    decision: Decision,
    alerted: Alerted,
    *,
    closed_at: datetime,
    next_outbox_seq: int,
    seconds: Mapping[str, float] = _NO_SECONDS,
    lane: AlertsLane | None = None,
    computed_before: Sequence[str] = (),
) -> dict[str, Any]:
    """Append a batch to `batches`, which closes it, and return its row.

    Args:
        lake: whose table versions are noted.
        seconds: what each step took.
        lane: that its alerts have left on, None for a batch that has none to send.
        computed_before: see moved.computed_on.
    """
    versions = {table.place.name: table.version for table in lake.tables()}
    row = {
        "query_id": decision.query_id,
        "batch_id": decision.batch_id,
        "opened_at": moment_of(decision.opened_at),
        "closed_at": closed_at,
        "next_outbox_seq": next_outbox_seq,
        **{name: getattr(decision, name) for name in _COUNTED},
        **alerted.to_metadata(),
        "offsets": _json(decision.offsets),
        "pins": _json(decision.pins),
        "versions": _json(versions),
        "durations": json.dumps(dict(seconds)),
        "rejected": _json(decision.rejected),
        "topic_ids": _json(decision.topic_ids),
        "lost": _json(decision.lost),
        "lane": None if lane is None else lane.to_json(),
        "filtered": decision.filtered,
        "filtered_by_reason": _json(decision.filtered_by_reason),
        "fingerprints": computed_on(decision, computed_before),
    }
    _append(lake.batches, row, stamp_for(agent, decision))
    _log_closed(agent, decision, alerted, sum(seconds.values()))
    return row


def _log_closed(agent: str, decision: Decision, alerted: Alerted, seconds: float) -> None:
    key = BatchKey(decision.query_id, decision.batch_id)
    log_routine(
        "batch_closed",
        f"batch {key.batch_id} closed",
        agent=agent,
        batch=key.batch_id,
        query_id=key.query_id,
        trace_id=trace_of_batch(agent, key).text,
        data_source=",".join(sorted(decision.offsets)),
        model=decision.pins.get("model"),
        outcome=alerted.status,
        seconds=round(seconds, 6),
        read=decision.read,
        stored=decision.stored,
        quarantined=decision.quarantined,
        alerts=alerted.alerts,
    )


def monitor_batch(
    lake: Lake, agent: str, decision: Decision, alerted: Alerted, at: datetime, problems: str | None
) -> None:
    """Append a batch to `monitoring`.

    Args:
        problems: what is wrong with the input, None where nothing is.
    """
    wanted, counts = max(decision.wanted, 1), decision.rejected
    shares = None if counts is None else {name: round(count / wanted, 6) for name, count in counts.items()}
    row = {
        "query_id": decision.query_id,
        "batch_id": decision.batch_id,
        "at": at,
        "alert": alerted.alerts > 0,
        "count": alerted.alerts,
        "status": alerted.status if problems is None else "degraded",
        "problems": problems,
        "rejected_share": round(decision.quarantined / wanted, 6),
        "rejected_by_reason": _json(shares),
    }
    _append(lake.monitoring, row, stamp_for(agent, decision))


def _append(table: LakeTable, row: Mapping[str, Any], stamp: Stamp) -> None:
    table.append(pa.Table.from_pylist([row], schema=table.schema), stamp)


def _json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)
