"""An agent that runs while something is measured beside it, and what is asked of a server meanwhile.

Agent, sender and server are processes of their own. Requests go out at a steady rate, whether or not those
before were answered.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx2
import yaml

from agent.audit.events import AuditEvent
from benchmarks.harness import Stage
from schemas.spec import AgentSpec
from streaming.audit.audit_log import AuditPlaces, LakeAudit
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.drivers import Child
from streaming.tokens.bearer import draw
from streaming.tokens.token_table import TokenTable

EVENTS_PER_SECOND, RATE = 1_000, 20
LONGEST_START_SECONDS = 300.0
_MAIN = [sys.executable, "-c", "from streaming.cli.root import main; main()"]
_A_DAY = str(24 * 60 * 60)


@dataclass(frozen=True)
class BenchRequest:
    """One request.

    Attributes:
        kind: under which its answers are counted.
        body: sent as JSON, by POST; None is a GET.
    """

    kind: str
    path: str
    params: Mapping[str, str]
    body: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class BenchAnswer:
    """An answer: how many seconds it took, and the number of the row up to which a score knows everything."""

    kind: str
    seconds: float
    sequence: int = 0
    age_seconds: float = 0.0


def live_spec(spec: AgentSpec) -> AgentSpec:
    """Return the agent that runs meanwhile, in a lake of its own."""
    return AgentSpec.model_validate({**spec.model_dump(mode="json"), "name": f"{spec.name}-live"})


def allowed(*agents: PlacedAgent) -> dict[str, str]:
    """Make a token for some agents; return the header that sends it."""
    drawn = draw()
    for each in agents:
        TokenTable(each).add(drawn, "bench", ["read"], 1_000_000, None, "bench")
        LakeAudit(AuditPlaces(each), each.spec.replay_horizon).record(
            [AuditEvent("action", "bench", {"command": "bench"}, "command/bench", 0)]
        )
    return {"Authorization": f"Bearer {drawn.text.get_secret_value()}"}


@contextmanager
def command(place: Stage, *words: str) -> Iterator[Child]:
    """Run a command of flagstream in a process of its own, which ends afterwards."""
    child = Child([*_MAIN, *words], env={**os.environ, "FLAGSTREAM_KAFKA": place.bootstrap})
    try:
        yield child
    finally:
        child.terminate()
        child.wait(LONGEST_START_SECONDS)


@contextmanager
def running(place: Stage, spec: AgentSpec) -> Iterator[None]:
    """Run an agent, and send it payments, in two processes; both end afterwards."""
    topic = spec.data_sources.transactions.subscription.first
    ensure_topic(place.bootstrap, topic)
    ensure_topic(place.bootstrap, spec.alerts.topic, 1)
    agent = ("run", "--spec", spec_file(place, spec), "--home", str(place.settings.home), "--llm", "none")
    sender = ("simulate", "--topic", topic, "--rate", str(EVENTS_PER_SECOND), "--seconds", _A_DAY)
    with command(place, *agent), command(place, *sender):
        yield


def spec_file(place: Stage, spec: AgentSpec) -> str:
    """Write a spec down; return where."""
    file = place.settings.home / f"{spec.name}.yaml"
    file.write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
    return str(file)


def score_of(agent: str, number: int) -> BenchRequest:
    """Return the request that has an event scored."""
    event = {
        "tx_id": f"asked-{number}", "event_time": datetime.now(UTC).isoformat(),
        "amount": 10.0 + number % 500, "currency": "EUR", "customer_id": f"c{number % 97}",
        "terminal_id": f"m{number % 89}",
        "merchant_category": "food", "country": "DE", "memo": "asked about",
    }  # fmt: skip
    return BenchRequest("score", "/v1/score", {"agent": agent}, {"event": event})


async def answers(
    client: httpx2.AsyncClient, requests: Callable[[int], BenchRequest], seconds: float
) -> Sequence[BenchAnswer]:
    """Ask for so many seconds; return the answers, in the order of the requests.

    Raises:
        HTTPStatusError: a request was refused.
    """
    begun, asked = time.perf_counter(), list[asyncio.Task[BenchAnswer]]()
    for number in range(round(seconds * RATE)):
        await asyncio.sleep(max(0.0, begun + number / RATE - time.perf_counter()))
        asked.append(asyncio.create_task(_answered(client, requests(number))))
    return await asyncio.gather(*asked)


async def _answered(client: httpx2.AsyncClient, asked: BenchRequest) -> BenchAnswer:
    begun = time.perf_counter()
    if asked.body is None:
        answer = await client.get(asked.path, params=dict(asked.params))
    else:
        answer = await client.post(asked.path, params=dict(asked.params), json=asked.body)
    answer.raise_for_status()
    taken = time.perf_counter() - begun
    if asked.body is None:
        return BenchAnswer(asked.kind, taken)
    said = answer.json()
    return BenchAnswer(asked.kind, taken, said["sequence"], said["age_seconds"])
