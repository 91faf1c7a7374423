"""Pieces of a micro-batch: of bounded size, whole together, and without a trace in what is decided."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as properties
from hypothesis import strategies as st

from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.intake import Taken, slices
from streaming.kafka.planned import planned_records, planned_spans
from streaming.kafka.source import FEW_AT_ONCE, fewer_at_once
from streaming.run import opening
from streaming.testing.live_lake import TOPIC, agent, events, records, without_broker
from streaming.testing.streams import stored
from streaming.versions.clients import Clients

SIZES = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.integers(1, 40)), max_size=60)


@properties(deadline=None, derandomize=True)
@given(SIZES, st.integers(1, 100), st.randoms(use_true_random=False))
def test_runs_of_records_are_bounded_and_cover_each_record_once(
    told: list[tuple[str, int, int]], limit: int, random: Any
) -> None:
    rows = [
        {"topic": topic, "partition": partition, "offset": 10 * place, "size": size}
        for place, (topic, partition, size) in enumerate(told)
    ]
    shuffled = random.sample(rows, len(rows))
    schema = pa.schema(
        [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()), ("size", pa.int64())]
    )
    covered: list[dict[str, Any]] = []
    for count, ranges in slices(pa.Table.from_pylist(shuffled, schema=schema), limit):
        within = [
            row
            for row in rows
            if (row["topic"], row["partition"]) in ranges
            and row["offset"] in range(*ranges[row["topic"], row["partition"]])
        ]
        assert len(within) == count
        assert count == 1 or sum(row["size"] for row in within) <= limit
        covered += within
    key = "topic", "partition", "offset"
    assert sorted(covered, key=lambda row: [row[name] for name in key]) == sorted(
        rows, key=lambda row: [row[name] for name in key]
    )


def test_a_batch_is_planned_from_the_offsets_before_it(tmp_path: Path) -> None:
    for name in ("offsets", "sources/0"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "sources/0/0").write_text('\0v1\n{"in": {"0": 5, "1": 7}}')
    (tmp_path / "offsets/0").write_text('v1\n{}\n{"in": {"0": 10, "1": 7}}')
    (tmp_path / "offsets/1").write_text('v1\n{}\n{"in": {"0": 10, "1": 9, "2": 4}, "new": {"0": 3}}')
    assert planned_records(tmp_path, 0) == 5
    assert planned_records(tmp_path, 1) == 9
    assert planned_spans(tmp_path) == (
        "offsets 7 to 8 of in/1, offsets 0 to 3 of in/2, offsets 0 to 2 of new/0"
    )
    assert planned_spans(tmp_path / "absent") == "the first records"


def test_ever_fewer_records_are_taken_at_once_down_to_one() -> None:
    taken = [FEW_AT_ONCE]
    while taken[-1] > 1:
        taken.append(fewer_at_once(taken[-1]))
    assert taken == [128, 16, 2, 1]
    assert fewer_at_once(1) == 1


BROKEN = [b'{"tx_id": "cut', b"\xff", None, b"[]"]


def spoiled(count: int) -> pa.Table:
    """Payments with a record among every seven that is none, and one in nine sent twice."""
    told = events(count)
    rows = records([told[place - 1] if place % 9 == 8 else each for place, each in enumerate(told)])
    values = [
        BROKEN[place % 4] if place % 7 == 3 else value
        for place, value in enumerate(rows["value"].to_pylist())
    ]
    return rows.set_column(rows.schema.get_field_index("value"), "value", pa.array(values, pa.binary()))


def run_sliced(settings: Settings, rows: pa.Table, cuts: list[int]) -> None:
    """Decide all rows as one batch, taken in pieces."""
    spec = agent()
    bounds = [0, *sorted({cut % rows.num_rows for cut in cuts} - {0}), rows.num_rows]
    first, *more = [rows.slice(begin, end - begin) for begin, end in pairwise(bounds)]
    taken = Taken(first, iter(more), rows.select(["partition", "offset", "timestamp"]))
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients) as on,
    ):
        on.pipeline.process(lambda: taken, "live", 0, lambda: {TOPIC: {"0": rows.num_rows}})


def decided(settings: Settings) -> dict[str, pl.DataFrame]:
    """Return all that a batch left behind, but for the moments at which it did."""
    lake, moments = settings.lake(agent().name), ("created_at", "opened_at", "closed_at", "durations")
    orders = {
        "transactions": "sequence",
        "quarantine": "offset",
        "duplicates": "offset",
        "alerts": "outbox_seq",
        "batches": "batch_id",
    }
    return {
        name: pl.DataFrame(stored(lake, name, order)).drop(*moments, "versions", strict=False)
        for name, order in orders.items()
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pl.DataFrame]:
    """What a batch leaves behind that was taken at once."""
    settings = Settings.load(tmp_path_factory.mktemp("whole"))
    with pytest.MonkeyPatch.context() as patch:
        without_broker(patch)
        run_sliced(settings, spoiled(400), [])
    return decided(settings)


@pytest.mark.parametrize("cuts", [[200], [1, 2, 399], [37, 80, 81, 160, 222, 310]])
def test_no_slicing_changes_what_is_decided(
    cuts: list[int],
    whole: dict[str, pl.DataFrame],
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_broker(monkeypatch)
    run_sliced(settings, spoiled(400), cuts)
    found = decided(settings)
    assert whole["quarantine"].height > 50
    assert whole["duplicates"].height > 20
    assert whole["alerts"].height > 5
    for name, rows in whole.items():
        assert found[name].equals(rows), name


def test_rejects_are_not_held_until_the_last_slice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_broker(monkeypatch)
    spec, rows, quarantine = agent(), spoiled(60), []

    def more() -> Iterator[pa.Table]:
        yield rows.slice(20, 20)
        quarantine.append(stored(settings.lake(spec.name), "quarantine", "offset").num_rows)
        yield rows.slice(40)

    taken = Taken(rows.slice(0, 20), more(), rows.select(["partition", "offset", "timestamp"]))
    with (
        Clients(settings, "none") as clients,
        opening.open_agent(PlacedAgent(settings, spec), "127.0.0.1:1", clients) as on,
    ):
        on.pipeline.process(lambda: taken, "live", 0, lambda: {TOPIC: {"0": 60}})
    assert 0 < quarantine[0] < stored(settings.lake(spec.name), "quarantine", "offset").num_rows
