"""Builds the engines of an agent's versions."""

from __future__ import annotations

from collections.abc import Callable

from schemas.contract import EventContract
from schemas.spec import AgentSpec
from streaming.batch.engine import Engine
from streaming.definition.agent_definition import AgentDefinition
from streaming.definition.content import keep_model
from streaming.run.claimed import Claimed
from streaming.run.surroundings import Surroundings
from streaming.store.folders import Folders
from streaming.store.opening import folders_of
from streaming.versions.stages import Stage


class Engines:
    """Engines of versions that share an agent's contract, ledger and budget.

    Args:
        around: where trained models lie and whom versions ask.
        contract: what the records mean, under all of them.
        claimed: what its versions share.
    """

    def __init__(self, around: Surroundings, contract: EventContract, claimed: Claimed) -> None:
        self._around, self._contract, self._claimed = around, contract, claimed

    def of(self, spec: AgentSpec) -> Engine:
        """Build the engine of a version that decides the stream."""
        return self.under(self.definition(spec))

    def under(self, definition: AgentDefinition) -> Engine:
        """Build what decides the stream under a definition; its trained model is kept for replays."""
        around, claimed, spec = self._around, self._claimed, definition.spec
        client = around.clients.of(spec)
        engine = Engine.under(
            around.settings, definition, client, claimed.ledger, claimed.budget, around.health
        )
        if around.buckets is not None:
            engine.memory.scorer.hold_in(around.buckets)
        keep_model(spec.model, self._kept_models(spec))
        return engine

    def apart(self, spec: AgentSpec) -> Engine:
        """Build the engine of a version that decides beside the stream: it asks nobody and spends nothing."""
        return Engine.on_rules(self._around.settings, self.definition(spec), self._around.health)

    def definition(self, spec: AgentSpec) -> AgentDefinition:
        """Return what a registered version decides by."""
        return AgentDefinition.pinned(spec, self._contract, self._kept_models(spec))

    def _kept_models(self, spec: AgentSpec) -> Folders:
        settings = self._around.settings
        return folders_of(settings.artefacts(spec.name), settings.spool)


def saved_apart(stage: Stage, engine_for: Callable[[AgentSpec], Engine]) -> Callable[[AgentSpec], Engine]:
    """Have the engines of versions in a stage keep their checkpoints in places of their own."""

    def build(wanted: AgentSpec) -> Engine:
        engine = engine_for(wanted)
        return engine.saved_in(engine.checkpoints.folders.below(f"{stage}-{wanted.digest[:12]}"))

    return build
