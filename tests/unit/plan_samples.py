"""Policies, plans and what they are about, for tests of the planning agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.audit.events import AuditEvent
from agent.planning.curated import curated_views
from agent.planning.plan_policy import Ground
from agent.planning.plans import Plan
from schemas.contract import load_contract
from schemas.policy import Policy

CONTRACT = load_contract("simulator")
MODEL = {"name": "local", "provenance": "made for tests", "region": "here"}


@dataclass
class MemoryAudit:
    """An audit log that lasts as long as a test."""

    events: list[AuditEvent] = field(default_factory=list)

    def record(self, events: Sequence[AuditEvent]) -> None:
        """See AuditLog."""
        recorded = {each.source: each.position for each in self.events}
        self.events.extend(each for each in events if each.position > recorded.get(each.source, -1))


def policy(**changes: Any) -> Policy:
    """Return a policy under which every action may stand in a plan, with some of its keys changed."""
    content = {
        "policyName": "p",
        "allowedModels": [MODEL],
        "allowedFields": ["amount", "currency", "event_hour", "score", "reasons", "rules"],
        "dataAccess": {
            "readOnlyPaths": ["lake", "candidates"],
            "tables": ["transactions", "alerts", "labels", "batches", "quarantine"],
        },
        "actions": {
            "query_aggregates": {"calls": 5, "rows": 50},
            "entity_profile": {"calls": 5},
            "entity_history": {"calls": 5, "rows": 20},
            "similar_alerts": {"calls": 5, "rows": 10},
            "replay_preview": {},
            "post_finding": {},
            "run_job": {"notebooks": ["/Shared/refit"]},
            "notify": {"targets": {"log": "log"}},
        },
        "budgets": {"steps": 6, "tokens": 20_000, "seconds": 60},
        **changes,
    }
    return Policy.model_validate(content)


def ground(home: Path) -> Ground:
    """Return what plans of these tests are about, state in `home`."""
    return Ground(home, home / "lake" / "tester", CONTRACT.entity_names, curated_views(CONTRACT))


def step(number: int, action: str, **parameters: Any) -> dict[str, Any]:
    """Return a step as a plan's JSON has it."""
    return {"id": f"s{number}", "action": action, "parameters": parameters}


def plan(*steps: dict[str, Any]) -> Plan:
    """Return a plan of these steps."""
    return Plan.model_validate({"steps": list(steps)})


def query(number: int, sql: str, *values: str) -> dict[str, Any]:
    """Return a step that asks a query."""
    return step(number, "query_aggregates", sql=sql, values=list(values))
