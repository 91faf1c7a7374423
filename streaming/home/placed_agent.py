"""An agent where it runs: its spec, and the settings that say where its state lies."""

from __future__ import annotations

from typing import NamedTuple

from schemas.spec import AgentSpec
from streaming.home.settings import Settings
from streaming.store.place import Place


class PlacedAgent(NamedTuple):
    """One agent of this home or store.

    Attributes:
        settings: of this process: where state lies, and how brokers, stores and models are reached.
        spec: what the agent is.
    """

    settings: Settings
    spec: AgentSpec

    def with_spec(self, spec: AgentSpec) -> PlacedAgent:
        """Return an agent of another spec in its place."""
        return PlacedAgent(self.settings, spec)

    def with_settings(self, settings: Settings) -> PlacedAgent:
        """Return the same agent under other settings."""
        return PlacedAgent(settings, self.spec)

    @property
    def name(self) -> str:
        """The agent's name, which its tables lie under."""
        return self.spec.name

    @property
    def lake(self) -> Place:
        """Where its Delta tables lie."""
        return self.settings.lake(self.spec.name)
