"""The services an agent brings along, a broker and a local model: started, used, stopped and killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Producer

from agent.model.budget import SpendingBudget
from agent.model.llm_client import LlmClient
from agent.model.local_llm import LocalLlm
from agent.model.model_client import Completion, Question
from agent.model.prompt_files import Messages, load_prompt
from agent.triage.answers import answer_schema
from agent.triage.ledger import Intent, MemoryLedger
from agent.triage.pseudonyms import Pseudonyms
from agent.triage.rule_classifier import RuleClassifier
from agent.triage.triage import POLICIES, FlaggedRow, Triage
from schemas.alert import CATEGORIES, Reason, alert_id
from schemas.llm import Llm, PromptReference
from schemas.policy import load_policy
from schemas.rules import SEVERITIES, Rule
from streaming.home.brokers import connection
from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker
from streaming.kafka.topic import committed_messages
from streaming.kafka.topic_admin import ensure_topic
from tests.noted_ledger import NotedLedger

DEADLINE = timedelta(seconds=60)
CLASSIFIER = RuleClassifier(
    [Rule(name="large", when="amount > 400", severity="high", reason="a large amount")]
)


@pytest.fixture
def broker(settings: Settings) -> Iterator[EmbeddedBroker]:
    broker = EmbeddedBroker.of(settings)
    yield broker
    broker.stop()


@pytest.fixture
def model(tmp_path: Path) -> Iterator[LocalLlm]:
    model = LocalLlm(tmp_path / "llm")
    yield model
    model.stop()


@pytest.fixture
def somebody_else() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours."""
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield child
    child.communicate()


def put(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({**connection(bootstrap), "enable.idempotence": True})
    producer.produce(topic, value)
    assert producer.flush(30) == 0


def values(bootstrap: str, topic: str) -> list[bytes | None]:
    return [message.value() for message in committed_messages(bootstrap, topic)]


def kill(record: Path) -> None:
    process = psutil.Process(json.loads(record.read_text(encoding="utf-8"))["pid"])
    process.kill()
    process.wait(10)


def row(number: int, amount: float = 900.0) -> FlaggedRow:
    reasons = (Reason("amount.customer", 5.0, f"{amount:.2f} EUR is 40 times the usual"),)
    return FlaggedRow(
        alert_id=alert_id("tester", str(number)),
        transaction_id=str(number),
        amount=amount,
        currency="EUR",
        entities={"customer": str(number)},
        event_time=datetime(2024, 5, 1, tzinfo=UTC),
        score=0.999,
        reasons=reasons,
        rules=("large",),
        by_rules=CLASSIFIER.classify(0.999, reasons, ("large",)),
    )


def a_triage(client: LlmClient, llm: Llm, ledger: MemoryLedger) -> Triage:
    return Triage(
        llm,
        load_prompt(PromptReference(), "amount: amount, number"),
        client,
        ledger=ledger,
        budget=SpendingBudget(llm.budget),
        policy=load_policy("default", POLICIES),
        pseudonyms=Pseudonyms(b"k" * 32),
    )


def test_the_embedded_broker_keeps_its_data_when_killed_and_started_again(
    broker: EmbeddedBroker, topic: Callable[[str], str]
) -> None:
    assert broker.status() is None
    assert broker.stop() is False
    first = broker.start()
    assert (broker.start(), broker.status()) == (first, first), "starting twice starts one"
    ensure_topic(first, topic("kept"), 1)
    put(first, topic("kept"), b"one")
    kill(broker.folder / "broker.json")
    assert broker.status() is None
    second = broker.start()
    put(second, topic("kept"), b"two")
    assert values(second, topic("kept")) == [b"one", b"two"]
    assert broker.stop() is True
    assert broker.status() is None


def test_a_recycled_pid_is_neither_taken_for_the_service_nor_ended(
    broker: EmbeddedBroker, model: LocalLlm, somebody_else: subprocess.Popen[bytes]
) -> None:
    started = psutil.Process(somebody_else.pid).create_time()
    facts = {"bootstrap": "127.0.0.1:1", "base_url": "http://127.0.0.1:1/v1"}
    for service, name in ((broker, "broker"), (model, "local-llm")):
        service.folder.mkdir(parents=True, exist_ok=True)
        record = service.folder / f"{name}.json"
        record.write_text(json.dumps({"pid": somebody_else.pid, "started": started, "facts": facts}))
        assert service.status() is not None, "the record is read at all"
        record.write_text(json.dumps({"pid": somebody_else.pid, "started": started - 60, "facts": facts}))
        assert service.status() is None
        assert service.stop() is False
    assert somebody_else.poll() is None


def test_the_local_model_answers_under_the_labels_schema_and_triage_uses_it(model: LocalLlm) -> None:
    assert model.status() is None
    url = model.start()
    assert (model.start(), model.status()) == (url, url)
    llm = Llm(deadline=DEADLINE, max_concurrency=1)
    with LlmClient(llm, base_url=url) as client:
        messages = Messages("You label payments.", "id: abc123. 900 EUR.")
        schema = answer_schema({"abc123": ["amount=900.0", "currency=EUR"]})
        (reply,) = client.ask([Question(messages, schema, max_output_tokens=160, most_tokens=400)], 60)
        assert isinstance(reply, Completion), reply
        answer = json.loads(reply.text)["abc123"]
        assert set(answer["evidence"]) <= {"amount=900.0", "currency=EUR"}
        assert answer["classification"] in CATEGORIES
        assert answer["severity"] in SEVERITIES
        assert reply.input_tokens > 0
        assert reply.output_tokens > 0

        ledger = MemoryLedger()
        rows = [row(number) for number in range(3)]
        result = a_triage(client, llm, ledger).classify(rows)
        again = a_triage(client, llm, ledger).classify(rows)
    assert [each.source for each in result.classifications] == ["llm"] * 3, result.classifications
    assert all(
        SEVERITIES.index(classification.severity) >= SEVERITIES.index("high")
        for classification in result.classifications
    )
    assert (result.calls, result.groups) == (1, 1)
    assert result.input_tokens > 0
    assert (again.calls, again.groups) == (0, 1)
    assert [each.rationale for each in again.classifications] == [
        each.rationale for each in result.classifications
    ]
    assert model.stop() is True
    assert model.status() is None


class LastWords(NotedLedger):
    """Kills the server once a question is on record, before it is asked."""

    def __init__(self, model: LocalLlm) -> None:
        super().__init__()
        self._model = model

    def intend(self, entries: Sequence[Intent]) -> None:
        super().intend(entries)
        kill(self._model.folder / "local-llm.json")


def test_a_model_killed_while_it_is_needed_costs_no_alert_and_no_deadline(model: LocalLlm) -> None:
    llm = Llm(deadline=timedelta(seconds=5), max_concurrency=1)
    rows = [row(0), row(1), row(2, amount=12_000.0)]
    ledger = LastWords(model)
    with LlmClient(llm, base_url=model.start()) as client:
        begun = time.monotonic()
        result = a_triage(client, llm, ledger).classify(rows)
        taken = time.monotonic() - begun
    assert taken < llm.deadline.total_seconds() + 0.5
    assert len(ledger.intents) == 2
    assert [each.source for each in result.classifications] == ["rules"] * 3
    assert {each.fallback_reason for each in result.classifications} == {"unreachable"}
    assert [(each.category, each.severity, each.rationale) for each in result.classifications] == [
        (each.by_rules.category, each.by_rules.severity, each.by_rules.rationale) for each in rows
    ]
    assert model.status() is None
