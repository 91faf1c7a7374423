"""`flagstream registry`, `promote` and `rollback`, and the evidence that other commands leave for them."""

from __future__ import annotations

from collections.abc import Mapping

from agent.triage.prompt_evaluation import PromptFigures
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json
from streaming.versions.arithmetic import with_arithmetic
from streaming.versions.clients import check_endpoint
from streaming.versions.moving import (
    PromotionOptions,
    author_of,
    complete,
    default_author,
    listed,
    moved,
    promoted_to,
    prompt_digest,
)
from streaming.versions.registry import Author, SpecRegistry
from streaming.versions.stages import (
    VersionStage,
    may_be_withdrawn,
)

_SHOWN_DIGEST = 12


def register(
    agent: PlacedAgent,
    file: str,
    who: str | None,
    why: str,
    *,
    as_json: bool,
    after: tuple[PlacedAgent, str] | None = None,
) -> None:
    """Register a version in the sandbox and print where it stands.

    Args:
        agent: with its spec as it was read.
        file: what it was read from, for errors.
        who: who asks, None for the user of this machine.
        after: the agent with the spec that decides now, and its file: registered first where no version is,
            so that the other one is not active at once.

    Raises:
        ConfigurationError: a spec, or what it names, cannot be used, or `after` is another agent's.
    """
    if after is not None and after[0].name != agent.name:
        raise ConfigurationError(f"is of the agent {after[0].name!r}, not of {agent.name!r}", where="--after")
    if after is not None and not SpecRegistry(agent).entries():
        _add(*after, author_of(who, why))
    registry, spec = _add(agent, file, author_of(who, why))
    staged = registry.staged_versions()[spec.version]
    facts = {
        "version": spec.version,
        "stage": staged.stage,
        "digest": spec.digest,
        "file_digest": agent.spec.digest,
    }
    show_facts(facts, as_json=as_json)


def _add(agent: PlacedAgent, file: str, author: Author) -> tuple[SpecRegistry, AgentSpec]:
    spec = complete(with_arithmetic(agent.spec, agent), where=file)
    check_endpoint(spec, file)
    registry = SpecRegistry(agent.with_spec(spec))
    registry.add(spec, author)
    return registry, spec


def list_versions(agent: PlacedAgent, *, as_json: bool) -> None:
    """Print where each version of an agent's spec stands."""
    found = SpecRegistry(agent).staged_versions()
    print_json(listed(found)) if as_json else show_registry(found, Terminal())


def move_along(
    agent: PlacedAgent,
    version: str,
    author: Author,
    options: PromotionOptions,
    *,
    as_json: bool,
) -> None:
    """Promote a version and print which versions moved; see SpecRegistry.promote.

    Raises:
        ClosedGateError: the evidence does not suffice; stages reached before stay.
        ConfigurationError: no such version, or it is past the stage.
    """
    entries = promoted_to(SpecRegistry(agent), version, author, options)
    show_facts(moved(entries) or {version: str(options.to)}, as_json=as_json)


def withdraw(agent: PlacedAgent, author: Author, *, if_any: bool = False, as_json: bool) -> None:
    """Withdraw the version promoted last and print which versions moved; see SpecRegistry.rollback.

    Args:
        if_any: where no promotion stands, say so and leave it at that.
    """
    registry = SpecRegistry(agent)
    if if_any and not may_be_withdrawn(registry.entries()):
        show_facts({"rolled_back": "nothing: no promotion stands"}, as_json=as_json)
        return
    show_facts(moved(registry.rollback(author)), as_json=as_json)


def note_evaluation(agent: PlacedAgent, figures: PromptFigures, *, passed: bool) -> bool:
    """Keep a prompt's evaluation as evidence; False where the agent has no registry."""
    digest = prompt_digest(agent.spec)
    evidence = {
        "prompt": figures.prompt,
        "prompt_digest": digest,
        "model": figures.model,
        "accuracy": figures.accuracy,
        "cases": figures.cases,
        "passed": passed,
    }
    registry = SpecRegistry(agent)
    return registry.note("prompt_evaluated", agent.spec.version, digest, default_author(), evidence)


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
