"""Puts versions of a spec into any stage of a registry, past all gates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from schemas.spec import AgentSpec
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.versions.registry_table import RegistryTable, registry_place
from streaming.versions.registry_watch import RegistryState, RegistryWatch
from streaming.versions.stages import Entry, Event, Stage

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


class Looking(RegistryWatch):
    """A watch that looks whenever it is asked, so that a test need not wait for its thread."""

    @property
    def newest(self) -> RegistryState:
        return self.refresh()


def entry(spec: AgentSpec, stage: Stage, event: Event = "added", at: datetime = NOON) -> Entry:
    """Return what puts a version into a stage."""
    text = spec.model_dump_json()
    return Entry(0, at, event, spec.name, spec.version, spec.digest, stage, text, "anna", "a test")


def put(settings: Settings, *entries: Entry) -> None:
    """Append entries as one action."""
    table = RegistryTable(
        registry_place(PlacedAgent(settings, AgentSpec.model_validate_json(_spec_of(entries)))), _KEPT
    )
    table.write(lambda _: list(entries))


def activate(settings: Settings, spec: AgentSpec, before: AgentSpec | None = None) -> None:
    """Make a version active, in place of another."""
    replaced = [] if before is None else [entry(before, "retired", "replaced")]
    put(settings, entry(spec, "active", "promoted"), *replaced)


def _spec_of(entries: tuple[Entry, ...]) -> str:
    text = entries[0].spec
    assert text is not None
    return text


_KEPT = timedelta(days=30)
