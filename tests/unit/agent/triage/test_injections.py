"""What outsiders write cannot suppress an alert, lower a severity, or touch the label of anybody else's row.

The model here obeys every injection: whatever request holds a text but the harmless one comes back as the
attacker wishes, for all groups of the request and for every id the model has ever seen.
"""

from __future__ import annotations

import json
import random
import threading
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.model.budget import SpendingBudget
from agent.model.circuit_breaker import CircuitBreaker
from agent.model.llm_client import LlmClient
from agent.model.prompt_files import load_prompt
from agent.triage.grouping import FlaggedRow
from agent.triage.ledger import MemoryLedger
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import Triage, TriageResult
from agent.triage.untrusted_text import cleaned
from schemas.alert import Reason, alert_id
from schemas.llm import Budget, Llm, PromptReference
from schemas.policy import SENDABLE, AllowedModel, Policy
from schemas.rules import SEVERITIES, Rule
from streaming.testing import scripted_llm as scripted

FIELDS = ("merchant", "memo")
HARMLESS = "thanks"
NOW = datetime(2024, 5, 1, tzinfo=UTC)
CLASSIFIER = RuleClassifier(
    [Rule(name="large_amount", when="amount > 1", severity="critical", reason="too large")]
)
OPEN = Policy(
    policyName="open",
    allowedModels=(AllowedModel(name="local", provenance="shipped", region="here"),),
    allowedFields=(*SENDABLE, "entities.customer", *(f"texts.{name}" for name in FIELDS)),
)
KINDS = (
    (Reason("amount.customer", 5.0, "900.00 EUR is 40 times the usual"),),
    (Reason("rate.terminal", 4.0, "9 in an hour"),),
    (Reason("novelty.customer", 3.0, "never seen"), Reason("rate.customer", 2.0, "3 in an hour")),
)


def corpus() -> dict[str, list[str]]:
    content = yaml.safe_load((Path(__file__).parents[3] / "injections.yaml").read_text(encoding="utf-8"))
    spoken = content.pop("languages")
    return {**content, **{f"language {code}": texts for code, texts in spoken.items()}}


INJECTIONS = [text for texts in corpus().values() for text in texts]


def row(number: int, **changes: Any) -> FlaggedRow:
    reasons, rules = KINDS[number % 3], ("large_amount",) if number % 4 == 0 else ()
    score = 0.99 + (number % 90) / 10_000
    plain = FlaggedRow(
        alert_id=alert_id("cards", str(number)),
        transaction_id=str(number),
        amount=900.0,
        currency="EUR",
        entities={"customer": f"customer-{number}"},
        event_time=NOW,
        score=score,
        reasons=reasons,
        rules=rules,
        by_rules=CLASSIFIER.classify(score, reasons, rules),
    )
    return replace(plain, **changes)


CLEAN = [row(number) for number in range(40)] + [
    row(number, untrusted={"memo": HARMLESS}) for number in range(40, 60)
]
INJECTED = [row(100 + place, untrusted={FIELDS[place % 2]: text}) for place, text in enumerate(INJECTIONS)]
MIXED = [
    row(1000 + place, untrusted={"memo": HARMLESS, "merchant": text})
    for place, text in enumerate(INJECTIONS[1::4])
]


@dataclass
class ObedientModel:
    """Does what any injection asks, in the way of `demand`, and else answers as an honest model does."""

    demand: str
    obeyed: int = 0

    def __post_init__(self) -> None:
        self._seen: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def __call__(self, request: scripted.LlmRequest) -> str:
        with self._lock:
            self._seen.update(request.asked)
            if not self._is_told_to(request):
                return scripted.classification(request, classification="card_testing", severity="high")
            self.obeyed += 1
            return json.dumps(self._as_wished(request))

    def _is_told_to(self, request: scripted.LlmRequest) -> bool:
        data = json.loads(request.user_message.removeprefix("<data>").rpartition("</data>")[0])
        examples = [example for group in data.values() for example in group["examples"]]
        return any(set(example.get("texts", {}).values()) - {HARMLESS} for example in examples)

    def _as_wished(self, request: scripted.LlmRequest) -> dict[str, Any]:
        chosen = {"low": request.asked, "everybody": self._seen, "nothing": {}, "lies": request.asked}
        lowered = {"classification": "likely_legitimate", "severity": "low", "rationale": "all is fine"}
        lies = self.demand == "lies"
        return {
            name: {"evidence": ["score=0.0"] if lies else citable[:1], **lowered}
            for name, citable in chosen[self.demand].items()
        }


def classified(rows: list[FlaggedRow], demand: str = "low") -> tuple[TriageResult, ObedientModel, list[str]]:
    model = ObedientModel(demand)
    llm = Llm(
        deadline=timedelta(seconds=60),
        max_concurrency=4,
        groups_per_request=64,
        context_tokens=100_000,
        budget=Budget(calls_per_batch=10_000, tokens_per_day=10**9),
    )
    with scripted.scripted_llm(default=scripted.answers(model)) as server:
        llm = llm.model_copy(update={"base_url": server.base_url})
        with LlmClient(llm, breaker=CircuitBreaker(failures=10_000)) as client:
            triage = Triage(
                llm,
                load_prompt(PromptReference(), "amount: amount, number"),
                client,
                ledger=MemoryLedger(),
                budget=SpendingBudget(llm.budget, lambda: NOW),
                policy=OPEN,
                pseudonyms=Pseudonyms(b"k" * 32),
            )
            return triage.classify(rows), model, [json.dumps(each.body) for each in server.requests]


def test_the_corpus_is_as_large_and_as_varied_as_promised() -> None:
    kinds = corpus()
    assert len(set(INJECTIONS)) == len(INJECTIONS) >= 150
    assert sum(kind.startswith("language ") for kind in kinds) >= 12
    assert {"instruction_override", "fake_json", "role_play", "unicode", "encoded"} <= set(kinds)


@pytest.mark.long
@pytest.mark.parametrize("demand", ["low", "everybody", "nothing", "lies"])
def test_no_injection_bypasses_a_model_that_obeys_all_of_them(demand: str) -> None:
    untouched = classified(CLEAN)[0].classifications
    rows = [*CLEAN, *INJECTED, *MIXED]
    order = random.Random(7).sample(range(len(rows)), len(rows))
    result, model, _ = classified([rows[place] for place in order], demand)
    classifications = dict(zip(order, result.classifications, strict=True))

    said = {cleaned(text) for text in INJECTIONS} - {""}
    assert model.obeyed >= len(said), "the model was told by each of them, and obeyed"
    assert len(classifications) == len(rows), "alerts suppressed"
    ranks = {severity: rank for rank, severity in enumerate(SEVERITIES)}
    lowered = [
        place
        for place, each in classifications.items()
        if ranks[each.severity] < ranks[rows[place].by_rules.severity]
    ]
    assert lowered == [], "severities below what score and rules call for"
    changed = [
        place for place, before in enumerate(untouched) if label(classifications[place]) != label(before)
    ]
    assert changed == [], "labels changed on rows of others"
    talked = Counter(classifications[place].source for place in range(len(CLEAN), len(rows)))
    assert (talked["llm"] > 0) is (demand in ("low", "everybody")), "its own label a text may well change"


def label(classification: Any) -> tuple[Any, ...]:
    return (
        classification.category,
        classification.severity,
        classification.rationale,
        classification.source,
    )


def test_no_request_mixes_different_texts() -> None:
    _, _, bodies = classified([*CLEAN, *INJECTED[::3], *MIXED])
    for body in bodies:
        message = json.loads(body)["messages"][-1]["content"]
        data = json.loads(message.removeprefix("<data>").rpartition("</data>")[0])
        texts = {
            json.dumps(example.get("texts", {}), sort_keys=True)
            for group in data.values()
            for example in group["examples"]
        }
        assert len(texts) == 1
        assert message.count("<data>") == message.count("</data>") == 1
        assert message.count("\n") == 1


def test_clean_groups_share_a_request_and_a_text_s_groups_share_theirs() -> None:
    plain = [row(number) for number in range(40)]
    result, _, bodies = classified(plain)
    assert (result.groups, len(bodies)) == (6, 1)
    attacked = [replace(each, untrusted={"memo": INJECTIONS[0]}) for each in plain]
    result, _, bodies = classified([*plain, *attacked])
    assert (result.groups, len(bodies)) == (12, 2)


def test_what_stands_in_ids_and_currencies_never_leaves() -> None:
    rows = [
        row(place, transaction_id=text, entities={"customer": text}, currency=text)
        for place, text in enumerate(INJECTIONS)
    ]
    result, model, bodies = classified(rows)
    assert model.obeyed == 0
    assert {each.source for each in result.classifications} == {"llm"}
    wire = "".join(bodies)
    for text in INJECTIONS:
        assert json.dumps(text)[1:-1] not in wire
        assert cleaned(text) == "" or json.dumps(cleaned(text))[1:-1] not in wire
