"""`flagstream snapshot`: spans of history kept as copies, listed and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from streaming.audit.access import record_done
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.replay_runs import ReplaySpan
from streaming.history.snapshot_copy import create_snapshot
from streaming.history.snapshots import drop_snapshot, snapshots
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json, progress_bar
from streaming.store.folders import Folders
from streaming.store.opening import folders_of


def keep_snapshot(agent: PlacedAgent, name: str, wanted: ReplaySpan, *, as_json: bool) -> None:
    """Copy a span and print what was copied.

    Raises:
        ConfigurationError: the span cannot be had, or the name is taken.
    """
    definition = AgentDefinition.of(agent.spec)
    span = wanted.span(wanted.history(agent))
    with progress_bar() as progress:
        task = progress.add_task("copying", total=span.end - span.first)
        made = create_snapshot(
            agent.settings, definition, name, span, lambda rows: progress.update(task, advance=rows)
        )
    record_done(agent, "snapshot-create", sum(made.rows.values()))
    show_facts(made.facts(), as_json=as_json)


def list_snapshots(agent: PlacedAgent, *, as_json: bool) -> None:
    """Print an agent's snapshots."""
    found = [each.facts() for each in snapshots(_folders(agent))]
    print_json(found) if as_json else _show(found)


def remove_snapshot(agent: PlacedAgent, name: str, *, as_json: bool) -> None:
    """Remove a snapshot.

    Raises:
        ConfigurationError: there is none of this name.
    """
    drop_snapshot(_folders(agent), name)
    record_done(agent, "snapshot-drop", 0)
    show_facts({"dropped": name}, as_json=as_json)


def _folders(agent: PlacedAgent) -> Folders:
    return folders_of(agent.settings.snapshots(agent.name), agent.settings.spool)


def _show(found: Sequence[Mapping[str, Any]]) -> None:
    rows = (
        (
            each["name"], each["first_sequence"], each["next_sequence"] - 1,
            f"{each['bytes'] / 1e6:.1f}", each["created_at"][:19],
        )
        for each in found
    )  # fmt: skip
    show_table(Terminal(), ("name", "from sequence", "to", "megabytes", "created"), rows)
