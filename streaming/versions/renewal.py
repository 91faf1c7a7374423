"""What is in force for the next batch: the registry's active version, else a spec with its file of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from schemas.errors import ConfigurationError, MachineError
from schemas.spec import AgentSpec
from streaming.batch.deciders import Canary, Deciders
from streaming.batch.engine import Engine
from streaming.output.log import log
from streaming.rules.rule_file import RuleWatch
from streaming.versions.registry_watch import RegistryState, RegistryWatch


class Renewal:
    """Gives what decides the next batch: the version in force, and the one that stands in canary.

    A version that scores as the one before goes on from its state. Another one begins anew and has to be
    brought up to the next row; the engine it replaces is kept, so that a rollback has little to catch up on.
    A canary always has a state of its own.

    Args:
        rules: the spec's own rules, watched as long as the agent has no registry.
        registry: its newest state counts once it has an active version; somebody else looks for a newer one.
        engine_for: builds the engine of a version.
        canary_for: builds that of a version in canary, which keeps its checkpoints apart.
        switched: called with what decides from now on, whenever that has changed.
        warm: gives, by digest, the engine of a version that has kept up beside the stream, once.
    """

    def __init__(
        self,
        rules: RuleWatch,
        registry: RegistryWatch,
        engine_for: Callable[[AgentSpec], Engine],
        canary_for: Callable[[AgentSpec], Engine],
        switched: Callable[[Deciders], None] = lambda _: None,
        warm: Callable[[str], Engine | None] = lambda _: None,
    ) -> None:
        self._rules, self._registry, self._engine_for = rules, registry, engine_for
        self._canary_for, self._switched, self._warm = canary_for, switched, warm
        self._replaced: Engine | None = None
        self._logged = ""

    def __call__(self, deciders: Deciders) -> Deciders:
        """Return what decides the next batch, the same where nothing has changed."""
        state = self._registry.newest
        try:
            if state.active is not None:
                return self._as_registered(deciders, state.active, state)
        except (ConfigurationError, MachineError) as fault:
            spec = deciders.engine.spec
            self._log_once("version_unusable", f"{fault}; version {spec.version} stays in force", spec)
            return deciders
        changed = self._rules.changed()
        return deciders if changed is None else replace(deciders, engine=deciders.engine.with_rules(changed))

    def _as_registered(self, deciders: Deciders, active: AgentSpec, state: RegistryState) -> Deciders:
        wanted, percent = state.canary, state.canary_percent or active.promotion.canary_percent
        found, before = deciders.engine, deciders.canary
        if active.digest != found.spec.digest:
            found = self._switch(deciders, active)
        canary = None if wanted is None else Canary(self._beside(found, before, wanted), percent)
        renewed = Deciders(found, canary)
        if renewed != deciders:
            self._let_go(before, renewed)
            self._switched(renewed)
        return renewed

    def _switch(self, deciders: Deciders, spec: AgentSpec) -> Engine:
        engine, canary = deciders.engine, deciders.canary
        wanted = self._engine_for(spec)
        own = canary.engine if canary is not None and canary.engine.spec.digest == spec.digest else None
        ready = (own, engine, self._warm(spec.digest), self._replaced)
        fitting = [each for each in ready if each is not None and wanted.scores_as(each)]
        found = fitting[0].continued_as(wanted) if fitting else wanted
        if found.memory is not engine.memory:
            engine.close()
            self._replaced = engine
        self._log_once(
            "version_active", f"version {spec.version} takes over from {engine.spec.version}", spec
        )
        return found

    def _beside(self, engine: Engine, before: Canary | None, spec: AgentSpec) -> Engine:
        if before is not None and before.engine.spec.digest == spec.digest:
            return before.engine
        wanted, warm = self._canary_for(spec), self._warm(spec.digest)
        text = f"version {spec.version} decides a share beside {engine.spec.version}"
        self._log_once("version_in_canary", text, spec)
        if warm is not None and wanted.scores_as(warm):
            return warm.continued_as(wanted)
        if wanted.scores_as(engine):
            wanted.memory.restore(engine.memory.snapshot())
        return wanted

    def _let_go(self, before: Canary | None, renewed: Deciders) -> None:
        """Remove the checkpoints of a version that is in canary no more."""
        if before is None or (renewed.canary is not None and renewed.canary.engine == before.engine):
            return
        before.engine.close()
        before.engine.checkpoints.folders.drop_all()

    def _log_once(self, event: str, text: str, spec: AgentSpec) -> None:
        """Log it, not once more with every batch."""
        if text != self._logged:
            self._logged = text
            log(event, text, agent=spec.name, version=spec.version)
