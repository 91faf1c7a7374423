"""History: what a start and a look-up cost in lakes of growing size.

The lake is written in large commits through the one Delta writer, with what each part of a start reads: rows
whose ids are in no order, alerts, labels, closed batches and answers. Profiles are left out: see recovery.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.harness import bench_spec, report, say
from benchmarks.made_rows import append_made
from schemas.instants import utc_now
from schemas.label import GIVEN
from schemas.lake_tables import lake_schemas
from schemas.spec import AgentSpec
from streaming.batch.decision import Decision
from streaming.batch.queries import newest_of_the_stream
from streaming.batch.recovery import Recovery
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake import Lake
from streaming.delta.lake_reader import AgentLake, LakeReader
from streaming.delta.ledger import LakeLedger
from streaming.labels.book import LabelBook
from streaming.labels.entity_labels import EntityLabels
from streaming.labels.label_pins import LabelPin, LabelPins
from streaming.store.place import Place

_COMMIT = 500_000
_BATCH = 2_500
_ALERT_EVERY, _ANSWER_EVERY = 1_000, 5_000
_LOOK_UPS = 20
_START_US = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000
_STEP_US = 20_000
_SCATTER = 0x9E3779B97F4A7C15  # odd, so that no two rows get the same id


@dataclass(frozen=True)
class Costs:
    """Of one lake; `first_look_up_s` makes the index, `cold_look_up_ms` is another process's first."""

    rows: int
    batches: int
    start_s: float
    first_look_up_s: float
    cold_look_up_ms: float
    look_up_ms: float
    answer_ms: float
    resident_mb: float


def measure(rows: int, *, as_json: bool) -> None:
    """Print the costs at a quarter, a half and the whole of so many rows, of one lake as it grows."""
    spec = bench_spec(batch=_BATCH)
    with tempfile.TemporaryDirectory(prefix="flagstream-bench-") as folder:
        place, found = Path(folder), []
        for share in (4, 2, 1):
            say(f"writing up to {rows // share:,} rows")
            _grow(place, spec, rows // share // _COMMIT * _COMMIT)
            found.append(_costs(place, spec, rows // share // _COMMIT * _COMMIT))
            say(str(asdict(found[-1])))
    report({f"at_{each.rows}": asdict(each) for each in found}, as_json=as_json)


def _open(place: Path, spec: AgentSpec) -> Lake:
    contract = AgentDefinition.of(spec).contract
    return Lake.open(Place.local(place), spec, lake_schemas(contract), retention=spec.replay_horizon)


def _grow(place: Path, spec: AgentSpec, rows: int) -> None:
    lake = _open(place, spec)
    for first in range(lake.transactions.next_number("sequence"), rows, _COMMIT):
        _write(lake, spec, first)
    # What maintenance does from time to time, so that files are of the size they have in a running agent.
    for table in lake.tables():
        table.tidy()


def _write(lake: Lake, spec: AgentSpec, first: int) -> None:
    sequence, number = np.arange(first, first + _COMMIT), first // _COMMIT
    times = pa.array(_START_US + sequence * _STEP_US).cast(pa.timestamp("us", tz="UTC"))
    ids = _ids(sequence)
    known = {"sequence": sequence, "transaction_id": ids, "event_time": times, "kafka_timestamp": times}
    last = first + _COMMIT - _BATCH
    append_made(lake.transactions, number, known, _decision(spec, last).to_metadata())
    alerted = slice(None, None, _ALERT_EVERY)
    alerts = {"sequence": sequence[alerted], "transaction_id": _ids(sequence[alerted])}
    outbox = sequence[alerted] // _ALERT_EVERY
    fixed = {"kind": "transaction", "own_evidence": 1.0, "revision": 1}
    append_made(lake.alerts, number, {**alerts, **fixed, "outbox_seq": outbox})
    append_made(lake.batches, number, _closed(spec, first))
    keys = _ids(sequence[::_ANSWER_EVERY])
    answers = {"key": keys, "kind": "answer", "commit": sequence[::_ANSWER_EVERY] // _ANSWER_EVERY}
    said = {"classification": "needs_review", "severity": "low", "rationale": "", "model": "m"}
    prompt = {"prompt_id": "p", "prompt_version": 1, "input_tokens": 1, "output_tokens": 1}
    append_made(lake.ledger, number, {**answers, **said, **prompt})


def _closed(spec: AgentSpec, first: int) -> dict[str, object]:
    starts = np.arange(first, first + _COMMIT, _BATCH)
    ends = starts + _BATCH
    return {
        "query_id": "bench",
        "batch_id": starts // _BATCH,
        "first_sequence": starts,
        "next_sequence": ends,
        "labels_through": starts // _BATCH,
        "labels_below": starts,
        "offsets": pa.array([json.dumps({"bench": {"0": int(end)}}) for end in ends]),
        "pins": json.dumps({"spec": spec.model_dump(mode="json")}, sort_keys=True),
        "closed_at": pa.array(_START_US + ends * _STEP_US).cast(pa.timestamp("us", tz="UTC")),
    }


def _decision(spec: AgentSpec, first: int) -> Decision:
    return Decision(
        query_id="bench",
        batch_id=first // _BATCH,
        opened_at=_START_US,
        first_sequence=first,
        next_sequence=first + _BATCH,
        read=_BATCH,
        quarantined=0,
        duplicates=0,
        late=0,
        watermark_us=_START_US + first * _STEP_US,
        labels_through=0,
        labels_below=0,
        offsets={"bench": {"0": first + _BATCH}},
        pins={"spec": spec.model_dump(mode="json")},
    )


def _ids(sequence: np.ndarray) -> pa.Array:
    return pa.array(sequence.astype(np.uint64) * np.uint64(_SCATTER)).cast(pa.string())


def _costs(place: Path, spec: AgentSpec, rows: int) -> Costs:
    begun = time.perf_counter()
    lake = _open(place, spec)
    entity_labels = _entity_labels(place, spec, lake)
    recovery = Recovery(lake, entity_labels)
    newest = recovery.newest_decision()
    position = recovery.position(newest)
    newest_of_the_stream(lake.batches)
    ledger = LakeLedger(lake.ledger, spec.name, utc_now)
    recovery.recently_read(newest, timedelta(minutes=5))
    started = time.perf_counter() - begun
    assert position.next_sequence == rows
    look_ups = list(_look_ups(entity_labels, rows, 1))
    another = list(_look_ups(_entity_labels(place, spec, lake), rows, 2))
    return Costs(
        rows=rows,
        batches=rows // _BATCH,
        start_s=round(started, 2),
        first_look_up_s=round(look_ups[0], 2),
        cold_look_up_ms=round(another[0] * 1000, 1),
        look_up_ms=round(median(another[1:]) * 1000, 1),
        answer_ms=round(_answer_ms(ledger, rows), 1),
        resident_mb=round(psutil.Process().memory_info().rss / 1e6),
    )


def _entity_labels(place: Path, spec: AgentSpec, lake: Lake) -> EntityLabels:
    contract = AgentDefinition.of(spec).contract
    labels = LakeReader.of(AgentLake(Place.local(place), spec)).place("labels")
    book = LabelBook(labels, retention=spec.replay_horizon)
    return EntityLabels(book, lake.transactions.place, lake.alerts.place, contract.labelled_columns)


def _look_ups(entity_labels: EntityLabels, rows: int, seed: int) -> Iterator[float]:
    """Record labels of rows anywhere, one by one; yield the seconds until what each says is known."""
    for row in np.random.default_rng([rows, seed]).integers(0, rows, _LOOK_UPS):
        before = entity_labels.book.refreshed()
        label = {
            "transaction_id": _ids(np.array([row])),
            "is_fraud": [True],
            "kind": pa.nulls(1, pa.string()),
            "decided_at": pa.nulls(1, pa.timestamp("us", tz="UTC")),
            "decided_by": ["bench"],
            "source_position": [0],
        }
        entity_labels.book.record(
            pa.table({name: label[name] for name in GIVEN.names}).cast(GIVEN), source="bench"
        )
        begun = time.perf_counter()
        pins = LabelPins.of([LabelPin(rows, before, rows), LabelPin(rows, before + 1, rows)])
        found = entity_labels.derive(before, pins)
        yield time.perf_counter() - begun
        assert found.table.num_rows == 1, "every label's transaction is there"


def _answer_ms(ledger: LakeLedger, rows: int) -> float:
    took = []
    for row in np.random.default_rng(rows).integers(0, rows // _ANSWER_EVERY, _LOOK_UPS):
        [key] = _ids(np.array([row * _ANSWER_EVERY])).to_pylist()
        begun = time.perf_counter()
        assert key in ledger.recorded([key])
        took.append(time.perf_counter() - begun)
    return median(took) * 1000
