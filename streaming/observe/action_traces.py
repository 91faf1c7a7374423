"""Shows a planned run as a trace: the run, the requests to its model, and each of its actions."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agent.audit.events import AuditEvent, AuditLog
from schemas.batch_key import BatchKey
from streaming.observe.traces import Traces
from streaming.output.trace_ids import trace_of_run

_STARTED = "started"


class TracedAudit:
    """An audit log that makes spans of the actions that are recorded in it, see agent.audit.events.AuditLog.

    Args:
        log: where events are kept.
        traces: where spans go.
        about: the newest batch when the run began, None before the first: its actions see the lake so.
    """

    def __init__(self, log: AuditLog, traces: Traces, about: BatchKey | None) -> None:
        self._log, self._traces, self._about = log, traces, about
        self._begun: dict[object, int] = {}

    def record(self, events: Sequence[AuditEvent]) -> None:
        """See AuditLog."""
        self._log.record(events)
        for each in events:
            if each.kind == "action":
                self._take_in(each)

    def _take_in(self, event: AuditEvent) -> None:
        step, outcome = event.detail.get("step"), str(event.detail.get("outcome"))
        if outcome == _STARTED:
            self._begun[step] = time.time_ns()
        else:
            began = self._begun.pop(step, time.time_ns())
            self._traces.action(event.subject, outcome, began, self._about)


@contextmanager
def traced_run(traces: Traces, agent: str, run_id: str) -> Iterator[None]:
    """Show what is done within as one run of an agent."""
    with traces.run(trace_of_run(run_id), f"invoke_agent {agent}", time.time_ns()):
        yield
