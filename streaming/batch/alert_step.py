"""Steps 4 to 6 of a batch: its rows are judged, its alerts classified, and appended once."""

from __future__ import annotations

from collections.abc import Sequence

from agent.model.call_watch import asking_about
from schemas.batch_key import BatchKey
from streaming.batch.alerting import Alerted, Asked, marks_of, report_faults, report_rules
from streaming.batch.closing import stamp_for
from streaming.batch.decider import Judged
from streaming.batch.deciders import Decided, Deciders
from streaming.batch.decision import Decision, Stored
from streaming.batch.flagging import Refuses
from streaming.batch.outbox import Outbox
from streaming.batch.steps import BatchStep, Stopwatch
from streaming.delta.lake_table import LakeTable
from streaming.service.health import Health


class AlertStep:
    """Does steps 4 to 6 of batches.

    Args:
        agent: its name.
        alerts: the table, claimed by this driver.
        outbox: what appends to it.
        health: notified when a model or a rule fails.
    """

    def __init__(self, agent: str, alerts: LakeTable, outbox: Outbox, health: Health) -> None:
        self._agent, self._alerts, self._outbox, self._health = agent, alerts, outbox, health

    def alert(
        self, deciders: Deciders, refuses: Refuses | None, stored: Stored, watch: Stopwatch
    ) -> tuple[Sequence[Judged], Alerted, Asked, Decided | None]:
        """Steps 4 to 6; what an earlier attempt has alerted stands."""
        recorded = self._before(stored.decision)
        if recorded is not None:
            with watch.step(BatchStep.SCORE):
                judged = deciders.judge(stored.rows, stored.labels)
            return judged, *recorded, None
        with asking_about([BatchKey(stored.decision.query_id, stored.decision.batch_id)]):
            decided = deciders.decide(stored.rows, stored.labels, refuses, watch.step)
        report_faults(self._health, decided.results)
        report_rules(self._health, decided.judged)
        with watch.step(BatchStep.ALERT):
            alerted, asked = Alerted.of(decided.results, decided.refused), Asked.of(decided.results)
            if alerted.alerts:
                self._append_alerts(stored.decision, decided, alerted, asked)
        return decided.judged, alerted, asked, decided

    def _before(self, decision: Decision) -> tuple[Alerted, Asked] | None:
        stamp = stamp_for(self._agent, decision)
        if self._alerts.last_batch(stamp.app_id) < stamp.batch_id:
            return None
        kept = self._alerts.metadata_of(decision.query_id, decision.batch_id)
        return Alerted(**kept["alerted"]), Asked.from_metadata(kept["asked"])

    def _append_alerts(self, decision: Decision, decided: Decided, alerted: Alerted, asked: Asked) -> None:
        marks = {"query_id": decision.query_id, "batch_id": decision.batch_id}
        metadata = {**marks, "alerted": alerted.to_metadata(), "asked": asked.to_metadata()}
        table = decided.alerts(marks_of(decision))
        self._outbox.append(table, stamp_for(self._agent, decision), metadata)
