"""What the desk costs an agent: the latency of its alerts with and without a server that is asked beside it.

One agent runs all the time and takes a thousand events a second. In every other window `flagstream serve`
runs beside it, with a large lake of another agent and a follower of the running one, and answers lists,
alerts, entities and scores; which of a pair comes first is turned round from pair to pair. What counts is the
median over all pairs of how much longer the p99 is with it. At the end the server is asked for scores alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

import httpx2
import numpy as np

from benchmarks.desk_lake import LISTS, write_lake
from benchmarks.desk_score import score_figures
from benchmarks.harness import Stage, bench_spec, report, say, stage
from benchmarks.latency import Arrivals, delays_since, sent_times
from benchmarks.live_agent import (
    LONGEST_START_SECONDS,
    RATE,
    BenchAnswer,
    BenchRequest,
    allowed,
    answers,
    command,
    live_spec,
    running,
    score_of,
    spec_file,
)
from benchmarks.pairs import Overhead
from streaming.home.placed_agent import PlacedAgent
from streaming.testing.drivers import wait_until

MOST_PERCENT = 10.0
_BATCH = 100_000
_WARM_UP_SECONDS, _SETTLE_SECONDS, _TAIL_SECONDS, _SCORED_SECONDS = 45.0, 4.0, 2.0, 60.0
# What people at the console and two programs ask for in half a second.
_MIX = ("list", "score", "page", "score", "entity", "list", "score", "alert", "score", "page")


@dataclass(frozen=True)
class LatencyWindow:
    """A span that counts, in seconds since 1970, and what was answered in it: nothing without the server."""

    begin: float
    end: float
    answered: tuple[BenchAnswer, ...] = ()


@dataclass(frozen=True)
class AskedIds:
    """What is asked about: ids of alerts and of customers of one agent, and the agent that scores."""

    agent: str
    alerts: Sequence[str]
    customers: Sequence[str]
    scoring: str

    def request(self, number: int) -> BenchRequest:
        """Return the request that comes as this one in turn."""
        kind, agent = _MIX[number % len(_MIX)], {"agent": self.agent}
        alert = self.alerts[number % len(self.alerts)]
        if kind == "score":
            return score_of(self.scoring, number)
        if kind == "list":
            return BenchRequest(
                kind, "/v1/alerts", {**agent, **list(LISTS.values())[number // 5 % len(LISTS)]}
            )
        if kind == "entity":
            return BenchRequest(
                kind, f"/v1/entities/customer/{self.customers[number % len(self.customers)]}", agent
            )
        return BenchRequest(kind, f"/{'console' if kind == 'page' else 'v1'}/alerts/{alert}", agent)


@dataclass(frozen=True)
class AskedDesk:
    """A server of two agents, started when it is to run, and who asks it.

    Attributes:
        desk: has the large lake.
        live: runs, and is followed.
        headers: of every request.
    """

    place: Stage
    desk: PlacedAgent
    live: PlacedAgent
    headers: Mapping[str, str]

    @contextmanager
    def running(self) -> Iterator[str]:
        """Run the server; yield its address once it has read what it serves, and scores."""
        files = [spec_file(self.place, each.spec) for each in (self.desk, self.live)]
        words = ["serve", "--home", str(self.place.settings.home), "--listen", "0", "--score"]
        words += ["--log-format", "json", *(word for each in files for word in ("--spec", each))]
        with command(self.place, *words) as child:
            child.wait_for(lambda line: '"serving"' in line, LONGEST_START_SECONDS)
            said = (json.loads(line) for line in child.said if line.startswith("{"))
            address = next(str(each["url"]) for each in said if each.get("event") == "serving")
            wait_until(lambda: self._is_ready(address), LONGEST_START_SECONDS, "the server to be ready")
            yield address

    def ask(
        self, address: str, request: Callable[[AskedIds, int], BenchRequest], seconds: float
    ) -> list[BenchAnswer]:
        """Ask until what is asked first, which does not count, was so long ago; return the other answers."""
        found = asyncio.run(self._ask(address, request, _SETTLE_SECONDS + seconds))
        return found[int(_SETTLE_SECONDS * RATE) :]

    async def _ask(
        self, address: str, request: Callable[[AskedIds, int], BenchRequest], seconds: float
    ) -> list[BenchAnswer]:
        endless = httpx2.Limits(max_connections=None)  # a server that falls behind is measured, too
        async with httpx2.AsyncClient(
            base_url=address, headers=self.headers, timeout=LONGEST_START_SECONDS, limits=endless
        ) as client:
            ids = await self._ids(client)
            return list(await answers(client, lambda number: request(ids, number), seconds))

    async def _ids(self, client: httpx2.AsyncClient) -> AskedIds:
        params = {"agent": self.desk.name, "order": "amount", "limit": "97"}  # prime: each one's turn comes
        found = await client.get("/v1/alerts", params=params)
        rows = found.raise_for_status().json()["alerts"]
        customers = [each["entities"]["customer"] for each in rows]
        return AskedIds(self.desk.name, [each["alert_id"] for each in rows], customers, self.live.name)

    def _is_ready(self, address: str) -> bool:
        score = score_of(self.live.name, 0)
        with httpx2.Client(base_url=address, headers=self.headers, timeout=60.0) as client:
            if client.get("/readyz").text != "ok\n":
                return False
            return client.post(score.path, params=dict(score.params), json=score.body).is_success


def measure(alerts: int, pairs: int, seconds: float, *, as_json: bool) -> bool:
    """Run the windows; print p50 and p99 of alerts with and without the server, and what answers took.

    Args:
        alerts: of the lake that the server has besides.
        pairs: of windows.
        seconds: of a window, that count.

    Returns:
        Whether the p99 is at most `MOST_PERCENT` longer, by the median of all pairs.
    """
    begun = time.perf_counter()
    with stage() as place:
        desk = PlacedAgent(place.settings, bench_spec(batch=_BATCH))
        live = PlacedAgent(place.settings, live_spec(desk.spec))
        write_lake(desk, alerts)
        asked = AskedDesk(place, desk, live, allowed(desk, live))
        with Arrivals(place.bootstrap, live.spec.alerts.topic) as arrivals, running(place, live.spec):
            windows, scores = _run(asked, pairs, seconds)
        sent = sent_times(live)
    found = [[delays_since(sent, arrivals.times, each.begin, each.end) for each in two] for two in windows]
    over = Overhead.of([percent_more(*two) for two in found])
    answered = [each for _, beside in windows for each in beside.answered]
    figures = {**_alert_figures(found, over), **_answer_figures(answered), **score_figures(scores)}
    report({**figures, "took_s": round(time.perf_counter() - begun)}, as_json=as_json)
    return over.median <= MOST_PERCENT


def percent_more(alone: np.ndarray, beside: np.ndarray) -> float:
    """Return by how many percent the p99 of the seconds that alerts took is longer with the server.

    Raises:
        ValueError: there were no alerts.
    """
    if not len(alone) or not len(beside):
        raise ValueError("no alert came within a window: the agent stands still")
    return float(100 * (np.percentile(beside, 99) / np.percentile(alone, 99) - 1))


def _run(
    asked: AskedDesk, pairs: int, seconds: float
) -> tuple[list[tuple[LatencyWindow, LatencyWindow]], list[BenchAnswer]]:
    """Return the windows by pairs, the one without the server first, and the answers about scores alone."""
    turns = [is_asked for number in range(pairs) for is_asked in ((False, True), (True, False))[number % 2]]
    found: list[LatencyWindow] = []
    with asked.running():  # what it copies at its first start is there afterwards
        say(f"the agent warms up for {_WARM_UP_SECONDS:.0f} s")
        time.sleep(_WARM_UP_SECONDS)
    for is_asked, group in groupby(turns):
        count = len(list(group))
        found += _asked_windows(asked, count, seconds) if is_asked else _windows_alone(count, seconds)
        say(f"{len(found)} of {2 * pairs} windows of {seconds:.0f} s")
    with asked.running() as address:
        say(f"{RATE} events/s are scored for {_SCORED_SECONDS:.0f} s")
        scores = asked.ask(address, lambda ids, number: score_of(ids.scoring, number), _SCORED_SECONDS)
    return [in_order(*two) for two in zip(found[::2], found[1::2], strict=True)], scores


def in_order(one: LatencyWindow, other: LatencyWindow) -> tuple[LatencyWindow, LatencyWindow]:
    """Return a pair with the window without the server first."""
    return (other, one) if one.answered else (one, other)


def _windows_alone(count: int, seconds: float) -> Iterator[LatencyWindow]:
    for _ in range(count):
        begin = time.time() + _SETTLE_SECONDS
        time.sleep(_SETTLE_SECONDS + seconds + _TAIL_SECONDS)
        yield LatencyWindow(begin, begin + seconds)


def _asked_windows(asked: AskedDesk, count: int, seconds: float) -> Iterator[LatencyWindow]:
    with asked.running() as address:
        for _ in range(count):
            begin = time.time() + _SETTLE_SECONDS
            found = asked.ask(address, AskedIds.request, seconds + _TAIL_SECONDS)
            yield LatencyWindow(begin, begin + seconds, tuple(found))


def _alert_figures(found: Sequence[Sequence[np.ndarray]], over: Overhead) -> dict[str, object]:
    """Return figures over all windows of a kind, and of each pair the p99 in seconds."""
    figures: dict[str, object] = {}
    for name, windows in zip(("alone", "beside"), zip(*found, strict=True), strict=True):
        every = np.concatenate(windows)
        p50, p99 = np.percentile(every, [50, 99])
        figures |= {f"{name}_p50_s": round(p50, 3), f"{name}_p99_s": round(p99, 3)}
        figures[f"{name}_alerts"] = len(every)
    return figures | {
        "p99_percent_more": round(over.median, 1),
        "p99_percent_more_from_to": [round(over.low, 1), round(over.high, 1)],
        "conclusion": over.conclusion(MOST_PERCENT),
        "pairs_p99_s": [[round(float(np.percentile(each, 99)), 3) for each in two] for two in found],
    }


def _answer_figures(answered: Sequence[BenchAnswer]) -> dict[str, object]:
    """Return milliseconds of each kind of request, asked in a mix."""
    figures: dict[str, object] = {}
    for kind in sorted({each.kind for each in answered}):
        p50, p99 = np.percentile([each.seconds for each in answered if each.kind == kind], [50, 99]) * 1000
        figures |= {f"mix_{kind}_p50_ms": round(p50, 1), f"mix_{kind}_p99_ms": round(p99, 1)}
    return figures
