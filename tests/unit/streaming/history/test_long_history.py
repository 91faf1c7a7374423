"""A long history is held without what each of its batches pins: those texts are long, and few."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from schemas.lake_tables import TABLES
from schemas.spec import AgentSpec
from streaming.delta.lake_reader import AgentLake
from streaming.history.cost import closed_batches
from streaming.history.decided import DecidedHistory
from streaming.history.spans import Span
from streaming.store.place import Place
from streaming.testing.live_lake import agent

_BATCHES, _ROWS, _CHANGE = 40_000, 50, 1_000_000
_MOST_BYTES = 64 << 20


def _pins(severity: str) -> str:
    spec = agent().model_dump(mode="json")
    known = {"spec": spec, "spec_digest": severity, "contract_digest": "c", "rules_version": "r"}
    return json.dumps({**known, "scoring": "s", "model": None, "prompt": "triage/2", "filler": "x" * 4_000})


@pytest.fixture(scope="module")
def spec() -> AgentSpec:
    return agent()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, spec: AgentSpec) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    starts = np.arange(_BATCHES, dtype=np.int64) * _ROWS
    pinned = pa.DictionaryArray.from_arrays(
        pa.array((starts >= _CHANGE).astype(np.int32)), pa.array([_pins("one"), _pins("two")])
    )
    known = {"first_sequence": starts, "next_sequence": starts + _ROWS, "pins": pinned}
    columns = {field.name: _column(field, known) for field in TABLES["batches"].schema}
    write_deltalake(folder / spec.tables.batches, pa.table(columns, TABLES["batches"].schema))
    return folder


def _column(field: pa.Field, known: dict[str, object]) -> pa.Array:
    if field.name in known:
        return pa.array(known[field.name]).cast(field.type)
    zero = "" if pa.types.is_string(field.type) else 0
    fixed = {"durations": '{"score": 0.25}', "versions": "{}"}.get(field.name, zero)
    if field.nullable and field.name not in ("closed_at", "durations", "versions"):
        return pa.nulls(_BATCHES, field.type)
    return pa.repeat(pa.scalar(fixed, field.type), _BATCHES)


def test_many_batches_under_few_pins_take_little_memory(lake: Path, spec: AgentSpec) -> None:
    pool, before = pa.system_memory_pool(), pa.default_memory_pool()
    pa.set_memory_pool(pool)  # whose peak nothing before this has raised
    try:
        history = DecidedHistory(AgentLake(Place.local(lake), spec))
    finally:
        pa.set_memory_pool(before)
    assert history._batches.estimated_size() < _MOST_BYTES
    assert 0 < pool.max_memory() < _MOST_BYTES
    assert [each.span for each in history.pinned(history.whole)] == [
        Span(0, _CHANGE),
        Span(_CHANGE, _BATCHES * _ROWS),
    ]


def test_what_they_cost_is_told_from_the_same(lake: Path, spec: AgentSpec) -> None:
    found = closed_batches(AgentLake(Place.local(lake), spec), compute_price=3_600.0)
    assert found["prompt"].unique().to_list() == ["triage/2"]
    assert float(found["compute_usd"].sum()) == _BATCHES * 0.25
