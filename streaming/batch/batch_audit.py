"""What the agent tells the audit log: how it was started, and what decided each batch and whom it asked.

All events are derived from what Delta holds, so that after a crash the same ones are derived again. The calls
to a model are those of the ledger, which knows of a question before it is asked: a call that a crashed
attempt made is recorded by the attempt that finishes the batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from agent.audit.events import AuditEvent, EventKind
from agent.triage.triage import TriageResult
from streaming.audit.audit_log import LakeAudit
from streaming.batch.alerting import Alerted, Asked
from streaming.batch.alerts_lane import MOVED
from streaming.batch.audited_calls import AuditedCalls, Settled
from streaming.batch.decision import Decision
from streaming.batch.queries import newest_batch, stamp_of
from streaming.delta.lake import Lake
from streaming.delta.lake_table import LakeTable
from streaming.delta.ledger import ledger_stream
from streaming.delta.pins import CANARY

_DIGESTS = ("spec_digest", "contract_digest", "rules_version", "scoring", "prompt_digest", "policy_digest")
_CONFIGURATION = (*_DIGESTS, "model", "prompt")
_CANARY_DIGEST = "canary_digest"


class BatchAudit:
    """Derives an agent's events and records them, those of a batch in one append.

    Args:
        log: where events are kept.
        lake: the agent's tables.
        agent: the agent's name.
        asks_late: questions are put to the model beside the batches, see asked_late.
    """

    def __init__(self, log: LakeAudit, lake: Lake, agent: str, *, asks_late: bool = False) -> None:
        self._log, self._lake, self._agent, self._asks_late = log, lake, agent, asks_late
        self._pins, self._late = _newest_pins(lake.batches), AuditedCalls()

    def started(self, pins: Mapping[str, Any]) -> None:
        """Record under which configuration the agent has taken over."""
        epoch = self._lake.transactions.epoch
        detail = {"change": "start", "epoch": epoch, **_configuration(pins)}
        source = f"{self._agent}/start"
        self._log.record([AuditEvent("configuration_change", self._agent, detail, source, epoch)])

    def decided(self, decision: Decision, alerted: Alerted, asked: Asked) -> None:
        """Record a batch: what changed since the last, what the policy ruled, who was asked, the outcome."""
        events = [
            *self._decided_by_people(decision),
            *self._changes(decision),
            *self._rulings(decision, alerted, asked),
        ]
        outcome = {
            **alerted.counts(),
            "first_sequence": decision.first_sequence,
            "stored": decision.stored,
            "spec_digest": decision.pins["spec_digest"],
        }
        if not self._asks_late:
            settled = self._settled(AuditedCalls(asked.calls), frozenset())
            events += self._calls(settled, _batch(decision))
        self._log.record([*events, self._event("batch_decided", self._agent, outcome, decision)])
        self._pins = decision.pins

    def asked_late(self, results: Sequence[TriageResult], under_way: frozenset[str]) -> None:
        """Record the questions put to the model beside the batches, those of a round in one append.

        Args:
            results: what has come back in the round, all of it.
            under_way: keys of the questions that are still being asked: what came of them is recorded later.
        """
        self._late.add(Asked.of(results).calls)
        settled = self._settled(self._late, under_way)
        if settled.calls:
            self._log.record(list(self._calls(settled, {})))
            self._late.forget(settled)

    def renew(self) -> None:
        """Open the log anew from time to time."""
        self._log.renew()

    def _event(
        self, kind: EventKind, subject: str, detail: Mapping[str, Any], decision: Decision
    ) -> AuditEvent:
        source = stamp_of(self._agent, decision.query_id)
        return AuditEvent(kind, subject, {**_batch(decision), **detail}, source, decision.batch_id)

    def _changes(self, decision: Decision) -> Iterator[AuditEvent]:
        before, now = _configuration(self._pins or decision.pins), _configuration(decision.pins)
        changed = [name for name in now if before[name] != now[name]]
        if changed:
            detail = {"change": "batch", "changed": changed, **now}
            yield self._event("configuration_change", self._agent, detail, decision)

    def _decided_by_people(self, decision: Decision) -> Iterator[AuditEvent]:
        """Say what somebody has decided about the stream: records given up, alerts that leave elsewhere."""
        if MOVED in decision.pins:
            yield self._event("action", self._agent, {"action": "move_alerts"}, decision)
        if decision.lost is not None:
            detail = {"action": "accept_loss", "why": decision.lost["why"], "lost": decision.lost["records"]}
            yield self._event("action", self._agent, detail, decision)

    def _rulings(self, decision: Decision, alerted: Alerted, asked: Asked) -> Iterator[AuditEvent]:
        for ruling in asked.rulings:
            detail = {
                "model": ruling.model,
                "decision": "allowed" if ruling.allowed else "denied",
                "withheld": ruling.withheld,
                "alerts": alerted.alerts,
            }
            yield self._event("policy_decision", ruling.policy, detail, decision)

    def _settled(self, made: AuditedCalls, under_way: frozenset[str]) -> Settled:
        """Return the questions that the log does not have yet, as far as they are settled."""
        source = ledger_stream(self._agent)
        recorded, newest = self._log.position(source), self._lake.ledger.last_batch(source)
        rows = self._lake.ledger.read("commit", recorded + 1).to_pylist() if newest > recorded else []
        return made.settled(rows, under_way, newest)

    def _calls(self, settled: Settled, about: Mapping[str, Any]) -> Iterator[AuditEvent]:
        """Say what came of questions: those of now are `about` a batch, of others nobody knows which."""
        source = ledger_stream(self._agent)
        for each in settled.calls:
            row, known = each.question, about if each.is_of_now else {}
            prompt = f"{row['prompt_id']}/{row['prompt_version']}"
            detail = {"prompt": prompt, **known, **asdict(each.call)}
            yield AuditEvent("model_call", row["model"], detail, source, settled.through)


def _batch(decision: Decision) -> dict[str, Any]:
    return {"query_id": decision.query_id, "batch_id": decision.batch_id}


def _configuration(pins: Mapping[str, Any]) -> dict[str, Any]:
    canary = pins.get(CANARY, {}).get("spec_digest")
    return {**{name: pins.get(name) for name in _CONFIGURATION}, _CANARY_DIGEST: canary}


def _newest_pins(batches: LakeTable) -> dict[str, Any] | None:
    """Return the pins of the batch closed last, None before the first."""
    newest = newest_batch(batches, ["pins"])
    return None if newest is None else json.loads(newest["pins"])
