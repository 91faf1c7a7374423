"""Appends and batches make as many requests to a store as their cost is reckoned with, and no more."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median
from urllib.parse import unquote

import pyarrow as pa
import pytest

from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.maintenance import STORE_ROUND_SECONDS
from streaming.delta.shared_table import SharedTable
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run import opening
from streaming.testing.drivers import wait_until
from streaming.testing.live_lake import TOPIC, agent, events, records, without_broker
from streaming.testing.spoiled_store import SpoiledStore, StoreRequest
from streaming.testing.stores import RunningStore
from streaming.versions.clients import Clients
from tests.store_cost import (
    COMMITS_PER_BATCH,
    LABELS_SECONDS,
    READS_PER_BATCH,
    REGISTRY_SECONDS,
    WRITES_PER_BATCH,
    WRITES_PER_COMMIT,
)

ROWS = pa.table({"n": [1, 2, 3]})
KEPT = timedelta(days=30)
EACH, BATCHES, SETTLED = 30, 40, 9
DELAY = 0.3
pytestmark = pytest.mark.parametrize("store", ["gofakes3"], indirect=True)


def test_an_append_is_two_requests_however_long_the_log(store: RunningStore, spoiled: SpoiledStore) -> None:
    table = LakeTable(store.place / "rows", ROWS.schema, "agent/epoch", KEPT)
    table.claim(1)
    for number in range(40):
        before = len(spoiled.requests)
        assert table.append(ROWS, Stamp("query", number))
        assert table.read("n", 2).num_rows == 2 * (number + 1)
        assert spoiled.counted(before) == {"PUT": WRITES_PER_COMMIT}


def test_what_others_have_put_is_read_once(store: RunningStore, spoiled: SpoiledStore) -> None:
    """Met in place of an own commit, or looked for: by either of two that write by turns."""
    tables = [SharedTable(store.place / "rows", ROWS.schema, KEPT) for _ in range(2)]
    begun = len(spoiled.requests)
    for number in range(12):
        writer = number % 2
        tables[writer].by_turns(partial(tables[writer].append, ROWS, Stamp(f"writer {writer}", number)))
    tables[0].refresh()
    tables[1].refresh()
    read = [each.path for each in spoiled.since(begun) if each.verb == "GET" and each.path.endswith(".json")]
    assert len(read) == 12, "each by the one that has not put it"
    assert tables[0].count() == tables[1].count() == 12 * ROWS.num_rows


def test_a_batch_makes_no_more_requests_than_is_reckoned_with(
    store: RunningStore, spoiled: SpoiledStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    given = {"FLAGSTREAM_STORE": str(store.place), "FLAGSTREAM_AUDIT_KEY": "a" * 32}
    settings, stream = Settings.load(tmp_path / "home", given), records(events(EACH * BATCHES))
    spec = agent(profiles={"block_rows": 64, "checkpoint_rows": EACH * BATCHES * 2}).anew()
    writes, reads = list[int](), list[int]()
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, spec), "", clients) as started,
    ):
        for number in range(BATCHES):
            before = len(spoiled.requests)
            part = partial(pa.Table.slice, stream, number * EACH, EACH)
            end = partial(dict, {TOPIC: {"0": (number + 1) * EACH}})
            closed = started.pipeline.process(part, "live", number, end)
            counted = Counter(each.verb for each in spoiled.since(before) if not _goes_by_the_clock(each))
            if closed.row["alerts"]:
                writes.append(counted["PUT"] + counted["POST"] + counted["LIST"])
                reads.append(counted["GET"] + counted["HEAD"])
    # Beside the first of them maintenance reads all tables.
    settled = median(writes[-SETTLED:]), median(reads[-SETTLED:])
    assert settled == (WRITES_PER_BATCH, READS_PER_BATCH), (writes, reads)


def test_a_batch_waits_for_fewer_answers_in_a_row_than_it_makes_requests(
    store: RunningStore, spoiled: SpoiledStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    given = {"FLAGSTREAM_STORE": str(store.place), "FLAGSTREAM_AUDIT_KEY": "a" * 32}
    settings, stream, spec = Settings.load(tmp_path / "home", given), records(events(600)), agent().anew()
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, spec), "", clients) as started,
    ):
        for number, (first, delay) in enumerate([(0, 0.0), (300, DELAY)]):
            spoiled.delay, before = delay, len(spoiled.requests)
            part = partial(stream.slice, first, 300)
            closed = started.pipeline.process(
                part, "live", number, partial(dict, {TOPIC: {"0": first + 300}})
            )
        writes = [each for each in spoiled.since(before) if _is_write_of_a_batch(each)]
        spoiled.delay = 0.0
    assert closed.row["alerts"] > 0
    assert len(writes) >= WRITES_PER_COMMIT * COMMITS_PER_BATCH
    assert WRITES_PER_COMMIT <= _in_a_row(writes) < len(writes)


def test_looks_go_by_the_clock(
    store: RunningStore, spoiled: SpoiledStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    given = {"FLAGSTREAM_STORE": str(store.place), "FLAGSTREAM_AUDIT_KEY": "a" * 32}
    settings, spec = Settings.load(tmp_path / "home", given), agent().anew()
    looks = Counter[str]()
    with Clients(settings, "none") as clients, opening.open_agent(PlacedAgent(settings, spec), "", clients):
        begun, since = time.monotonic(), len(spoiled.requests)

        def seen() -> bool:
            looks.clear()
            looks.update(filter(None, map(_looked_up_in, spoiled.since(since))))
            return looks["labels"] >= 3 and looks["specs"] >= 2

        wait_until(seen, 60, "rounds of labels and registry")
        # Each waits for its time once the one before has ended: on a slow machine there are fewer.
        elapsed = time.monotonic() - begun
        of_maintenance = elapsed / STORE_ROUND_SECONDS + 1
        assert looks["labels"] <= elapsed / LABELS_SECONDS + 1 + of_maintenance
        assert looks["specs"] <= elapsed / REGISTRY_SECONDS + 1


def _is_write_of_a_batch(request: StoreRequest) -> bool:
    """Not so the counter of who runs the agent: it goes by the clock, beside whatever else there is."""
    of_a_batch = re.search(r"/(transactions|alerts|audit|batches|monitoring)/", request.path)
    return request.verb == "PUT" and of_a_batch is not None


def _in_a_row(requests: list[StoreRequest]) -> int:
    """Return how many of them, at most, were each made when the one before had been let through."""
    found, through = 0, 0
    for each in sorted(requests, key=lambda each: each.let_through):
        if each.arrived > through:
            found, through = found + 1, each.let_through
    return found


def _goes_by_the_clock(request: StoreRequest) -> bool:
    return _looked_up_in(request) is not None or "/owner/" in request.path


def _looked_up_in(request: StoreRequest) -> str | None:
    """Return the table in whose log a request looks for entries that came since.

    Maintenance lists that of the labels from its beginning as well; that of the registry is not there.
    """
    names = r"prefix=[^&]*/(labels|specs|requeues)/_delta_log/(&start-after=.*\.json)?$"
    found = re.search(names, unquote(request.query)) if request.verb == "LIST" else None
    if found is None or (found[1] == "labels" and found[2] is None):
        return None
    return found[1]
