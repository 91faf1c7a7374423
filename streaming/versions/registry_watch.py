"""Follows the registry beside the batches: the newest state found waits for whoever begins the next batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.errors import ConfigurationError, FlagstreamError, MachineError
from schemas.spec import AgentSpec
from streaming.delta.table_versions import change_mark
from streaming.home.placed_agent import PlacedAgent
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker, cause_of
from streaming.versions.registry_table import read_entries, registry_place
from streaming.versions.stages import Entry, Stage, VersionStage, staged_versions, version_in

_PAUSE_SECONDS = 1.0
_STORE_PAUSE_SECONDS = 5.0  # each look is a request


@dataclass(frozen=True)
class RegistryState:
    """Where all versions stood at one moment, by version; nothing where the agent has no registry."""

    staged_versions: Mapping[str, VersionStage] = field(default_factory=dict)

    @property
    def active(self) -> AgentSpec | None:
        """The active version, None where the agent has no registry."""
        return self._spec_in("active")

    @property
    def canary(self) -> AgentSpec | None:
        """The version in canary, None where there is none."""
        return self._spec_in("canary")

    @property
    def canary_percent(self) -> float | None:
        """The share that was asked for when a version went into canary, None for the active spec's."""
        staged = version_in("canary", self.staged_versions)
        return None if staged is None else staged.percent

    def _spec_in(self, stage: Stage) -> AgentSpec | None:
        staged = version_in(stage, self.staged_versions)
        return None if staged is None else staged.spec


class RegistryWatch:
    """Keeps the newest state of a registry at hand; a thread looks for another one.

    It does so once a second at most, in a store every five. A registry that cannot be read changes nothing:
    the state last read stays, and a condition says why.

    Args:
        agent: whose registry it is; its table may not be there yet.
        health: has a condition while the registry cannot be read.
    """

    def __init__(self, agent: PlacedAgent, health: Health | None = None) -> None:
        self._place, self._agent = registry_place(agent), agent.name
        self._health = health or Health()
        self._mark: tuple[int, int] | None = None
        self._newest = RegistryState()
        self._worker = Worker("registry", self.round, Condition.REGISTRY_UNREADABLE, self._health, fatal=())

    @property
    def newest(self) -> RegistryState:
        """The state last read: the same object as long as nothing has changed."""
        return self._newest

    def start(self) -> None:
        """Begin to follow the registry."""
        self._worker.start()

    def close(self) -> None:
        """Follow it no longer."""
        self._worker.close()

    def refresh(self) -> RegistryState:
        """Read the registry if it may have changed since the last look, and return its state.

        Raises:
            ConfigurationError: it is another table or another agent's, of a later format, or without its log.
            FlagstreamError: it cannot be read.
        """
        mark = change_mark(self._place, self._mark or (0, 0))
        if mark != self._mark:
            found = RegistryState(staged_versions(self._entries()))
            if self._newest.staged_versions and not found.staged_versions:
                raise MachineError(f"{self._place} is gone or empty: restore the registry")
            self._mark, self._newest = mark, found
        return self._newest

    def _entries(self) -> list[Entry]:
        entries = read_entries(self._place)
        other = next((each.name for each in entries if each.name != self._agent), None)
        if other is not None:
            raise ConfigurationError(
                f"this is the registry of agent {other!r}: put back that of {self._agent!r}",
                where=str(self._place),
            )
        return entries

    def round(self) -> float:
        """Look once; return the seconds until the next look. Faults become a condition."""
        try:
            self.refresh()
        except (FlagstreamError, OSError) as fault:
            said = f"{cause_of(fault)}; the versions last read from it stay in force"
            self._health.begins(Condition.REGISTRY_UNREADABLE, said)
        else:
            self._health.ends(Condition.REGISTRY_UNREADABLE)
        return _PAUSE_SECONDS if self._place.is_local else _STORE_PAUSE_SECONDS


def spec_in_force(agent: PlacedAgent) -> AgentSpec:
    """Return the active version of the agent's registry, `spec` itself where it has none."""
    return RegistryWatch(agent).refresh().active or agent.spec
