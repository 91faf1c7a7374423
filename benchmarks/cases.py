"""Cases: how long it takes to group alerts, to open a case book, to list cases and to act on one.

The alerts are made up and lie in a Delta table as an agent's do; everything else is what the desk does. Times
are CPU time of all threads, so that they hold on a busy machine, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import numpy as np
import psutil
import pyarrow as pa

from benchmarks.harness import bench_spec, report, say
from benchmarks.made_rows import made_rows
from schemas.alert import ALERTS
from schemas.rules import SEVERITIES
from streaming.cases.book import CaseBook
from streaming.cases.choosing import CaseFilter
from streaming.cases.orders import Order
from streaming.delta.lake_reader import LakeReader
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings

_BEGUN = datetime(2026, 5, 1, tzinfo=UTC)
_CHUNK, _ROUNDS, _MANY = 200_000, 40, 500
_RULES = ("large", "fast", "abroad")


def measure(alerts: int, entities: int, *, as_json: bool) -> None:
    """Print the figures; see the module."""
    with tempfile.TemporaryDirectory(prefix="flagstream-bench-") as folder:
        settings, spec = Settings.load(Path(folder), {}), bench_spec(batch=1_000)
        say(f"writing {alerts:,} alerts")
        _write_alerts(PlacedAgent(settings, spec), alerts, entities)
        report({**figures(PlacedAgent(settings, spec))}, as_json=as_json)


def figures(agent: PlacedAgent) -> dict[str, float]:
    """Return milliseconds of CPU time, counts and memory over the alerts that there are."""
    found: dict[str, float] = {}
    book = CaseBook(agent)
    with _timed(found, "group_ms"):
        found["alerts"] = book.group()
    resident = psutil.Process().memory_info().rss
    again = CaseBook(agent)
    with _timed(found, "open_ms"):
        again.refresh()
    found["open_mib"] = (psutil.Process().memory_info().rss - resident) / 2**20
    found["cases"] = again.page(CaseFilter(status=())).total
    found["list_ms"] = _median_of(lambda: again.page(limit=50))
    found["facet_ms"] = _median_of(lambda: again.page(CaseFilter(severity=("critical",), overdue=True)))
    found["claim_next_ms"] = _median_of(lambda: again.claim_next("anna"))
    meant = again.page(limit=1).cases[0].case_id
    found["comment_ms"] = _median_of(lambda: again.act(meant, Order("comment", text="seen"), "anna"))
    found["nothing_new_ms"] = _median_of(again.group)
    some = tuple(each.case_id for each in again.page(limit=_MANY).cases)
    with _timed(found, "mass_500_ms"):
        again.mass(CaseFilter(cases=some), Order("assign", assignee="bert"), "anna", dry_run=False)
    return found


@contextmanager
def _timed(found: dict[str, float], name: str) -> Iterator[None]:
    begun = time.process_time()
    yield
    found[name] = (time.process_time() - begun) * 1000


def _median_of(work: Callable[[], object]) -> float:
    taken: dict[str, float] = {}
    for number in range(_ROUNDS):
        with _timed(taken, str(number)):
            work()
    return median(taken.values())


def _write_alerts(agent: PlacedAgent, alerts: int, entities: int) -> None:
    place = LakeReader.of(agent).place("alerts")
    table = LakeTable(place, ALERTS, f"{agent.name}/epoch", agent.spec.replay_horizon)
    table.claim(1)
    random = np.random.default_rng(7)
    for batch, first in enumerate(range(0, alerts, _CHUNK)):
        rows = min(_CHUNK, alerts - first)
        table.append(_alerts(random, first, rows, entities), Stamp(f"{agent.name}/q", batch))


def _alerts(random: np.random.Generator, first: int, rows: int, entities: int) -> pa.Table:
    """Make alerts a few seconds apart; columns that the desk does not read hold nothing of interest."""
    numbers = np.arange(first, first + rows)
    at = pa.array(
        [_BEGUN + timedelta(seconds=10 * int(each)) for each in numbers], ALERTS.field("event_time").type
    )
    names = pa.array([f"c{each}" for each in random.integers(0, entities, rows)])
    given = {
        "alert_id": pa.array([f"{each:032x}" for each in numbers]),
        "transaction_id": pa.array([f"t{each:012d}" for each in numbers]),
        "entities": pa.MapArray.from_arrays(
            np.arange(rows + 1, dtype=np.int32), pa.repeat("customer", rows), names
        ),
        "event_time": at,
        "created_at": at,
        "severity": pa.array(random.choice(SEVERITIES, rows)),
        "rules": pa.array([[each] for each in random.choice(_RULES, rows)]),
        "amount": pa.array(random.uniform(1, 5_000, rows).round(2)),
        "outbox_seq": pa.array(numbers),
        "revision": 1,
        "currency": "EUR",
        "score": 0.5,
    }
    return made_rows(ALERTS, given)
