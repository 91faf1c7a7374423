"""What people do to versions of a spec, step by step, and where each stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.audit.events import is_name
from schemas.addresses import is_uri
from schemas.documents import is_path
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.home.user import user_name
from streaming.versions.arithmetic import with_arithmetic
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.stages import (
    Entry,
    Stage,
    VersionStage,
    steps_to,
    version_in,
    wanted,
)


@dataclass(frozen=True)
class PromotionOptions:
    """How far a version goes, and on what conditions.

    Attributes:
        to: the stage to reach, None for the next one.
        percent: of primary entities in canary, None for what the active spec says.
        allow_endpoint_change: why another policy, model, endpoint or key is meant.
    """

    to: Stage | None = None
    percent: float | None = None
    allow_endpoint_change: str | None = None


def promoted_to(
    registry: SpecRegistry, version: str, author: Author, options: PromotionOptions
) -> list[Entry]:
    """Promote a version stage by stage as far as it is to go, and return what changed.

    Raises:
        ClosedGateError: the evidence does not suffice; stages reached before stay.
        ConfigurationError: no such version, or it is past the stage.
    """
    entries, steps = list[Entry](), 1
    if options.to is not None:
        steps = steps_to(options.to, wanted(version, registry.staged_versions(), options.to))
    for _ in range(steps):
        entries += registry.promote(
            version, author, prompt_digest, options.allow_endpoint_change, options.percent
        )
    return entries


def complete(spec: AgentSpec, where: str | None = None) -> AgentSpec:
    """Return a spec that no longer depends on where it was read: whole paths, and the rules of its file.

    Args:
        where: the file it was read from, for errors.

    Raises:
        ConfigurationError: something that it names cannot be used.
    """
    ruled = AgentDefinition.load(spec, where).spec
    source = spec.data_sources.transactions
    source = source.model_copy(update={"contract": _whole(source.contract)})
    sources = ruled.data_sources.model_copy(update={"transactions": source})
    model = ruled.model and ruled.model.model_copy(update={"path": _placed(ruled.model.path)})
    changes = {"data_sources": sources, "model": model, "policy": _whole(ruled.policy)}
    return ruled.model_copy(update=changes)


def active_beside(agent: PlacedAgent) -> VersionStage | None:
    """Return the version in force where it is another than a spec, else None.

    Raises:
        ConfigurationError: something that the spec names cannot be used.
    """
    active = version_in("active", SpecRegistry(agent).staged_versions())
    if active is None or active.digest == complete(with_arithmetic(agent.spec, agent)).digest:
        return None
    return active


def prompt_digest(spec: AgentSpec) -> str:
    """Return the digest of a spec's prompt as it is now.

    Raises:
        ConfigurationError: it cannot be used.
    """
    return AgentDefinition.of(spec).prompt.digest


def default_author() -> str:
    """Return who runs this command, as far as that may be written down."""
    name = user_name()
    return name if is_name(name) else "unnamed"


def listed(found: Mapping[str, VersionStage]) -> list[dict[str, object]]:
    """Return where each version stands, JSON-serialisable."""
    return [
        {
            "version": each.version,
            "stage": each.stage,
            "digest": each.digest,
            "since": each.since.isoformat(),
            "who": each.who,
            "why": each.why,
        }
        for each in found.values()
    ]


def moved(entries: list[Entry]) -> dict[str, object]:
    """Return which version went to which stage, for printing."""
    return {each.version: str(each.stage) for each in entries}


def author_of(who: str | None, why: str) -> Author:
    """Return who does something and why; the user of this machine unless somebody is named."""
    return Author(who or default_author(), why)


def _placed(name: str) -> str:
    """Return what may lie in a store, too: that has its place already."""
    return name if is_uri(name) else str(Path(name).resolve())


def _whole(name: str) -> str:
    return str(Path(name).resolve()) if is_path(name) else name
