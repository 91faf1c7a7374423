"""A small lake of simulated payments, decided by the engine without a stream: what specs are tried on."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pyarrow as pa

from schemas.contract import EventContract
from schemas.label import GIVEN
from schemas.lake_tables import lake_schemas
from streaming.batch.alerting import Alerted, marks_of
from streaming.batch.closing import close_batch, stamp_for
from streaming.batch.deciders import Deciders
from streaming.batch.decision import CurrentBatch, Stored
from streaming.batch.engine import Engine
from streaming.batch.queries import stamp_of
from streaming.batch.store import store
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake import Lake
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import Stamp
from streaming.events.decode import decode
from streaming.events.duplicates import Deduplicator
from streaming.events.record_table import record_table
from streaming.events.simulated_json import json_keys, json_lines
from streaming.events.simulator import SimulatedBlock, Simulator, SimulatorSettings
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import entity_labels_schema
from streaming.labels.label_pins import LabelPin

_START = datetime(2026, 3, 2, tzinfo=UTC)
_TOPIC = "fixture"


@dataclass(frozen=True)
class Fixture:
    """How much is simulated; the same settings give the same lake."""

    rows: int = 12_000
    days: int = 3
    batches: int = 6
    seed: int = 7


def build_fixture(settings: Settings, definition: AgentDefinition, fixture: Fixture) -> None:
    """Decide simulated payments and store everything as an agent would; all frauds are labelled.

    Nothing is published and no model is asked. The lake must not exist.

    Args:
        definition: of an agent of the simulator's contract, complete.
    """
    spec, contract = definition.spec, definition.contract
    agent = PlacedAgent(settings, spec)
    lake = Lake.open(agent.lake, spec, lake_schemas(contract), retention=spec.replay_horizon)
    engine = Engine.on_rules(settings, definition)
    blocks = simulated(fixture)
    writer = _Writer(lake, engine, contract, Deduplicator(contract.duplicates.horizon))
    for number, (block, closed_at) in enumerate(blocks):
        writer.batch(number, block, closed_at)
    engine.close()
    book = LabelBook(
        LakeReader.of(agent).place("labels"),
        retention=spec.replay_horizon,
        clock=lambda: blocks[-1][1],
    )
    for number, (block, _) in enumerate(blocks):
        book.record(_labels(block), source=f"fixture/{number}")


def simulated(fixture: Fixture) -> list[tuple[SimulatedBlock, datetime]]:
    """Return the blocks of a fixture, each with the time at which it ends."""
    simulator = Simulator(
        SimulatorSettings(
            seed=fixture.seed, customers=max(fixture.rows // 60, 1), terminals=max(fixture.rows // 120, 1)
        )
    )
    step = timedelta(days=fixture.days) / fixture.batches
    bounds = [_START + step * number for number in range(fixture.batches + 1)]
    rows = fixture.rows // fixture.batches
    return [(simulator.block(rows, start, end), end) for start, end in pairwise(bounds)]


class _Writer:
    def __init__(self, lake: Lake, engine: Engine, contract: EventContract, duplicates: Deduplicator) -> None:
        self._lake, self._engine, self._contract, self._duplicates = lake, engine, contract, duplicates
        self._query = str(uuid.UUID(int=0))
        self._next, self._watermark, self._offset, self._outbox = 0, 0, 0, 0

    def batch(self, number: int, block: SimulatedBlock, closed_at: datetime) -> None:
        values, keys = json_lines(block), json_keys(block)
        records = record_table(keys, values, topic=_TOPIC, first=self._offset, sent_at=closed_at)
        self._offset += records.num_rows
        decoded = decode(records, self._contract, closed_at)
        stamp = Stamp(stamp_of(self._engine.spec.name, self._query), number)
        batch = CurrentBatch(
            stamp=stamp,
            read=records.num_rows,
            query_id=self._query,
            opened_at=closed_at,
            first_sequence=self._next,
            watermark_us=self._watermark,
            labels=LabelPin(0, 0, 0),
            offsets={_TOPIC: {"0": self._offset}},
            pins=self._engine.decider.pins(),
        )
        stored = store(self._lake, batch, decoded.valid, decoded.rejected, self._duplicates, self._no_labels)
        self._duplicates.commit()
        self._decide(stored, closed_at)

    def _decide(self, stored: Stored, closed_at: datetime) -> None:
        agent, deciders, decision = self._engine.spec.name, Deciders(self._engine), stored.decision
        decided = deciders.decide(stored.rows, stored.labels)
        self._lake.alerts.append(
            self._numbered(decided.alerts(marks_of(decision))), stamp_for(agent, decision)
        )
        close_batch(
            self._lake,
            agent,
            decision,
            Alerted.of(decided.results),
            closed_at=closed_at,
            next_outbox_seq=self._outbox,
        )
        deciders.commit(decided.judged)
        self._next, self._watermark = decision.next_sequence, decision.watermark_us

    def _numbered(self, alerts: pa.Table) -> pa.Table:
        place = alerts.schema.get_field_index("outbox_seq")
        numbers = pa.array(range(self._outbox, self._outbox + alerts.num_rows), pa.int64())
        self._outbox += alerts.num_rows
        return alerts.set_column(place, alerts.schema.field(place), numbers)

    def _no_labels(self, first: int) -> tuple[LabelPin, pa.Table]:
        return LabelPin(first, 0, 0), entity_labels_schema(self._contract.labelled_columns).empty_table()


def _labels(block: SimulatedBlock) -> pa.Table:
    truth = block.labels
    columns: dict[str, pa.Array | Sequence[object]] = {
        "transaction_id": truth["transaction_id"],
        "is_fraud": truth["is_fraud"],
        "kind": truth["fraud_type"],
        "decided_at": block.events["event_time"],
        "decided_by": pa.repeat(pa.scalar("simulator"), truth.num_rows),
        "source_position": pa.array(range(truth.num_rows), pa.int64()),
    }
    return pa.table({field.name: columns[field.name] for field in GIVEN}).cast(GIVEN)
