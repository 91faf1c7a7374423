"""`flagstream erase`: a random token takes the place of an entity's id, and its texts are removed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from schemas.counts import count_of
from schemas.documents import is_path
from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from streaming.audit.access import record_read
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.erasure_plan import Erasable
from streaming.erasure.erasing import Erased, Erasure
from streaming.home.placed_agent import PlacedAgent
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json
from streaming.versions.registry import Author

_COMMAND = "erase"


def erase(
    agent: PlacedAgent,
    named: Sequence[str],
    author: Author,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Erase entities and print what was changed; with `dry_run` only count.

    Args:
        named: `entity=id` each.

    Raises:
        ConfigurationError: the policy does not allow it, or see Erasure.run.
    """
    wanted = wanted_of(named)
    erasure = Erasure(agent)
    if dry_run:
        record_read(agent, _COMMAND, [agent.spec.tables.transactions, agent.spec.tables.alerts])
        found = erasure.trial(wanted)
    else:
        _check_allowed(agent.spec)
        found = erasure.run(wanted, author.who, author.why)
    if as_json:
        print_json(facts_of(found, dry_run=dry_run))
    else:
        _show(found, wanted, Terminal(), dry_run=dry_run)


def wanted_of(named: Sequence[str]) -> list[Erasable]:
    """Return the entities that are meant.

    Raises:
        ConfigurationError: a text is not `entity=id`, or one is given twice.
    """
    found = [Erasable(*each.partition("=")[::2]) for each in named]
    if not found or not all(each.entity and each.id for each in found) or len(set(found)) < len(found):
        raise ConfigurationError("expected entity=id, such as customer=c42, each once", where="--entity")
    return found


def facts_of(found: Erased, *, dry_run: bool) -> dict[str, Any]:
    """Return what an erasure came to, JSON-serialisable."""
    return {**asdict(found), "dry_run": dry_run}


def _check_allowed(spec: AgentSpec) -> None:
    policy = AgentDefinition.of(spec).policy
    if not policy.erasure:
        advice = (
            "let its owner add `erasure: true` to it"
            if is_path(spec.policy)
            else "it comes with flagstream, so name a file of your own in the spec, with `erasure: true`"
        )
        raise ConfigurationError(
            f"the policy {policy.policyName!r} does not allow erasures: {advice}; "
            "--dry-run counts without it",
            where="policy",
            key="erasure",
        )


def _show(found: Erased, wanted: Sequence[Erasable], console: Terminal, *, dry_run: bool) -> None:
    would = "would be" if dry_run else "were"
    rows = sum(found.rows.values())
    copies, states = count_of(found.snapshots, "snapshot"), count_of(found.checkpoints, "checkpoint")
    show_text(
        console, f"{count_of(rows, 'row')} {would} changed; {copies} and {states} {would} written anew."
    )
    if found.rows:
        show_table(console, ("table", "rows"), [(name, str(count)) for name, count in found.rows.items()])
    for text in (*_tokens(found, wanted), *_left(found)):
        show_text(console, text)


def _tokens(found: Erased, wanted: Sequence[Erasable]) -> Iterator[str]:
    """Say what stands for whom; a token in the place of nothing is not told."""
    for each, token in zip(wanted, found.tokens, strict=False):
        if "=".join(each) not in found.unknown:
            yield f"In the place of the id of the {each.entity} stands {token}, which nothing leads to."


def _left(found: Erased) -> Iterator[str]:
    for each in found.unknown:
        yield f"No stored transaction names {each}: is it spelt as it stands there?"
    for table, count in found.kept.items():
        names, stay = ("names", "stays") if count == 1 else ("name", "stay")
        rows = count_of(count, "row")
        yield f"{rows} of {table} {names} it and {stay}: see docs/retention-and-erasure.md."
    if found.young:
        files = count_of(found.young, "file")
        yield f"{files} younger than a minute were left: enter the command once more after that."
