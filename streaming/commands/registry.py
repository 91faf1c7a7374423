"""`flagstream registry`, `promote` and `rollback`, and the evidence that other commands leave for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.audit.events import is_name
from agent.triage.prompt_evaluation import PromptFigures
from schemas.documents import is_path
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.what_if_report import WhatIf
from streaming.home.settings import Settings
from streaming.home.user import user_name
from streaming.output.facts import show_facts
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json
from streaming.versions.arithmetic import with_arithmetic
from streaming.versions.clients import check_endpoint
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.stages import Entry, VersionStage, version_in

_SHOWN_DIGEST = 12


def register(
    settings: Settings, named: AgentSpec, file: str, who: str | None, why: str, *, as_json: bool
) -> None:
    """Register a version in the sandbox and print where it stands.

    Args:
        named: the spec as it was read.
        file: what it was read from, for errors.
        who: who asks, None for the user of this machine.

    Raises:
        ConfigurationError: the spec, or what it names, cannot be used.
    """
    spec = complete(with_arithmetic(settings, named, named), where=file)
    check_endpoint(spec, file)
    registry = SpecRegistry(settings, spec)
    registry.add(spec, author_of(who, why))
    staged = registry.staged_versions()[spec.version]
    facts = {
        "version": spec.version,
        "stage": staged.stage,
        "digest": spec.digest,
        "file_digest": named.digest,
    }
    show_facts(facts, as_json=as_json)


def list_versions(settings: Settings, spec: AgentSpec, *, as_json: bool) -> None:
    """Print where each version of an agent's spec stands."""
    found = SpecRegistry(settings, spec).staged_versions()
    print_json(listed(found)) if as_json else show_registry(found, Terminal())


def move_along(
    settings: Settings,
    spec: AgentSpec,
    version: str,
    who: str | None,
    why: str,
    allow_endpoint_change: str | None,
    *,
    as_json: bool,
) -> None:
    """Promote a version by one stage and print which versions moved; see SpecRegistry.promote."""
    registry = SpecRegistry(settings, spec)
    entries = registry.promote(version, author_of(who, why), prompt_digest, allow_endpoint_change)
    show_facts(moved(entries), as_json=as_json)


def withdraw(settings: Settings, spec: AgentSpec, who: str | None, why: str, *, as_json: bool) -> None:
    """Withdraw the version promoted last and print which versions moved; see SpecRegistry.rollback."""
    show_facts(moved(SpecRegistry(settings, spec).rollback(author_of(who, why))), as_json=as_json)


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
    model = ruled.model and ruled.model.model_copy(update={"path": str(Path(ruled.model.path).resolve())})
    changes = {"data_sources": sources, "model": model, "policy": _whole(ruled.policy)}
    return ruled.model_copy(update=changes)


def active_beside(settings: Settings, spec: AgentSpec) -> VersionStage | None:
    """Return the version in force where it is another than a spec, else None.

    Raises:
        ConfigurationError: something that the spec names cannot be used.
    """
    active = version_in("active", SpecRegistry(settings, spec).staged_versions())
    if active is None or active.digest == complete(with_arithmetic(settings, spec, spec)).digest:
        return None
    return active


def prompt_digest(spec: AgentSpec) -> str:
    """Return the digest of a spec's prompt as it is now.

    Raises:
        ConfigurationError: it cannot be used.
    """
    return AgentDefinition.of(spec).prompt.digest


def note_replay(settings: Settings, spec: AgentSpec, candidate: AgentSpec, found: WhatIf) -> bool:
    """Keep a candidate's report as evidence; False where its agent is another one or has no registry."""
    registry = SpecRegistry(settings, spec)
    active = version_in("active", registry.staged_versions())
    if active is None or candidate.name != spec.name:
        return False
    whole = complete(with_arithmetic(settings, candidate, spec))
    evidence = replay_evidence(found, active)
    return registry.note("replayed", whole.version, whole.digest, default_author(), evidence)


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
        "matured": {side: asdict(figures) for side, figures in found.matured.items()},
        "alerts_per_day": {
            "published": found.published.alerts_per_day,
            "candidate": found.replayed.alerts_per_day,
        },
        "added": found.added,
        "removed": found.removed,
        "kept": found.kept,
    }


def note_evaluation(settings: Settings, spec: AgentSpec, figures: PromptFigures, *, passed: bool) -> bool:
    """Keep a prompt's evaluation as evidence; False where the agent has no registry."""
    digest = prompt_digest(spec)
    evidence = {
        "prompt": figures.prompt,
        "prompt_digest": digest,
        "model": figures.model,
        "accuracy": figures.accuracy,
        "cases": figures.cases,
        "passed": passed,
    }
    registry = SpecRegistry(settings, spec)
    return registry.note("prompt_evaluated", spec.version, digest, default_author(), evidence)


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


def show_registry(found: Mapping[str, VersionStage], console: Terminal) -> None:
    """Print where each version stands."""
    rows = (
        (
            each.version, each.stage, each.digest[:_SHOWN_DIGEST],
            f"{each.since:%Y-%m-%d %H:%M:%S}", each.who, each.why,
        )
        for each in found.values()
    )  # fmt: skip
    show_table(console, ("version", "stage", "digest", "since", "who", "why"), rows)


def moved(entries: list[Entry]) -> dict[str, object]:
    """Return which version went to which stage, for printing."""
    return {each.version: str(each.stage) for each in entries}


def author_of(who: str | None, why: str) -> Author:
    """Return who does something and why; the user of this machine unless somebody is named."""
    return Author(who or default_author(), why)


def _whole(name: str) -> str:
    return str(Path(name).resolve()) if is_path(name) else name
