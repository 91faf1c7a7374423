"""What one run of the planning agent tells the audit log, in order."""

from __future__ import annotations

from typing import Any

from agent.audit.events import AuditEvent, AuditLog, EventKind
from agent.planning.refusals import Refusal
from schemas.policy import Policy


class RunAudit:
    """Records the events of one run, each at once.

    Args:
        log: where they are kept.
        run_id: 32 hex digits.
        attempt: 32 hex digits of this process's own; a run that is repeated tells its own events.
        policy: in force.
    """

    def __init__(self, log: AuditLog, run_id: str, attempt: str, policy: Policy) -> None:
        self._log, self._run_id, self._source = log, run_id, f"agent_run/{attempt}"
        self._policy, self._position = policy.policyName, 0

    def record(self, kind: EventKind, subject: str, **detail: Any) -> None:
        """Record one event.

        Raises:
            FlagstreamError: the log cannot be written; nothing may be done then.
        """
        common = {"run_id": self._run_id, "policy": self._policy}
        event = AuditEvent(kind, subject, {**common, **detail}, self._source, self._position)
        self._log.record([event])
        self._position += 1

    def refused(self, refusals: tuple[Refusal, ...], **detail: Any) -> None:
        """Record that something was refused, with each rule."""
        for refusal in refusals:
            subject = refusal.step or self._run_id
            self.record("policy_decision", subject, decision="refused", reason=refusal.rule, **detail)
