"""Alerts that wait for a late answer, and triage by a scripted server, for tests."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from agent import SPECS
from agent.model.budget import SpendingBudget
from agent.model.circuit_breaker import CircuitBreaker
from agent.model.llm_client import LlmClient
from agent.model.prompt_files import load_prompt
from agent.triage.ledger import MemoryLedger
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import POLICIES, FlaggedRow, Triage, TriageResult
from schemas.alert import Reason, alert_ids
from schemas.alert_table import alerts_table, entities_array, reasons_array
from schemas.contract import load_contract
from schemas.lake_tables import lake_schemas
from schemas.llm import Budget, Llm, PromptReference
from schemas.policy import load_policy
from schemas.rules import Rule
from schemas.spec import load_spec
from streaming.batch.alerts_lane import AlertsLane
from streaming.batch.late_answers import LateAnswers, LateSettings
from streaming.batch.outbox import Outbox
from streaming.delta.lake import Lake
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.kafka.outbox_record import OutboxRecord
from streaming.kafka.publish import Publisher
from streaming.store.place import Place
from streaming.testing import scripted_llm as scripted

SPEC = load_spec(SPECS / "card-fraud.yaml")
NOW = datetime(2024, 5, 1, 12, 0, 0, 500_000, tzinfo=UTC)
LATER = NOW + timedelta(minutes=3)
CLASSIFIER = RuleClassifier([Rule(name="large", when="amount > 1", severity="critical", reason="too large")])
KINDS = (
    (Reason("amount.customer", 5.0, "amount 40x usual"), Reason("rate.terminal", -0.5, "calm")),
    (Reason("rate.terminal", 4.0, "9 in an hour"),),
    (Reason("novelty.customer", 3.0, "never seen"),),
)


def row(number: int, rules: tuple[str, ...] = ()) -> FlaggedRow:
    reasons, score = KINDS[number % 3], 0.99 + (number % 90) / 10_000
    return FlaggedRow(
        alert_id=alert_ids("cards", [f"t{number}"])[0],
        transaction_id=f"t{number}",
        amount=100.0,
        currency="EUR",
        entities={"customer": f"c{number}", "terminal": "m1"},
        event_time=NOW,
        score=score,
        reasons=reasons,
        rules=rules,
        by_rules=CLASSIFIER.classify(score, reasons, rules),
        untrusted={"memo": f"memo {number}"},
    )


ROWS = [row(number) for number in range(30)]
GROUPS = len(KINDS)


@contextmanager
def triage(
    server: scripted.ScriptedLlm,
    *,
    seconds: float = 5.0,
    calls: int = 8,
    mode: str = "deferred",
    ledger: MemoryLedger | None = None,
    tokens: int = 10**9,
    failures: int = 1000,
    concurrency: int = 1,
    groups: int = 1,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Triage]:
    llm = Llm(
        mode=mode,  # type: ignore[arg-type]  # one of two words
        base_url=server.base_url,
        max_concurrency=concurrency,
        groups_per_request=groups,
        deadline=timedelta(seconds=seconds),
        budget=Budget(calls_per_batch=calls, tokens_per_day=tokens),
    )
    with LlmClient(llm, breaker=CircuitBreaker(failures)) as client:
        yield Triage(
            llm,
            load_prompt(PromptReference(), "amount: amount, number"),
            client,
            ledger=ledger or MemoryLedger(),
            budget=SpendingBudget(llm.budget, lambda: NOW),
            policy=load_policy("default", POLICIES),
            pseudonyms=Pseudonyms(b"a key of thirty-two bytes, no less"),
            clock=clock,
        )


def stored_alerts(
    count: int, first: int = 0, reason: str | None = "deferred", rules: tuple[str, ...] = ()
) -> pa.Table:
    rows = [row(number, rules) for number in range(first, first + count)]
    columns = {
        **{name: [None] * count for name in TriageResult(()).columns()},
        "classification": [each.by_rules.category for each in rows],
        "severity": [each.by_rules.severity for each in rows],
        "rationale": [each.by_rules.rationale for each in rows],
        "classification_source": ["rules"] * count,
        "fallback_reason": [reason] * count,
        "alert_id": [each.alert_id for each in rows],
        "transaction_id": [each.transaction_id for each in rows],
        "amount": [each.amount for each in rows],
        "event_time": [each.event_time for each in rows],
        "score": [each.score for each in rows],
        "entities": entities_array(
            {name: [each.entities[name] for each in rows] for name in ("customer", "terminal")}
        ),
        "reasons": reasons_array([each.reasons for each in rows]),
        "rules": [list(each.rules) for each in rows],
        "sequence": [3 * number for number in range(first, first + count)],
        "outbox_seq": list(range(first, first + count)),
    }
    constants = {
        **{"agent": "cards", "spec_version": "1", "rules_version": "1", "query_id": "q", "batch_id": 0},
        **{"currency": "EUR", "base": 0.0, "log_odds": 0.0, "own_evidence": 0.0, "created_at": NOW},
    }
    return alerts_table(columns, constants)


def a_table(folder: Path, name: str, schema: pa.Schema, *parts: pa.Table) -> LakeTable:
    table = LakeTable(Place.local(folder / name), schema, "cards/epoch", timedelta(days=30))
    table.claim(table.epoch + 1)
    for number, part in enumerate(parts):
        table.append(part, Stamp("filled", number))
    return table


class Sent:
    """The lane's end on Kafka: what was published, in memory."""

    def __init__(self) -> None:
        self.marker, self.records = 0, list[OutboxRecord]()

    def open(self, _: int) -> None:
        """Nothing is pending."""

    def publish(self, records: Iterator[OutboxRecord]) -> None:
        self.records += records
        self.marker = len(self.records)

    def close(self) -> None:
        """Nothing to close."""


class Late:
    """A lane with alerts that wait, and what works them off."""

    def __init__(self, folder: Path, asking: Triage, seconds: float = 60.0) -> None:
        schemas = lake_schemas(load_contract("simulator"))
        self.lake = Lake.open(Place.local(folder), SPEC, schemas, retention=timedelta(days=30))
        self.sent, self._batches, self._seconds = Sent(), 0, seconds
        self.outbox = Outbox("cards", self.lake.alerts, cast("Publisher", self.sent), AlertsLane("alerts"))
        self.outbox.open()
        settings = LateSettings(timedelta(days=36500), (), SPEC.alerts.max_bytes)
        abandon = cast("Any", asking)._respondents.first.client.abandon
        self.answers = LateAnswers("cards", self.lake, self.outbox, abandon, settings)
        self.answers.ask_with(asking, {})

    def alert(self, count: int, first: int = 0) -> None:
        """Let a batch's alerts leave."""
        self.outbox.append(stored_alerts(count, first), Stamp("batches", self._batches))
        self._batches += 1

    @property
    def revised(self) -> list[str]:
        rows = self.lake.alerts.read("outbox_seq", 0, columns=["alert_id", "revision"]).to_pylist()
        return [each["alert_id"] for each in rows if each["revision"] == 2]

    def wait(self, enough: Callable[[], bool]) -> None:
        latest = time.monotonic() + self._seconds
        while not enough():
            self.answers.check()
            assert time.monotonic() < latest, "in time"
            time.sleep(0.02)


@contextmanager
def working(folder: Path, asking: Triage, seconds: float = 60.0) -> Iterator[Late]:
    late = Late(folder, asking, seconds)
    try:
        yield late
    finally:
        late.answers.close()


def asked_about(server: scripted.ScriptedLlm) -> Counter[str]:
    """How often each group was asked about, by what was disclosed of it."""
    groups = (each for request in server.requests for each in request.groups.values())
    return Counter(json.dumps(each) for each in groups)
