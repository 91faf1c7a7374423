"""A large lake for benchmarks of the desk: made up, in Delta tables as an agent's are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import say
from benchmarks.made_rows import append_made
from schemas.alert import REASON_TYPE, alert_ids
from schemas.lake_tables import lake_schemas
from schemas.rules import SEVERITIES
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake import Lake
from streaming.home.placed_agent import PlacedAgent

_CHUNK = 250_000
_PAYMENTS_PER_ALERT = 4
_START_US, _STEP_US = 1_777_000_000_000_000, 500_000
# Odd, as every fourth payment has an alert: so every customer has some. Of a million, each comes within a
# week of the one before, so there are as many cases.
_CUSTOMERS, _TERMINALS = 100_001, 20_000
_RULES = ("large", "fast", "abroad", "large fast")
_REASONS = ("amount.customer", "rate.customer", "new.terminal", "risk.terminal")
LISTS: Mapping[str, Mapping[str, str]] = {
    "newest": {},
    "filtered": {"filter": "severity >= high and not (rule = fast or currency = USD) and amount > 100"},
    "by_score": {"order": "score", "filter": "classification != likely_legitimate"},
    "of_a_customer": {"filter": "customer = c17"},
    "of_two_hours": {"filter": "time > 2026-04-24 and time < 2026-04-25T02:00:00Z"},
}


def write_lake(agent: PlacedAgent, alerts: int) -> None:
    """Write so many alerts, and four times as many payments."""
    say(f"writing {alerts:,} alerts and {alerts * _PAYMENTS_PER_ALERT:,} payments")
    contract = AgentDefinition.of(agent.spec).contract
    place = agent.lake
    lake = Lake.open(place, agent.spec, lake_schemas(contract), retention=agent.spec.replay_horizon)
    for number, first in enumerate(range(0, alerts * _PAYMENTS_PER_ALERT, _CHUNK)):
        rows = np.arange(first, min(first + _CHUNK, alerts * _PAYMENTS_PER_ALERT))
        append_made(lake.transactions, number, _payments(rows))
        append_made(lake.alerts, number, _alerts(rows[rows % _PAYMENTS_PER_ALERT == 0]))
        append_made(lake.batches, number, _batch(agent.spec, number, rows))
    for table in (lake.transactions, lake.alerts, lake.batches):
        table.tidy()


def _payments(rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    random = np.random.default_rng(int(rows[0]))
    times = _times(rows)
    return {
        "sequence": rows,
        "transaction_id": _names("t", rows),
        "event_time": times,
        "kafka_timestamp": times,
        "amount": np.round(random.lognormal(3, 1, len(rows)), 2),
        "currency": "EUR",
        "customer": _names("c", rows * 7919 % _CUSTOMERS),
        "terminal": _names("m", rows * 104_729 % _TERMINALS),
        "query_id": "bench",
        "batch_id": int(rows[0]) // _CHUNK,
        "late": False,
    }


def _alerts(rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    ids = [f"t{row}" for row in rows]
    return {
        "alert_version": 1,
        "alert_id": pa.array(alert_ids("bench", ids)),
        "kind": "transaction",
        "agent": "bench",
        "transaction_id": pa.array(ids),
        "event_time": _times(rows),
        "created_at": _times(rows),
        "entities": _entities(rows),
        "spec_version": "1.0.0",
        "rules_version": "1",
        "query_id": "bench",
        "batch_id": int(rows[0]) // _CHUNK,
        "sequence": rows,
        "outbox_seq": rows // _PAYMENTS_PER_ALERT,
        "revision": 1,
        **_judged(rows),
    }


def _entities(rows: np.ndarray[Any, Any]) -> pa.MapArray:
    kinds = pa.array(["customer", "terminal"] * len(rows))
    ids = np.ravel([[f"c{row * 7919 % _CUSTOMERS}", f"m{row * 104_729 % _TERMINALS}"] for row in rows])
    offsets = np.arange(0, 2 * len(rows) + 1, 2, dtype=np.int32)
    return pa.MapArray.from_arrays(offsets, kinds, pa.array(ids.tolist()))


def _judged(rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    random, count = np.random.default_rng(int(rows[0])), len(rows)
    return {
        "amount": np.round(random.lognormal(4, 1, count), 2),
        "currency": pa.array(random.choice(["EUR", "USD", "GBP"], count)),
        "score": np.round(random.uniform(0.99, 1, count), 6),
        "severity": pa.array(random.choice(SEVERITIES, count)),
        "classification": pa.array(
            random.choice(["unusual_spend", "card_testing", "likely_legitimate"], count)
        ),
        "classification_source": "rules",
        "rationale": "the amount is far above what this customer usually pays",
        "rules": pa.array([each.split() for each in random.choice(_RULES, count)]),
        "reasons": pa.array(_reasons(random, count), pa.list_(REASON_TYPE)),
    }


def _reasons(random: np.random.Generator, count: int) -> list[list[dict[str, object]]]:
    first = random.integers(0, len(_REASONS), count)
    return [
        [
            {
                "name": _REASONS[(at + more) % len(_REASONS)],
                "contribution": 3.0 / (more + 1),
                "text": "is unusual",
            }
            for more in range(3)
        ]
        for at in first.tolist()
    ]


def _batch(spec: AgentSpec, number: int, rows: np.ndarray[Any, Any]) -> dict[str, Any]:
    pins = {"spec": spec.model_dump(mode="json"), "model": None, "prompt": "triage/2"}
    return {
        "query_id": "bench",
        "batch_id": np.array([number]),
        "first_sequence": int(rows[0]),
        "next_sequence": int(rows[-1]) + 1,
        "pins": json.dumps(pins),
        "closed_at": _times(rows[-1:]),
    }


def _times(rows: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array(_START_US + rows * _STEP_US).cast(pa.timestamp("us", tz="UTC"))


def _names(letter: str, numbers: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array(np.char.add(letter, numbers.astype(str)).tolist())
