"""Whatever is set aside with rejects on record, each record stands once: stored, rejected or repeated."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as properties
from hypothesis import strategies as st

from schemas.tables import UTC_MICROS
from streaming.batch.closed_batches import unbalanced
from streaming.batch.decision import Origin
from streaming.batch.pipeline import Pipeline
from streaming.delta.lake_table import LakeTable
from streaming.delta.whole_tables import read_stored
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.intake import Taken
from streaming.run.opening import open_agent
from streaming.run.surroundings import Hooks
from streaming.testing.live_lake import TOPIC, QuietLane, agent, events, frame, records
from streaming.versions.clients import Clients

COUNT = 40
THE_TOPIC = Origin({TOPIC: "c0nJ2kfGQxu4m1rJmRdpTw"})
_KINDS = st.lists(
    st.sampled_from(["good", "good", "good", "broken", "again", "unstamped", "unstamped and broken"]),
    min_size=COUNT,
    max_size=COUNT,
)


class _Killed(Exception):  # noqa: N818 -- nothing that is caught in earnest
    pass


@dataclass(frozen=True)
class Attempt:
    """A query that reads on, in batches of so many records, and dies before it decides the last one."""

    rows: int
    batches: int
    sliced: bool


ATTEMPTS = st.lists(
    st.builds(Attempt, st.integers(3, COUNT), st.integers(1, 3), st.booleans()), min_size=1, max_size=3
)


def stream(kinds: list[str]) -> pa.Table:
    """Payments, some of them unreadable, some without a stamp, some with the id of the one before."""
    made = events(COUNT)
    for number, kind in enumerate(kinds):
        if kind == "again" and number:
            made[number]["tx_id"] = made[number - 1]["tx_id"]
    taken = records(made)
    values = [
        b"{" if "broken" in kind else value
        for kind, value in zip(kinds, taken["value"].to_pylist(), strict=True)
    ]
    stamps = [
        None if "unstamped" in kind else stamp
        for kind, stamp in zip(kinds, taken["timestamp"].to_pylist(), strict=True)
    ]
    taken = taken.set_column(1, "value", pa.array(values, pa.binary()))
    return taken.set_column(6, "timestamp", pa.array(stamps, UTC_MICROS))


@contextmanager
def opened(home: Path) -> Iterator[Pipeline]:
    settings = Settings.load(home, {})
    hooks = Hooks(publisher=QuietLane)  # type: ignore[arg-type]  # all that is needed of one
    with (
        Clients(settings, "none") as clients,
        open_agent(PlacedAgent(settings, agent()), "127.0.0.1:1", clients, hooks) as on,
    ):
        yield on.pipeline


def decided(home: Path, query: str) -> tuple[int, int]:
    """The offset that comes next by what is decided, and the number of the query's next batch."""
    batches = read_stored(Settings.load(home, {}).lake("tester") / "batches")
    closed = [] if batches is None else batches.select(["query_id", "offsets"]).to_pylist()
    reached = max((json.loads(each["offsets"])[TOPIC]["0"] for each in closed), default=0)
    return reached, sum(each["query_id"] == query for each in closed)


def read_on(
    home: Path,
    query: str,
    rows: pa.Table,
    size: int,
    most: int,
    *,
    sliced: bool,
    origin: Origin = THE_TOPIC,
) -> None:
    first, next_batch = decided(home, query)
    with opened(home) as pipeline:
        for number, start in enumerate(range(first, rows.num_rows, size)[:most], next_batch):
            part = rows.slice(start, size)
            end = {TOPIC: {"0": start + part.num_rows}}
            taken = in_slices(part) if sliced else Taken(part)
            pipeline.process(lambda taken=taken: taken, query, number, lambda end=end: end, origin=origin)


def in_slices(part: pa.Table) -> Taken:
    """A batch whose records are larger than fits at once."""
    cut = max(part.num_rows // 3, 1)
    places = part.select(["topic", "partition", "offset", "timestamp"])
    return Taken(part.slice(0, cut), [part.slice(cut, cut), part.slice(2 * cut)], places)


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Batches that may still be decided, by `left`; the one after them dies before it is."""
    counter: Counter[str] = Counter()
    append = LakeTable.append

    def guarded(table: LakeTable, *given: Any, **named: Any) -> bool:
        if table.place.name == "transactions":
            if counter["left"] == 0:
                raise _Killed
            counter["left"] -= 1
        return append(table, *given, **named)

    monkeypatch.setattr(LakeTable, "append", guarded)
    return counter


@properties(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_KINDS, ATTEMPTS, st.integers(5, COUNT), st.booleans())
def test_each_record_is_counted_once_whatever_was_set_aside(
    tmp_path_factory: pytest.TempPathFactory,
    dying: Counter[str],
    kinds: list[str],
    attempts: list[Attempt],
    size: int,
    again: bool,
) -> None:
    home, rows = tmp_path_factory.mktemp("home"), stream(kinds)
    for number, each in enumerate(attempts):
        for _ in range(1 + again):  # the same batch is tried again before it is set aside
            dying["left"] = each.batches - 1
            with_kill(home, f"query-{number}", rows, each)
    dying["left"] = COUNT
    read_on(home, "last", rows, size, COUNT, sliced=False)
    lake = Settings.load(home, {}).lake("tester")
    held = {name: frame(read_stored(lake / name)) for name in ("transactions", "quarantine", "duplicates")}
    places = pl.concat([each.select("offset") for each in held.values()])["offset"].to_list()
    assert sorted(places) == list(range(COUNT))
    broken = [place for place, kind in enumerate(kinds) if "broken" in kind]
    assert sorted(held["quarantine"]["offset"].to_list()) == broken
    batches = frame(read_stored(lake / "batches"))
    assert unbalanced(batches) == 0
    assert batches["quarantined"].sum() == len(broken)
    assert batches["duplicates"].sum() == held["duplicates"].height
    reasons = [json.loads(each) for each in batches["rejected"].to_list() if each is not None]
    assert sum(sum(each.values()) for each in reasons) == len(broken)


def with_kill(home: Path, query: str, rows: pa.Table, attempt: Attempt) -> None:
    try:
        read_on(home, query, rows, attempt.rows, attempt.batches, sliced=attempt.sliced)
    except _Killed:
        return


def test_a_record_of_another_topic_at_the_same_place_is_not_taken_for_one_that_was_rejected(
    tmp_path: Path, dying: Counter[str]
) -> None:
    """A topic that was created anew begins at the same offsets; its broker stamps them later."""
    broken = stream(["broken"] * COUNT)
    with_kill(tmp_path, "first", broken, Attempt(COUNT, 1, sliced=False))
    dying["left"] = COUNT
    made = [
        {**each, "event_time": each["event_time"].replace("2026-05-01", "2026-05-02")}
        for each in events(COUNT)
    ]
    read_on(tmp_path, "second", records(made), COUNT, 1, sliced=False)
    assert counted(tmp_path) == (COUNT, COUNT, 0)


@pytest.mark.parametrize(
    ("topic_id", "expected"),
    [(THE_TOPIC, (COUNT, 0, COUNT)), (Origin({TOPIC: "another"}), (COUNT, COUNT, 0))],
)
def test_a_record_without_a_stamp_is_known_by_its_topic(
    tmp_path: Path, dying: Counter[str], topic_id: Origin, expected: tuple[int, int, int]
) -> None:
    """What its attempt has rejected stands, though it can be read now; another topic's record is another."""
    with_kill(tmp_path, "first", stream(["unstamped and broken"] * COUNT), Attempt(COUNT, 1, sliced=False))
    dying["left"] = COUNT
    rows = stream(["unstamped"] * COUNT)
    read_on(tmp_path, "second", rows, COUNT, 1, sliced=False, origin=topic_id)
    assert counted(tmp_path) == expected


def counted(home: Path) -> tuple[int, int, int]:
    """How many records were read, stored and quarantined by the one batch."""
    batches = frame(read_stored(Settings.load(home, {}).lake("tester") / "batches"))
    (row,) = batches.select("read", "stored", "quarantined").rows()
    return row
