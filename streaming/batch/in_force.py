"""What decides the next batch, renewed between batches and brought up to the next row."""

from __future__ import annotations

from collections.abc import Callable

from schemas.spec import AgentSpec
from streaming.batch.already_alerted import already_alerted
from streaming.batch.deciders import Deciders
from streaming.batch.decision import Decision
from streaming.batch.engine import Engine
from streaming.batch.flagging import Refuses
from streaming.batch.recovery import Recovery, as_pinned
from streaming.delta.stored import StoredTable
from streaming.detection import checkpoints
from streaming.labels.label_pins import LabelPins


class InForce:
    """The deciders in force, and which alerts they leave out because they are on record.

    Args:
        engine: what decides under the spec in force when the agent starts.
        engine_for: builds the engine of another spec.
        renew: gives what decides the next batch, which may be other versions than before.
        recovery: restores what they remember.
        alerts: the table.
    """

    def __init__(
        self,
        engine: Engine,
        engine_for: Callable[[AgentSpec], Engine],
        renew: Callable[[Deciders], Deciders],
        recovery: Recovery,
        alerts: StoredTable,
    ) -> None:
        self.deciders = Deciders(engine)
        self.refuses: Refuses | None = None
        self._engine_for, self._renew = engine_for, renew
        self._recovery, self._alerts = recovery, alerts
        self._compared: Deciders | None = None

    def restore(self, reached: int, pins: LabelPins) -> None:
        """Bring the engine in force to a row, at the start."""
        self._recovery.restore(self.deciders.engine, reached, pins)

    def drop_checkpoints_after(self, reached: int) -> None:
        """Remove checkpoints of rows that are not on record."""
        checkpoints.drop_after(self.deciders.engine.checkpoints.folders, reached)

    def renewed(self, reached: int) -> None:
        """Put in force what decides the next batch, whose first row is `reached`."""
        known = [engine.memory for engine in self.deciders.engines]
        deciders = self._renew(self.deciders).each(lambda engine: self._with_all_patterns(engine, reached))
        for engine in deciders.engines:
            if engine.memory not in known:
                self._bring_up(engine, reached)
        if deciders != self._compared:
            self.refuses, self._compared = self.refuses_of(deciders), deciders
        self.deciders = deciders

    def pinned(self, decision: Decision) -> Deciders:
        """Return what decided a batch, as it was before the batch's first row.

        Raises:
            DataLossError: the code, or a model at the same path, would decide it otherwise now.
        """
        deciders = as_pinned(decision, self.deciders.engine, self._engine_for)
        pins = self._recovery.label_pins().then(decision.labels)
        for engine in deciders.engines:
            self._recovery.restore(engine, decision.first_sequence, pins)
        return deciders

    def let_go(self, deciders: Deciders) -> None:
        """End what finished a batch, but for what is in force."""
        for engine in deciders.engines:
            if engine != self.deciders.engine:
                engine.close()

    def refuses_of(self, deciders: Deciders) -> Refuses | None:
        """Say which alerts these deciders leave out, None where there are none such."""
        known = already_alerted(self._alerts, [engine.memory for engine in deciders.engines])
        return (lambda row, _: row.alert_id in known) if known else None

    def _bring_up(self, engine: Engine, reached: int) -> None:
        checkpoints.drop_after(engine.checkpoints.folders, reached)
        self._recovery.restore(engine, reached, self._recovery.label_pins())
        # Patterns begin with the batch that pins them, whatever a shadow has seen before.
        engine.memory.patterns.keep(self._recovery.patterns_in_force(reached))

    def _with_all_patterns(self, engine: Engine, reached: int) -> Engine:
        """Begin anew with an engine whose memory, another's, lacks what its own rules have waited for."""
        ours = {each.digest for each in engine.decider.rules.patterns} - engine.memory.patterns.digests
        if not ours or engine in self.deciders.engines:
            return engine
        if not ours & self._recovery.patterns_in_force(reached):
            return engine
        return self._engine_for(engine.spec).saved_in(engine.checkpoints.folders)
