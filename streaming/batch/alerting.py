"""Step 6's output: the alerts that come of flagged rows and what triage said of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from agent.audit.events import ModelCall, PolicyRuling
from agent.triage.triage import TriageResult
from schemas.alert_size import fitted
from schemas.alert_table import alerts_table, entities_array, reasons_array
from schemas.event_columns import DIRECTION
from schemas.instants import moment_of
from streaming.batch.decider import OURS, Decider, Judged
from streaming.batch.decision import Decision
from streaming.batch.flagging import Flagged
from streaming.service.health import Condition, Health

_BY_CHOICE = (None, "llm_off", "policy", "deferred")
_OF_THE_TRANSACTION = ("transaction_id", "amount", "currency", "event_time", "sequence")
_OF_THE_SCORE = ("score", "log_odds", "base", "own_evidence")


@dataclass(frozen=True)
class Alerted:
    """What triage made of a batch; kept with the alerts commit and copied to `batches`.

    Attributes:
        degraded: alerts that fell back to the classification by rules although a model was to be asked.
        refused: ids of alerts that are on record already; see streaming.batch.already_alerted.
    """

    alerts: int
    llm_calls: int
    llm_alerts: int
    degraded: int
    input_tokens: int
    output_tokens: int
    cost_usd: float
    refused: tuple[str, ...] = ()

    @classmethod
    def of(cls, results: Sequence[TriageResult], refused: tuple[str, ...] = ()) -> Alerted:
        """Count what the triage of each engine gave."""
        classifications = [each for result in results for each in result.classifications]
        return cls(
            alerts=len(classifications),
            llm_calls=sum(result.calls for result in results),
            llm_alerts=sum(each.source == "llm" for each in classifications),
            degraded=sum(each.fallback_reason not in _BY_CHOICE for each in classifications),
            input_tokens=sum(result.input_tokens for result in results),
            output_tokens=sum(result.output_tokens for result in results),
            cost_usd=sum(result.cost for result in results),
            refused=refused,
        )

    @property
    def status(self) -> str:
        """`ok` without alerts, `alert` with, `degraded` when one went without the model it was meant for."""
        if self.alerts == 0:
            return "ok"
        return "degraded" if self.degraded else "alert"

    def to_metadata(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return dataclasses.asdict(self)

    def counts(self) -> dict[str, Any]:
        """Return the numbers alone."""
        return {name: value for name, value in self.to_metadata().items() if name != "refused"}


@dataclass(frozen=True)
class Asked:
    """What triage asked and was allowed to ask; kept with the alerts commit, for the audit log."""

    calls: tuple[ModelCall, ...] = ()
    rulings: tuple[PolicyRuling, ...] = ()

    @classmethod
    def of(cls, results: Sequence[TriageResult]) -> Asked:
        """Take it from what the triage of each engine gave."""
        calls = tuple(call for result in results for call in result.made)
        return cls(calls, tuple(result.ruling for result in results if result.ruling is not None))

    def to_metadata(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_metadata(cls, kept: Mapping[str, Any]) -> Asked:
        """Rebuild it from a commit's metadata."""
        calls = tuple(ModelCall(**call) for call in kept["calls"])
        return cls(calls, tuple(PolicyRuling(**ruling) for ruling in kept["rulings"]))


def report_faults(health: Health, results: Sequence[TriageResult]) -> None:
    """Say which alerts triage could not handle; it is over once groups are handled without."""
    faults = dict.fromkeys(fault for result in results for fault in result.faults)
    if faults:
        health.begins(Condition.TRIAGE_FAULTY, "; ".join(faults))
    elif any(result.groups for result in results):
        health.ends(Condition.TRIAGE_FAULTY)


def report_rules(health: Health, judged: Sequence[Judged]) -> None:
    """Say which rules could not be judged for some payments; it is over once all can be."""
    rules = dict.fromkeys(name for each in judged for name in each.unjudged)
    if rules:
        named = ", ".join(rules)
        health.begins(Condition.RULE_FAILING, f"{named}: not judged for payments on which a condition fails")
    elif any(len(each.scored) for each in judged):
        health.ends(Condition.RULE_FAILING)


def build_alerts(
    decider: Decider,
    marks: Mapping[str, Any],
    flagged: Flagged,
    result: TriageResult,
) -> pa.Table:
    """Return the batch's alerts as rows of schema `ALERTS`, numbered from 0; the outbox numbers them on.

    None is larger than the spec's topic admits.

    Args:
        marks: query_id, batch_id and created_at, the same for all.
    """
    table = flagged.table
    columns: dict[str, Any] = {
        **{name: table[name] for name in _OF_THE_TRANSACTION},
        **{name: table[f"{OURS}{name}"] for name in _OF_THE_SCORE},
        **result.columns(),
        "alert_id": [row.alert_id for row in flagged.rows],
        "kind": flagged.kinds,
        "entities": entities_array({name: table[name] for name in decider.contract.entity_names}),
        "reasons": reasons_array([row.reasons for row in flagged.rows]),
        "rules": [list(row.rules) for row in flagged.rows],
        "rule_texts": flagged.texts,
        "passed_by": flagged.passed_by,
        "outbox_seq": np.arange(table.num_rows),
        **({DIRECTION: table[DIRECTION]} if decider.contract.has_direction else {}),
    }
    constants = {
        **marks,
        "agent": decider.spec.name,
        "spec_version": decider.spec.version,
        "rules_version": decider.rules.version,
    }
    return fitted(alerts_table(columns, constants), decider.spec.alerts.max_bytes)


def marks_of(decision: Decision) -> dict[str, Any]:
    """Return what marks the alerts of one batch."""
    return {
        "query_id": decision.query_id,
        "batch_id": decision.batch_id,
        "created_at": moment_of(decision.opened_at),
    }
