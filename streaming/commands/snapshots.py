"""`flagstream snapshot`: spans of history kept as copies, listed and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.spec import AgentSpec
from streaming.audit.access import tell_done
from streaming.definition.agent_definition import AgentDefinition
from streaming.history.replay_runs import ReplaySpan
from streaming.history.snapshot_copy import create_snapshot
from streaming.history.snapshots import drop_snapshot, snapshots
from streaming.home.settings import Settings
from streaming.output.facts import show_facts
from streaming.output.tables import show_table
from streaming.output.terminal import Terminal, print_json, progress_bar
from streaming.store.folders import Folders
from streaming.store.opening import folders_of


def keep_snapshot(
    settings: Settings, spec: AgentSpec, name: str, wanted: ReplaySpan, *, as_json: bool
) -> None:
    """Copy a span and print what was copied.

    Raises:
        ConfigurationError: the span cannot be had, or the name is taken.
    """
    definition = AgentDefinition.of(spec)
    span = wanted.span(wanted.history(settings, spec))
    with progress_bar() as progress:
        task = progress.add_task("copying", total=span.end - span.first)
        made = create_snapshot(
            settings, definition, name, span, lambda rows: progress.update(task, advance=rows)
        )
    tell_done(settings, spec, "snapshot-create", sum(made.rows.values()))
    show_facts(made.facts(), as_json=as_json)


def list_snapshots(settings: Settings, spec: AgentSpec, *, as_json: bool) -> None:
    """Print an agent's snapshots."""
    found = [each.facts() for each in snapshots(_folders(settings, spec))]
    print_json(found) if as_json else _show(found)


def remove_snapshot(settings: Settings, spec: AgentSpec, name: str, *, as_json: bool) -> None:
    """Remove a snapshot.

    Raises:
        ConfigurationError: there is none of this name.
    """
    drop_snapshot(_folders(settings, spec), name)
    tell_done(settings, spec, "snapshot-drop", 0)
    show_facts({"dropped": name}, as_json=as_json)


def _folders(settings: Settings, spec: AgentSpec) -> Folders:
    return folders_of(settings.snapshots(spec.name), settings.spool)


def _show(found: Sequence[Mapping[str, Any]]) -> None:
    rows = (
        (
            each["name"], each["first_sequence"], each["next_sequence"] - 1,
            f"{each['bytes'] / 1e6:.1f}", each["created_at"][:19],
        )
        for each in found
    )  # fmt: skip
    show_table(Terminal(), ("name", "from sequence", "to", "megabytes", "created"), rows)
