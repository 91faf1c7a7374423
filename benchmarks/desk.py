"""The desk: how long lists, alerts, cases and pages of the console take over HTTP, with many in the lake.

The lake is made up and lies in Delta tables as an agent's does; the server is asked in its own process, by
requests that pass all its layers, without a socket.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import pyarrow as pa

from agent.audit.events import AuditEvent
from benchmarks.harness import bench_spec, report, say
from benchmarks.made_rows import append_made
from schemas.alert import REASON_TYPE, alert_ids
from schemas.rules import SEVERITIES
from schemas.spec import AgentSpec
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.batch.compose import lake_schemas
from streaming.console.console import server_with_console
from streaming.definition.agent_definition import AgentDefinition
from streaming.delta.lake import Lake
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.serve.api import Reach, Server
from streaming.serve.served_agent import ServedAgent
from streaming.tokens.bearer import draw
from streaming.tokens.token_table import TokenTable

_CHUNK = 250_000
_PAYMENTS_PER_ALERT = 4
_START_US, _STEP_US = 1_777_000_000_000_000, 500_000
_WARM, _ROUNDS = 5, 200
_CUSTOMERS, _TERMINALS = 26_000, 20_000  # a hundred thousand cases of a million alerts
_RULES = ("large", "fast", "abroad", "large fast")
_REASONS = ("amount.customer", "rate.customer", "new.terminal", "risk.terminal")
_LISTS: Mapping[str, Mapping[str, str]] = {
    "newest": {},
    "filtered": {"filter": "severity >= high and not (rule = fast or currency = USD) and amount > 100"},
    "by_score": {"order": "score", "filter": "classification != likely_legitimate"},
    "of_a_customer": {"filter": "customer = c17"},
    "of_two_hours": {"filter": "time > 2026-04-24 and time < 2026-04-25T02:00:00Z"},
}


def measure(alerts: int, *, as_json: bool) -> None:
    """Print the milliseconds of lists and pages, what pages weigh, and the server's memory."""
    with tempfile.TemporaryDirectory(prefix="flagstream-bench-") as folder:
        settings, spec = Settings.load(Path(folder), {}), bench_spec(batch=1_000)
        say(f"writing {alerts:,} alerts and {alerts * _PAYMENTS_PER_ALERT:,} payments")
        _write(PlacedAgent(settings, spec), alerts)
        report(asyncio.run(_figures(PlacedAgent(settings, spec))), as_json=as_json)


async def _figures(placed: PlacedAgent) -> dict[str, object]:
    drawn = draw()
    TokenTable(placed).add(drawn, "bench", ["read"], 1_000_000, None, "bench")
    LakeAudit(AuditPlaces(placed), placed.spec.replay_horizon).record(
        [AuditEvent("action", "bench", {"command": "bench"}, "command/bench", 0)]
    )
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    server = server_with_console([ServedAgent(placed)], Reach())
    agent = server.agents[placed.name]
    agent.inbox.refresh()
    found: dict[str, object] = {
        "alerts": agent.inbox.view.rows,
        "read_s": round(time.perf_counter() - begun, 1),
        "inbox_mib": round((psutil.Process().memory_info().rss - before) / 2**20),
    }
    agent.tokens.refresh()
    headers = {"Authorization": f"Bearer {drawn.text.get_secret_value()}"}
    transport = httpx2.ASGITransport(app=server.asgi)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://localhost", headers=headers
    ) as client:
        for name, params in _LISTS.items():
            found |= await _timed(f"list_{name}", client, partial(_listed, params))
        found |= await _pages(server, placed.spec, client)
        found |= await _cases(server, placed.spec, client)
    return found


def _listed(params: Mapping[str, str], _: int) -> tuple[str, Mapping[str, str]]:
    return "/v1/alerts", params


async def _pages(server: Server, spec: AgentSpec, client: httpx2.AsyncClient) -> dict[str, object]:
    view = server.agents[spec.name].inbox.view
    rows = np.random.default_rng(3).integers(0, view.rows, _ROUNDS + _WARM)
    shown = view.alerts(rows)
    found = await _timed("alert", client, lambda at: (f"/v1/alerts/{shown[at]['alert_id']}", {}))
    found |= await _timed("similar", client, lambda at: (f"/v1/alerts/{shown[at]['alert_id']}/similar", {}))
    customers = [each["entities"]["customer"] for each in shown]
    return found | await _timed("entity", client, lambda at: (f"/v1/entities/customer/{customers[at]}", {}))


async def _cases(server: Server, spec: AgentSpec, client: httpx2.AsyncClient) -> dict[str, object]:
    """Group all alerts first, as the first who asks about cases has to wait for."""
    begun = time.perf_counter()
    book = server.agents[spec.name].cases.grouped()
    took, total = round(time.perf_counter() - begun, 1), book.page().total
    say(f"{total:,} cases, grouped in {took} s")
    cases = [each.case_id for each in book.page(limit=_WARM + _ROUNDS).cases]
    view = server.agents[spec.name].inbox.view
    shown = view.alerts(np.random.default_rng(4).integers(0, view.rows, _ROUNDS + _WARM))
    asked: dict[str, Callable[[int], tuple[str, Mapping[str, str]]]] = {
        "list_cases": lambda _: ("/v1/cases", {}),
        "case": lambda at: (f"/v1/cases/{cases[at]}", {}),
        "page_cases": lambda _: ("/console/cases", {}),
        "page_alerts": lambda _: ("/console/alerts", {}),
        "page_case": lambda at: (f"/console/cases/{cases[at]}", {}),
        "page_alert": lambda at: (f"/console/alerts/{shown[at]['alert_id']}", {}),
        "page_entity": lambda at: (f"/console/entities/customer/{shown[at]['entities']['customer']}", {}),
    }
    found: dict[str, object] = {"cases": total, "grouped_s": took}
    for name, ask in asked.items():
        found |= await _timed(name, client, ask)
        if name.startswith("page"):
            answer = await client.get(ask(_WARM)[0])
            found[f"{name}_kb"] = round(len(answer.content) / 1000, 1)
    return found


async def _timed(
    name: str, client: httpx2.AsyncClient, ask: Callable[[int], tuple[str, Mapping[str, str]]]
) -> dict[str, object]:
    taken = []
    for at in range(_WARM + _ROUNDS):
        path, params = ask(at)
        begun = time.perf_counter()
        answer = await client.get(path, params=dict(params))
        taken.append(time.perf_counter() - begun)
        answer.raise_for_status()
    p50, p99 = np.percentile(taken[_WARM:], [50, 99]) * 1000
    first = round(taken[0] * 1000, 1)
    say(f"{name}: first {first} ms, p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    return {f"{name}_first_ms": first, f"{name}_p50_ms": round(p50, 1), f"{name}_p99_ms": round(p99, 1)}


def _write(agent: PlacedAgent, alerts: int) -> None:
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
