"""How many values a part of a contract reads, by the decoder that would read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from schemas.contract import EventContract
from schemas.loading import parse_document
from streaming.events.decode import decode
from streaming.events.record_table import record_table

FAR = datetime(2200, 1, 1, tzinfo=UTC)
TRIED = "tried"
_BASE: Mapping[str, Any] = {
    "name": "trial",
    "transaction_id": {"from": "coordinates"},
    "event_time": {"field": "time"},
    "amount": {"field": "amount"},
    "currency": {"constant": "EUR"},
    "entities": {"entity": {"field": "entity"}},
}
_EVENT: Mapping[str, Any] = {"time": "2026-01-01T00:00:00Z", "amount": 1, "entity": "e"}


def share_read(part: Mapping[str, Any], values: Sequence[Any]) -> float:
    """Return the share of values that a contract reads.

    Args:
        part: keys of the contract, such as `amount`, that name the field `TRIED`.
        values: what that field holds in one event each.
    """
    contract = parse_document({**_BASE, **part}, EventContract, where="trial")
    events = [json.dumps({**_EVENT, TRIED: value}).encode() for value in values]
    records = record_table([None] * len(events), events, topic="trial", first=0, sent_at=FAR)
    return float(decode(records, contract, FAR).valid.num_rows / max(len(events), 1))
