"""The real pipeline on real Delta tables, without a JVM: only the broker is left out."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

import polars as pl
import pyarrow as pa

from schemas.contract import load_contract
from schemas.label import GIVEN
from schemas.spec import AgentSpec
from schemas.tables import HEADERS, UTC_MICROS
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.outbox_record import OutboxRecord
from streaming.labels.book import LabelBook
from streaming.run import alerts_end, opening
from streaming.run.observer import UNOBSERVED_RUN, RunObserver
from streaming.versions.clients import Clients

CONTRACT = load_contract("simulator")
DAY = datetime(2026, 5, 1, tzinfo=UTC)
TOPIC = "events"
SILENT: dict[str, Any] = {
    "name": "silent",
    "absence": {"entity": "customer", "after": "amount > 200", "expected": "amount < 10", "within": "2h"},
    "severity": "high",
    "reason": "because",
}
_UNUSUAL = 0.04
LARGE: dict[str, Any] = {"name": "large", "when": "amount > 250", "severity": "high", "reason": "large"}
Given = TypeVar("Given")


class Patch(Protocol):
    """What pytest's `monkeypatch` offers."""

    def setattr(self, target: object, name: str, value: object) -> None:
        """Replace an attribute until the test ends."""


class QuietLane:
    """Stands in for the alerts topic: accepts what is sent, in order."""

    def __init__(self, *_: object, **__: object) -> None:
        self.marker = 0

    def open(self, stored_next: int) -> None:
        """Go on after what is stored."""
        self.marker = stored_next

    def publish(self, records: Iterable[OutboxRecord]) -> int:
        """Accept the records that are new; return how many."""
        sent = [record for record in records if record.outbox_seq >= self.marker]
        self.marker += len(sent)
        return len(sent)

    def keep_marker(self) -> None:
        """Nothing expires here."""

    def close(self) -> None:
        """Nothing is open."""


def without_broker(patch: Patch) -> None:
    """Let agents publish to a QuietLane instead of a broker."""
    patch.setattr(alerts_end, "Publisher", QuietLane)


def agent(**changes: Any) -> AgentSpec:
    """Return a spec that flags about one payment in twenty, and remembers some for a while."""
    given = {
        "name": "tester",
        "version": "1.0.0",
        "data_sources": {"transactions": {"contract": "simulator", "topic": TOPIC}},
        "llm": {"provider": "none"},
        "alerts": {"topic": "alerts"},
        "profiles": {"block_rows": 64, "checkpoint_rows": 150},
        "threshold": 0.96,
        "rules": [LARGE, SILENT],
        **changes,
    }
    return AgentSpec.model_validate(given)


def events(count: int, seed: int = 3) -> list[dict[str, Any]]:
    """Return payments a minute apart, some of them unusual."""
    rng = random.Random(seed)
    return [
        {
            "tx_id": f"t{number:05d}",
            "event_time": (DAY + timedelta(minutes=number)).isoformat(),
            "customer_id": f"c{rng.randint(0, 20)}",
            "terminal_id": f"m{rng.randint(0, 30)}",
            "amount": round(rng.lognormvariate(3, 0.5) * (15 if rng.random() < _UNUSUAL else 1), 2),
            "currency": "EUR",
            "merchant_category": "grocery",
            "country": "DE",
            "memo": None,
        }
        for number in range(count)
    ]


def records(events: Sequence[dict[str, Any]], first_offset: int = 0) -> pa.Table:
    """Return payments as they come from a topic's only partition, stamped by the broker as they happen."""
    count = len(events)
    return pa.table(
        {
            "key": pa.array([each["customer_id"].encode() for each in events], pa.binary()),
            "value": pa.array([json.dumps(each).encode() for each in events], pa.binary()),
            "headers": pa.nulls(count, HEADERS),
            "topic": [TOPIC] * count,
            "partition": pa.array([0] * count, pa.int32()),
            "offset": pa.array(range(first_offset, first_offset + count), pa.int64()),
            "timestamp": pa.array([datetime.fromisoformat(e["event_time"]) for e in events], UTC_MICROS),
        }
    )


def run_live(
    agent: PlacedAgent,
    events: Sequence[dict[str, Any]],
    first_batch: int = 0,
    rows: int = 90,
    llm: str = "none",
    observer: RunObserver = UNOBSERVED_RUN,
) -> None:
    """Run an agent over payments in batches; its stream goes on from `first_batch`."""
    stream = records(events)
    with (
        Clients(agent.settings, llm, watch=observer.calls) as clients,
        opening.open_agent(agent, "127.0.0.1:1", clients, observer=observer.batches) as started,
        observer.working(started, agent.spec),
    ):
        for number, first in enumerate(range(0, stream.num_rows, rows), first_batch):
            part, end = stream.slice(first, rows), {TOPIC: {"0": min(first + rows, stream.num_rows)}}
            started.pipeline.process(partial(_same, part), "live", number, partial(_same, end))


def _same(value: Given) -> Given:
    return value


def judge(agent: PlacedAgent, transactions: Sequence[str], source: str = "test") -> None:
    """Label transactions as frauds; a source says of each of its positions one thing."""
    rows = [
        {"transaction_id": each, "is_fraud": True, "decided_by": "bank", "source_position": place}
        for place, each in enumerate(transactions)
    ]
    book = LabelBook(LakeReader.of(agent).place("labels"), retention=agent.spec.replay_horizon)
    book.record(pa.Table.from_pylist(rows, schema=GIVEN), source=source)


def frame(rows: pa.Table | None) -> pl.DataFrame:
    """Return stored rows."""
    assert rows is not None
    return pl.DataFrame(rows)
