"""The rules that decide: those that the newest batch has pinned, not what their file holds at the moment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from schemas.errors import FlagstreamError
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import LakeReader
from streaming.delta.pins import pinned_spec
from streaming.serve.served_agent import ServedAgent


@dataclass(frozen=True)
class RulesInForce:
    """The version in force with its rules.

    Attributes:
        registered: the spec as the registry, or the server, has it: a file of rules is named in it.
        spec: complete, with every rule.
        decided_at: when the newest batch was closed under these rules; None where none was as yet, and the
            rules are those that the files hold now.
    """

    registered: AgentSpec
    spec: AgentSpec
    decided_at: datetime | None


def rules_in_force(agent: ServedAgent) -> RulesInForce:
    """Return the rules in force. The registry is read once.

    Raises:
        ConfigurationError: no batch has pinned the version, and its rules cannot be used.
        FlagstreamError: the registry or the lake cannot be read.
    """
    registered = agent.in_force()
    pinned = _newest_pinned(agent.reader(), registered.version)
    if pinned is not None:
        return RulesInForce(registered, *pinned)
    return RulesInForce(registered, AgentDefinition.of(registered).completed().spec, None)


def _newest_pinned(reader: LakeReader, version: str) -> tuple[AgentSpec, datetime] | None:
    """Return what the newest batch was decided under, None where that was another version."""
    batches = reader.table("batches")
    newest = None if batches is None else batches.maximum("next_sequence")
    if batches is None or newest is None:
        return None
    rows = batches.at("next_sequence", np.array([newest], np.int64), ["pins", "closed_at"])
    row = max(rows.to_pylist(), key=lambda each: each["closed_at"])
    try:
        spec = pinned_spec(json.loads(row["pins"]))
    except FlagstreamError:  # of a later version of the code
        return None
    return (spec, row["closed_at"]) if spec.version == version else None
