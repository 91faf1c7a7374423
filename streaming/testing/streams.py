"""Small streams of events under the simulator's contract, and what should become of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from confluent_kafka import Producer

from schemas.spec import NEWEST_ARITHMETIC, AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake_reader import AgentLake, HasLake, LakeReader
from streaming.delta.maintenance import tables_below
from streaming.delta.table_versions import open_for_reading
from streaming.delta.whole_tables import read_stored
from streaming.detection.scoring import Scorer
from streaming.home.brokers import connection
from streaming.kafka.topic import committed_messages
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels
from streaming.labels.label_pins import LabelPin, LabelPins
from streaming.rules.patterns import Patterns, Recognised
from streaming.rules.rule_set import RuleSet
from streaming.store.place import Place

_FRAUDS, _UNUSUAL = 0.4, 0.03


@dataclass
class Stream:
    """Sends events round by round and remembers what it sent.

    Every round holds valid events, some malformed ones, and redeliveries of events sent before. `busy` is the
    share of events that one customer has beside the others.
    """

    bootstrap: str
    topic: str
    seed: int = 11
    sent_ids: list[str] = field(default_factory=list)
    malformed: int = 0
    redelivered: int = 0
    busy: float = 0.0
    _events: list[bytes] = field(default_factory=list)

    def send(self, count: int) -> None:
        """Send `count` valid events, 3 malformed ones and 2 redeliveries."""
        rng = random.Random(self.seed + len(self.sent_ids))
        fresh = [self._event(rng) for _ in range(count)]
        again = rng.sample(self._events, 2) if self._events else []
        broken = [b'{"tx_id": "cut', b"\xff\xfe", b'{"tx_id": "x"}']
        self._events += fresh
        self.malformed += len(broken)
        self.redelivered += len(again)
        mixed = fresh + again + broken
        rng.shuffle(mixed)
        self._produce(mixed)

    def judge(self, topic: str, count: int) -> None:
        """Send labels on `count` events sent before, and one on an event that never was."""
        rng = random.Random(self.seed + len(self.sent_ids))
        chosen = rng.sample(self.sent_ids, count)
        labels = [
            {"transaction_id": each, "is_fraud": rng.random() < _FRAUDS} for each in (*chosen, "unheard-of")
        ]
        producer = Producer({**connection(self.bootstrap), "enable.idempotence": True})
        for label in labels:
            producer.produce(topic, json.dumps(label).encode())
        assert producer.flush(30) == 0

    def _event(self, rng: random.Random) -> bytes:
        number = len(self.sent_ids)
        identifier = f"t{number:06d}"
        self.sent_ids.append(identifier)
        moment = datetime.now(UTC) - timedelta(hours=6) + timedelta(seconds=number - rng.randint(0, 20))
        unusual = rng.random() < _UNUSUAL
        customer = "busy" if self.busy and rng.random() < self.busy else f"c{rng.randint(0, 40)}"
        event = {
            "tx_id": identifier,
            "event_time": moment.isoformat(),
            "customer_id": customer,
            "terminal_id": f"m{rng.randint(0, 60)}",
            "amount": round(rng.lognormvariate(3, 0.5) * (40 if unusual else 1), 2),
            "currency": "EUR",
            "merchant_category": "grocery",
            "country": "DE",
            "memo": "thank you",
        }
        return json.dumps(event).encode()

    def _produce(self, values: Iterable[bytes]) -> None:
        producer = Producer({**connection(self.bootstrap), "enable.idempotence": True})
        for place, value in enumerate(values):
            producer.produce(self.topic, value, str(place % 7).encode())
        assert producer.flush(30) == 0


def write_spec(
    folder: Path,
    topic: Callable[[str], str],
    *,
    version: str = "1.0.0",
    limit: int = 400,
    labels: str | None = None,
    **changes: object,
) -> Path:
    """Write a spec over the simulator's contract that flags about one event in twenty."""
    content = {
        "name": "tester",
        "version": version,
        "data_sources": {
            "transactions": {"contract": "simulator", "topic": topic("events"), "max_records_per_batch": 400},
            "labels": {"topic": labels},
        },
        "profiles": {"block_rows": 64, "checkpoint_rows": 500},
        "threshold": 0.95,
        "arithmetic": NEWEST_ARITHMETIC,
        "rules": [
            {"name": "large", "when": f"amount > {limit}", "severity": "high", "reason": "a large amount"}
        ],
        "llm": {"provider": "none"},
        "alerts": {"topic": topic("alerts")},
        **changes,
    }
    path = folder / f"spec-{version}.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def stored(lake: Place, table: str, order: str) -> pa.Table:
    """Read a whole table, sorted."""
    rows = read_stored(lake / table)
    assert rows is not None, f"there is no table {table}"
    return rows.sort_by(order)


def versions(lake: Place) -> dict[str, int]:
    """Return the version of every table."""
    opened = [(each.name, open_for_reading(each)) for each in tables_below(lake)]
    return {name: table.version() for name, table in opened if table is not None}


def published(bootstrap: str, topic: str) -> list[dict[str, object]]:
    """Return every committed alert on a topic, in order."""
    return [json.loads(message.value() or b"") for message in committed_messages(bootstrap, topic)]


def labels_by_row(agent: HasLake) -> pa.Table:
    """Derive anew which labels which row was the first to know."""
    reader, spec = LakeReader.of(agent), agent.spec
    labelled = AgentDefinition.of(spec).contract.labelled_columns
    batches = stored(agent.lake, spec.tables.batches, "first_sequence")
    columns = ("first_sequence", "labels_through", "labels_below")
    pins = sorted(
        LabelPin(*row) for row in zip(*(batches[name].to_pylist() for name in columns), strict=True)
    )
    book = LabelBook(reader.place("labels"), retention=spec.replay_horizon)
    folders = reader.place("transactions"), reader.place("alerts")
    return EntityLabels(book, *folders, labelled).derive(0, LabelPins.of(pins)).table


def folded_patterns(spec: AgentSpec, transactions: pa.Table) -> Recognised:
    """Look for sequences and absences in the recorded sequence in one go."""
    contract, arithmetic = AgentDefinition.of(spec).contract, spec.arithmetic_in_force
    rules = RuleSet.compile(spec.rules, contract.arrow_schema(), contract.entity_names, arithmetic)
    held = rules.held(transactions)
    return Patterns().advance(
        rules.patterns, transactions, held.starts, held.ends, lambda rows: transactions.take(pa.array(rows))
    )


def folded_scores(
    spec: AgentSpec, transactions: pa.Table, lake: Place | None = None
) -> dict[str, tuple[float, float]]:
    """Score the recorded sequence in one go: transaction id → (score, log-odds) of every flagged row."""
    contract = AgentDefinition.of(spec).contract
    labels = None if lake is None else labels_by_row(AgentLake(lake, spec))
    scored = Scorer.under(spec, contract).score(transactions, labels)
    hits = RuleSet.compile(spec.rules, contract.arrow_schema(), contract.entity_names).hits(transactions)
    raised = (scored.score >= spec.threshold) | hits.any(axis=1)
    for each in folded_patterns(spec, transactions).completed:
        raised[each.positions] = True
    flagged = np.flatnonzero(raised)
    ids = transactions["transaction_id"].take(pa.array(flagged)).to_pylist()
    return {
        identifier: (float(scored.score[row]), float(scored.log_odds[row]))
        for identifier, row in zip(ids, flagged, strict=True)
    }
