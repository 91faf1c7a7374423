"""What is in force for the next batch: the registry's active version, else a spec with its file of rules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from schemas.errors import ConfigurationError, MachineError
from schemas.spec import AgentSpec
from streaming.batch.engine import Engine
from streaming.rules.rule_file import RuleWatch
from streaming.settings import Settings
from streaming.versions.registry_table import read_entries, registry_path
from streaming.versions.stages import Standing, standing_in, standings

_Mark = tuple[int, int]


class RegistryWatch:
    """Sees changes of a registry by its folder alone, so that looking costs microseconds.

    Args:
        path: folder of the registry, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, (0, 0)
        self._found: dict[str, Standing] = {}

    @property
    def active(self) -> AgentSpec | None:
        """The active version as last seen, None where the agent has no registry."""
        standing = standing_in("active", self._found)
        return None if standing is None else standing.spec

    def look(self) -> dict[str, Standing] | None:
        """Return where all versions stand if that may have changed since the last look, None if not."""
        mark = _mark(self._path / "_delta_log")
        if mark == self._seen:
            return None
        self._seen, self._found = mark, standings(read_entries(self._path))
        return self._found


class Renewal:
    """Gives the engine that decides the next batch.

    A version that scores as the one before goes on from its state. Another one begins anew and has to be
    brought up to the next row; the engine it replaces is kept, so that a rollback has little to catch up on.

    Args:
        rules: the spec's own rules, watched as long as the agent has no registry.
        registry: followed once it has an active version.
        engine_for: builds the engine of a version.
        switched: told of every engine that takes over from another version.
        warm: gives, by digest, the engine of a version that has kept up beside the stream, once.
    """

    def __init__(
        self,
        rules: RuleWatch,
        registry: RegistryWatch,
        engine_for: Callable[[AgentSpec], Engine],
        switched: Callable[[Engine], None] = lambda _: None,
        warm: Callable[[str], Engine | None] = lambda _: None,
    ) -> None:
        self._rules, self._registry, self._engine_for, self._switched = rules, registry, engine_for, switched
        self._warm = warm
        self._replaced: Engine | None = None
        self._told = ""

    def __call__(self, engine: Engine) -> Engine:
        """Return the engine for the next batch, the one given when nothing has changed."""
        try:
            self._registry.look()
            active = self._registry.active
            if active is not None:
                return engine if active.digest == engine.spec.digest else self._switch(engine, active)
        except (ConfigurationError, MachineError) as fault:
            self._tell(f"{fault}; version {engine.spec.version} stays in force\n")
            return engine
        changed = self._rules.changed()
        return engine if changed is None else engine.under(changed)

    def _switch(self, engine: Engine, spec: AgentSpec) -> Engine:
        wanted = self._engine_for(spec)
        at_hand = (engine, self._warm(spec.digest), self._replaced)
        fitting = [each for each in at_hand if each is not None and wanted.scores_as(each)]
        found = fitting[0].going_on_as(wanted) if fitting else wanted
        if found.scorer is not engine.scorer:
            engine.close()
            self._replaced = engine
        self._switched(found)
        self._tell(f"version {spec.version} takes over from {engine.spec.version}\n")
        return found

    def _tell(self, text: str) -> None:
        """Say it on standard error, not once more with every batch."""
        if text != self._told:
            self._told = text
            sys.stderr.write(text)


def spec_in_force(settings: Settings, spec: AgentSpec) -> AgentSpec:
    """Return the active version of the agent's registry, `spec` itself where it has none."""
    watch = RegistryWatch(registry_path(settings, spec))
    watch.look()
    return watch.active or spec


def _mark(folder: Path) -> _Mark:
    """What tells one state of a folder from another: clocks of file systems may stand still for a while."""
    try:
        return folder.stat().st_mtime_ns, sum(1 for _ in folder.iterdir())
    except OSError:
        return 0, 0
