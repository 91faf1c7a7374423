"""Which arithmetic a spec that names none is decided under."""

from __future__ import annotations

import json

from schemas.spec import AgentSpec
from streaming.batch.backfill_mark import newest_decision
from streaming.batch.queries import newest_batch
from streaming.delta.lake_reader import LakeReader
from streaming.delta.pins import pinned_specs
from streaming.home.placed_agent import PlacedAgent
from streaming.versions.registry_table import read_entries, registry_place
from streaming.versions.stages import staged_versions


def with_arithmetic(spec: AgentSpec, agent: PlacedAgent) -> AgentSpec:
    """Return a spec that says under which arithmetic it decides for an agent.

    What the spec names stands. Else a registered version keeps its own and a new one takes the newest; an
    agent without a registry goes on as its lake does, and begins a new lake with the newest.

    Args:
        spec: of the agent, or of a candidate.
        agent: whose registry and lake are asked.
    """
    if spec.arithmetic is not None:
        return spec
    registered = staged_versions(read_entries(registry_place(agent)))
    if registered:
        known = registered.get(spec.version)
        return spec.anew() if known is None else _as(spec, known.spec)
    pinned = _newest_pinned(agent)
    return spec.anew() if pinned is None else _as(spec, pinned)


def _as(spec: AgentSpec, other: AgentSpec) -> AgentSpec:
    return spec.model_copy(update={"arithmetic": other.arithmetic})


def _newest_pinned(agent: PlacedAgent) -> AgentSpec | None:
    """Return the spec that decided the newest batch, None in a lake without one."""
    decision = newest_decision(agent)
    if decision is not None:
        return pinned_specs(decision.pins)[0]
    # The log of `transactions` may have been cleaned up beyond its newest batch.
    batches = LakeReader.of(agent).at("batches")
    newest = None if batches is None else newest_batch(batches, ["pins"])
    return None if newest is None else pinned_specs(json.loads(newest["pins"]))[0]
