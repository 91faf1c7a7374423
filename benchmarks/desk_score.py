"""Scores over HTTP beside an agent that runs: a process decides events while other events are asked about.

The server has the large lake of benchmarks.desk in memory as well, and follows the agent's profiles.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from functools import partial

import httpx2
import numpy as np

from benchmarks.harness import Stage, say
from benchmarks.live_agent import (
    EVENTS_PER_SECOND,
    LONGEST_START_SECONDS,
    RATE,
    BenchAnswer,
    answers,
    running,
    score_of,
)
from schemas.spec import AgentSpec
from streaming.commands.serve import POLITE
from streaming.serve.api import Server

_SECONDS, _WARM_SECONDS = 60, 45  # compiling its code keeps an agent busy for some of that


async def scored_beside(
    place: Stage, server: Server, spec: AgentSpec, client: httpx2.AsyncClient
) -> dict[str, object]:
    """Run an agent that the server follows, and return the milliseconds that scores take meanwhile."""
    with running(place, spec):
        server.start()
        try:
            os.nice(POLITE)
            await _until_ready(server, spec.name)
            say(f"{RATE} events/s are scored for {_SECONDS} s, beside an agent of {EVENTS_PER_SECOND:,}/s")
            found = await answers(client, partial(score_of, spec.name), _WARM_SECONDS + _SECONDS)
            return score_figures(found[_WARM_SECONDS * RATE :])
        finally:
            server.end_streams()
            server.close()


def score_figures(found: Sequence[BenchAnswer]) -> dict[str, object]:
    """Return milliseconds of scores, how old what they knew was, and how many events were decided."""
    p50, p99 = np.percentile([each.seconds for each in found], [50, 99]) * 1000
    age = float(np.percentile([each.age_seconds for each in found], 99))
    decided = found[-1].sequence - found[0].sequence
    said = f"score: p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(found)}"
    say(f"{said}; {decided:,} events decided meanwhile, what is known is {age:.1f} s old at most (p99)")
    return {
        "score_p50_ms": round(p50, 1),
        "score_p99_ms": round(p99, 1),
        "score_age_p99_s": round(age, 2),
        "score_events_decided_meanwhile": decided,
    }


async def _until_ready(server: Server, name: str) -> None:
    follower, until = server.agents[name].follower, time.monotonic() + LONGEST_START_SECONDS
    assert follower is not None, "the server scores"
    while not follower.is_ready:
        if time.monotonic() > until:
            raise TimeoutError("the agent has decided nothing yet")
        await asyncio.sleep(1.0)
