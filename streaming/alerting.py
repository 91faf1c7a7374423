"""Step 5's input and step 6's output: flagged rows for triage, and the alerts that come of them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from agent.audit import ModelCall, PolicyRuling
from agent.grouping import FlaggedRow
from agent.triage import TriageResult
from schemas.alert import Reason, alert_ids, alerts_table, entities_array, reasons_array
from streaming.engine import SCORE, Engine
from streaming.features import rule_fields
from streaming.scored import ScoredBatch
from streaming.store import Decision

_BY_CHOICE = (None, "llm_off", "policy")


@dataclass(frozen=True)
class Flagged:
    """The rows of a batch that become alerts, in `sequence` order.

    Attributes:
        table: their transactions.
        positions: their row numbers within the batch.
        rows: what triage is told about each.
    """

    table: pa.Table
    positions: npt.NDArray[np.int64]
    rows: list[FlaggedRow]


@dataclass(frozen=True)
class Alerted:
    """What triage made of a batch; kept with the alerts commit and copied to `batches`.

    Attributes:
        degraded: alerts that fell back to the deterministic label although a model was to be asked.
    """

    alerts: int
    llm_calls: int
    llm_alerts: int
    degraded: int
    input_tokens: int
    output_tokens: int
    cost_usd: float

    @classmethod
    def of(cls, result: TriageResult) -> Alerted:
        """Count a triage result."""
        sources = Counter(verdict.source for verdict in result.verdicts)
        return cls(
            alerts=len(result.verdicts),
            llm_calls=result.calls,
            llm_alerts=sources["llm"],
            degraded=sum(verdict.fallback_reason not in _BY_CHOICE for verdict in result.verdicts),
            input_tokens=result.input_tokens,
            output_tokens=result.output_tokens,
            cost_usd=result.cost,
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


@dataclass(frozen=True)
class Asked:
    """What triage asked and was allowed to ask; kept with the alerts commit, for the audit log."""

    calls: tuple[ModelCall, ...] = ()
    ruling: PolicyRuling | None = None

    @classmethod
    def of(cls, result: TriageResult) -> Asked:
        """Take it from a triage result."""
        return cls(result.made, result.ruling)

    def to_metadata(self) -> dict[str, Any]:
        """Return the JSON-serialisable form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_metadata(cls, kept: Mapping[str, Any]) -> Asked:
        """Rebuild it from a commit's metadata."""
        ruling = kept["ruling"]
        calls = tuple(ModelCall(**call) for call in kept["calls"])
        return cls(calls, None if ruling is None else PolicyRuling(**ruling))


def flag(engine: Engine, transactions: pa.Table, scored: ScoredBatch) -> Flagged:
    """Pick the rows at or above the threshold or hit by a rule, with reasons and deterministic label."""
    hits = engine.rules.hits(_with_features(engine, transactions, scored))
    positions = np.flatnonzero((scored.score >= scored.threshold) | hits.any(axis=1))
    table = transactions.take(pa.array(positions))
    ids = alert_ids(engine.spec.name, table["transaction_id"].to_pylist())
    names = tuple(rule.name for rule in engine.rules.rules)
    explained = scored.reasons_of(positions)
    rows = []
    for place, (row, position) in enumerate(zip(table.to_pylist(), positions.tolist(), strict=True)):
        reasons = tuple(explained[place])
        rules = tuple(np.compress(hits[position], names).tolist())
        rows.append(_flagged_row(engine, row, ids[place], float(scored.score[position]), reasons, rules))
    return Flagged(table, positions, rows)


def _with_features(engine: Engine, transactions: pa.Table, scored: ScoredBatch) -> pa.Table:
    """Add what the rules look at beyond the event's own fields; unknown features are null."""
    wanted = [name for name in engine.rules.columns if name not in transactions.column_names]
    if not wanted:
        return transactions
    names, features = engine.scorer.feature_names, scored.features()
    fields = rule_fields(names)
    for name in wanted:
        values = scored.score if name == SCORE else features[:, names.index(fields[name])]
        column = pa.array(values.astype(np.float64), from_pandas=True)
        transactions = transactions.append_column(name, column)
    return transactions


def build_alerts(
    engine: Engine,
    marks: Mapping[str, Any],
    flagged: Flagged,
    scored: ScoredBatch,
    result: TriageResult,
    first_outbox_seq: int,
) -> pa.Table:
    """Return the batch's alerts as rows of schema `ALERTS`, numbered from `first_outbox_seq`.

    Args:
        marks: query_id, batch_id and created_at, the same for all.
    """
    table, at = flagged.table, flagged.positions
    copied = ("transaction_id", "amount", "currency", "event_time", "sequence")
    columns: dict[str, Any] = {
        **{name: table[name] for name in copied},
        **result.columns(),
        "alert_id": [row.alert_id for row in flagged.rows],
        "entities": entities_array({name: table[name] for name in engine.contract.entity_names}),
        "score": scored.score[at],
        "log_odds": scored.log_odds[at],
        "base": scored.base[at],
        "own_evidence": scored.own_evidence()[at],
        "reasons": reasons_array([row.reasons for row in flagged.rows]),
        "rules": [list(row.rules) for row in flagged.rows],
        "outbox_seq": np.arange(first_outbox_seq, first_outbox_seq + table.num_rows),
    }
    constants = {
        **marks,
        "agent": engine.spec.name,
        "spec_version": engine.spec.version,
        "rules_version": engine.rules.version,
    }
    return alerts_table(columns, constants)


def marks_of(decision: Decision) -> dict[str, Any]:
    """Return what marks the alerts of one batch."""
    return {
        "query_id": decision.query_id,
        "batch_id": decision.batch_id,
        "created_at": datetime.fromtimestamp(decision.opened_at / 1_000_000, UTC),
    }


def _flagged_row(
    engine: Engine,
    row: dict[str, Any],
    identifier: str,
    score: float,
    reasons: tuple[Reason, ...],
    rules: tuple[str, ...],
) -> FlaggedRow:
    contract = engine.contract
    return FlaggedRow(
        alert_id=identifier,
        transaction_id=row["transaction_id"],
        amount=row["amount"],
        currency=row["currency"],
        entities={name: row[name] for name in contract.entity_names},
        event_time=row["event_time"],
        score=score,
        reasons=reasons,
        rules=rules,
        label=engine.labeller.label(score, reasons, rules),
        untrusted={name: row[name] for name in contract.untrusted_text if row[name] is not None},
    )
