"""The desk: how long lists, alerts, cases and pages of the console take over HTTP, with many in the lake.

The lake is made up and lies in Delta tables as an agent's does; the server is asked in its own process, by
requests that pass all its layers, without a socket. At the end it scores events beside an agent that runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial

import httpx2
import numpy as np
import psutil

from benchmarks.desk_lake import LISTS, write_lake
from benchmarks.desk_score import scored_beside
from benchmarks.harness import Stage, bench_spec, report, say, stage
from benchmarks.live_agent import allowed, live_spec
from schemas.spec import AgentSpec
from streaming.console.console import server_with_console
from streaming.console.rendering import FOLDER, STATIC
from streaming.home.placed_agent import PlacedAgent
from streaming.serve.api import Reach, Server
from streaming.serve.served_agent import ServedAgent

_WARM, _ROUNDS, _FEW = 5, 200, 5
_LONGEST_SECONDS, _FEWEST = 20.0, 20  # of one kind of request: the first of a large lake may take long


def measure(alerts: int, *, as_json: bool) -> None:
    """Print the milliseconds of lists, pages and scores, what pages weigh, and the server's memory."""
    begun = time.perf_counter()
    with stage() as place:
        placed = PlacedAgent(place.settings, bench_spec(batch=1_000))
        write_lake(placed, alerts)
        found = asyncio.run(_figures(place, placed))
    report({**found, "took_s": round(time.perf_counter() - begun)}, as_json=as_json)


async def _figures(place: Stage, placed: PlacedAgent) -> dict[str, object]:
    live = PlacedAgent(place.settings, live_spec(placed.spec))
    headers = allowed(placed, live)
    server, found = _read(placed, live)
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app=server.asgi), base_url="http://localhost", headers=headers,
        params={"agent": placed.name},
    ) as client:  # fmt: skip
        found |= await _copied(server, placed.spec, client)
        for name, params in LISTS.items():
            found |= await _timed(f"list_{name}", client, partial(_listed, params))
        found |= await _pages(server, placed.spec, client)
        found |= await _cases(server, placed.spec, client)
        return found | await scored_beside(place, server, live.spec, client)


def _read(placed: PlacedAgent, live: PlacedAgent) -> tuple[Server, dict[str, object]]:
    """Return a server of both agents, and what it took to read the alerts of the first."""
    say("reading all alerts")
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    server = server_with_console([ServedAgent(placed), ServedAgent(live, scores=True)], Reach())
    inbox = server.agents[placed.name].inbox
    inbox.refresh()
    found: dict[str, object] = {
        "alerts": inbox.view.rows,
        "read_s": round(time.perf_counter() - begun, 1),
        "inbox_mib": round((psutil.Process().memory_info().rss - before) / 2**20),
    }
    for each in server.agents.values():
        each.tokens.refresh()
    return server, found


async def _copied(server: Server, spec: AgentSpec, client: httpx2.AsyncClient) -> dict[str, object]:
    """Make what the server copies from its start on; before, single pages are read from the tables."""
    found = await _pages(server, spec, client, "_uncopied", rounds=_FEW)
    say("copying alerts and payments for single pages")
    begun, copies = time.perf_counter(), server.agents[spec.name].copies
    while copies.go_on():
        if copies.progress is not None:
            say(f"copied {copies.progress}")
    return {**found, "copied_s": round(time.perf_counter() - begun, 1)}


def _listed(params: Mapping[str, str], _: int) -> tuple[str, Mapping[str, str]]:
    return "/v1/alerts", params


async def _pages(
    server: Server, spec: AgentSpec, client: httpx2.AsyncClient, as_it_is: str = "", rounds: int = _ROUNDS
) -> dict[str, object]:
    view = server.agents[spec.name].inbox.view
    rows = np.random.default_rng(3).integers(0, view.rows, _ROUNDS + _WARM)
    shown = view.alerts(rows)
    customers = [each["entities"]["customer"] for each in shown]
    asked: dict[str, Callable[[int], tuple[str, Mapping[str, str]]]] = {
        "alert": lambda at: (f"/v1/alerts/{shown[at]['alert_id']}", {}),
        "similar": lambda at: (f"/v1/alerts/{shown[at]['alert_id']}/similar", {}),
        "entity": lambda at: (f"/v1/entities/customer/{customers[at]}", {}),
    }
    found: dict[str, object] = {}
    for name, ask in asked.items():
        found |= await _timed(f"{name}{as_it_is}", client, ask, rounds)
    return found


async def _cases(server: Server, spec: AgentSpec, client: httpx2.AsyncClient) -> dict[str, object]:
    """Group all alerts first, as the first who asks about cases has to wait for."""
    say("grouping alerts into cases")
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
    weight = sum((FOLDER / "static" / name).stat().st_size for name in STATIC)
    found: dict[str, object] = {"cases": total, "grouped_s": took, "static_kb": round(weight / 1000, 1)}
    for name, ask in asked.items():
        found |= await _timed(name, client, ask)
        if name.startswith("page"):
            answer = await client.get(ask(_WARM)[0])
            found[f"{name}_kb"] = round(len(answer.content) / 1000, 1)
    return found


async def _timed(
    name: str,
    client: httpx2.AsyncClient,
    ask: Callable[[int], tuple[str, Mapping[str, str]]],
    rounds: int = _ROUNDS,
) -> dict[str, object]:
    taken: list[float] = []
    for at in range(_WARM + rounds):
        if sum(taken[_WARM:]) > _LONGEST_SECONDS and at >= _WARM + _FEWEST:
            break
        path, params = ask(at)
        begun = time.perf_counter()
        answer = await client.get(path, params=dict(params))
        taken.append(time.perf_counter() - begun)
        answer.raise_for_status()
    p50, p99 = np.percentile(taken[_WARM:], [50, 99]) * 1000
    first = round(taken[0] * 1000, 1)
    say(f"{name}: first {first} ms, p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(taken) - _WARM}")
    return {f"{name}_first_ms": first, f"{name}_p50_ms": round(p50, 1), f"{name}_p99_ms": round(p99, 1)}
