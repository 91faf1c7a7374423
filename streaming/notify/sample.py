"""A made-up alert for whoever tries a route: it says of itself that it is one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from schemas.alert import Reason, alert_id
from schemas.alert_documents import alert_documents
from schemas.alert_table import alerts_table, entities_array, reasons_array

_TRANSACTION = "sample-transaction"
_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
_SAID = "a made-up alert, sent by flagstream notify test"


def sample_change(agent: str, change: str) -> dict[str, Any]:
    """Return a made-up change of a case, always the same for one agent.

    Args:
        agent: its name.
        change: see schemas.cases.CaseChange.
    """
    event, _, reason = change.partition("_") if change.startswith("closed_") else (change, "", "")
    status = {"closed": "closed", "close_asked": "closing"}.get(event, "open")
    case = {
        "status": status, "severity": "low", "level": int(event == "escalated"), "kind": "entity",
        "entity": "customer", "entity_id": "sample-customer", "rule": None, "alerts": 1, "amount": 1.0,
        "refunds": 0.0, "currency": "EUR", "opened_at": _MOMENT, "assignee": None,
    }  # fmt: skip
    case_id = alert_id(agent, _TRANSACTION)[:16]
    common = {"number": 0, "event": event, "case_id": case_id, "at": _MOMENT, "who": "sample"}
    return {**common, "reason": reason or None, "text": _SAID, "case": case}


def sample_alert(agent: str) -> bytes:
    """Return a made-up alert as it would lie on the topic, always the same for one agent."""
    columns = {
        "entities": entities_array({"customer": ["sample-customer"]}),
        "reasons": reasons_array([[Reason("sample", 1.0, _SAID)]]),
        "rules": pa.array([["sample"]], pa.list_(pa.string())),
    }
    constants = {
        "alert_id": alert_id(agent, _TRANSACTION), "agent": agent, "transaction_id": _TRANSACTION,
        "amount": 1.0, "currency": "EUR", "event_time": _MOMENT, "created_at": _MOMENT,
        "score": 0.5, "log_odds": 0.0, "base": -1.0, "own_evidence": 0.0,
        "classification": "needs_review", "severity": "low", "rationale": _SAID,
        "classification_source": "rules", "fallback_reason": "llm_off",
        "model": None, "prompt_id": None, "prompt_version": None,
        "spec_version": "0.0.0", "rules_version": "sample", "query_id": "sample",
        "batch_id": 0, "sequence": 0, "outbox_seq": 0,
    }  # fmt: skip
    (document,) = alert_documents(alerts_table(columns, constants))
    return document
