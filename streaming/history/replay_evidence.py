"""A candidate's report kept as evidence for the gates that it has to pass."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from schemas.spec import AgentSpec
from streaming.history.what_if_found import WhatIf
from streaming.home.placed_agent import PlacedAgent
from streaming.versions.arithmetic import with_arithmetic
from streaming.versions.moving import complete
from streaming.versions.registry import SpecRegistry
from streaming.versions.stages import (
    VersionStage,
    version_in,
)


def note_replay(agent: PlacedAgent, candidate: AgentSpec, found: WhatIf, who: str) -> bool:
    """Keep a candidate's report as evidence; False where its agent is another one or has no registry.

    Args:
        who: asked for it, as the registry names them.
    """
    registry = SpecRegistry(agent)
    active = version_in("active", registry.staged_versions())
    if active is None or candidate.name != agent.name:
        return False
    whole = complete(with_arithmetic(candidate, agent))
    evidence = replay_evidence(found, active)
    return registry.note("replayed", whole.version, whole.digest, who, evidence)


def replay_evidence(found: WhatIf, active: VersionStage) -> dict[str, Any]:
    """Return what the gates read of a candidate's report."""
    return {
        "active_version": active.version,
        "active_digest": active.digest,
        "first_sequence": found.span.first,
        "next_sequence": found.span.end,
        "transactions": found.transactions,
        "days": found.days,
        "maturity_seconds": found.maturity.total_seconds(),
        "oldest_alert": min(found.per_day, default=None),
        "matured": {side: asdict(figures) for side, figures in found.matured.items()},
        "alerts_per_day": {
            "published": found.published.alerts_per_day,
            "candidate": found.replayed.alerts_per_day,
        },
        "added": found.added,
        "removed": found.removed,
        "kept": found.kept,
    }
