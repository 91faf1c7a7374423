"""What the audit log says of an erasure: that it was begun, by whom and why, and what came of it; no id."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from agent.audit.events import AuditEvent
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.delta.erasure_plan import ErasurePlan
from streaming.home.placed_agent import PlacedAgent

_SUBJECT, _SCOPE = "erase", "erasure"


class ErasureTrail:
    """Tells the audit log of one erasure, each step once, however often it is entered.

    Args:
        plan: names it, and the tokens that it has given out.

    Raises:
        ConfigurationError: the log, or its key, is another one.
        DataLossError: the log's anchor is gone.
    """

    def __init__(self, agent: PlacedAgent, plan: ErasurePlan) -> None:
        self._log, self._plan = LakeAudit(AuditPlaces(agent), agent.spec.replay_horizon), plan

    def begun(self) -> None:
        """Record it before anything is changed, so that nobody erases in silence."""
        self._record(0, {"reason": "begun"})

    def done(self, rows: Mapping[str, int]) -> None:
        """Record what was changed."""
        self._record(1, {"reason": "done", "rows": sum(rows.values()), "tables": sorted(rows)})

    def _record(self, step: int, detail: Mapping[str, Any]) -> None:
        plan = self._plan
        said = {"command": _SUBJECT, "scope": _SCOPE, "actor": f"uid:{os.getuid()}", **detail}
        about = {"who": plan.who, "why": plan.why, "tokens": [each.token for each in plan.tokens]}
        self._log.record([AuditEvent("action", _SUBJECT, {**said, **about}, f"erasure/{plan.number}", step)])
