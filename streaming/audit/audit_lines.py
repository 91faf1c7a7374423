"""Logs what has been recorded in the audit log: a line of JSON per event, with its batch and its trace."""

from __future__ import annotations

from collections.abc import Sequence

from agent.audit.events import AuditEvent
from schemas.batch_key import BatchKey
from streaming.output.log import Value, is_for_programs, log_routine
from streaming.output.trace_ids import trace_of_batch, trace_of_run

_SHOWN = (
    "action", "actor", "command", "decision", "model", "outcome", "policy", "prompt", "query_id", "reason",
    "rows", "run_id", "step", "stored", "alerts", "degraded", "input_tokens", "output_tokens", "cost_usd",
)  # fmt: skip


def log_events(agent: str, events: Sequence[AuditEvent]) -> None:
    """Log events that are on record now, where programs read the log."""
    if not is_for_programs():
        return
    for each in events:
        if each.kind != "batch_decided":  # closing a batch says more, see streaming.batch.closing
            log_routine(each.kind, f"{each.kind.replace('_', ' ')}: {each.subject}", **_fields(agent, each))


def _fields(agent: str, event: AuditEvent) -> dict[str, Value]:
    detail = event.detail
    about: dict[str, Value] = {"agent": agent, "batch": detail.get("batch_id")}
    if event.kind == "model_call":
        about["model"] = event.subject
    if detail.get("tables"):
        about["data_source"] = ",".join(detail["tables"])
    if detail.get("batch_id") is not None:
        about["trace_id"] = trace_of_batch(agent, BatchKey(detail["query_id"], detail["batch_id"])).text
    elif detail.get("run_id") is not None:
        about["trace_id"] = trace_of_run(detail["run_id"]).text
    return {**about, **{name: detail[name] for name in _SHOWN if detail.get(name) is not None}}
