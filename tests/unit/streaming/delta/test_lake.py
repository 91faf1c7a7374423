from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, DataLossError, FencedError, MachineError
from streaming.delta import lake_table
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.delta.table_versions import open_for_reading
from streaming.delta.whole_tables import read_stored
from streaming.store.place import Place

SCHEMA = pa.schema([("sequence", pa.int64()), ("note", pa.string()), ("at", pa.timestamp("us", tz="UTC"))])
START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def where(tmp_path: Path) -> Place:
    """Where the lakes of these tests lie; tests of stores have another."""
    return Place.local(tmp_path)


def open_table(where: Place, schema: pa.Schema = SCHEMA) -> LakeTable:
    return LakeTable(where / "things", schema, "agent/epoch", timedelta(days=30))


def claimed(where: Place) -> LakeTable:
    table = open_table(where)
    table.claim(table.epoch + 1)
    return table


def rows(first: int, count: int) -> pa.Table:
    numbers = list(range(first, first + count))
    times = [START + timedelta(microseconds=number * 1_500) for number in numbers]
    return pa.table({"sequence": numbers, "note": ["x"] * count, "at": times}, schema=SCHEMA)


def test_a_repeated_append_writes_nothing(where: Place) -> None:
    table = claimed(where)
    assert table.append(rows(0, 3), Stamp("app", 0))
    assert not table.append(rows(3, 3), Stamp("app", 0))
    assert claimed(where).count() == 3


def test_a_new_stream_starts_its_batches_at_zero_again(where: Place) -> None:
    table = claimed(where)
    assert table.append(rows(0, 3), Stamp("app/first", 5))
    assert table.append(rows(3, 3), Stamp("app/second", 0))
    assert (table.last_batch("app/first"), table.last_batch("app/second")) == (5, 0)


def test_a_superseded_driver_is_refused_whatever_the_age_of_its_handle(where: Place) -> None:
    old = claimed(where)
    old.append(rows(0, 1), Stamp("app", 0))
    claimed(where)
    with pytest.raises(FencedError):
        old.append(rows(1, 1), Stamp("app", 1))
    with pytest.raises(FencedError):
        old.append(rows(1, 1), Stamp("app", 1))
    assert open_table(where).count() == 1


def test_two_drivers_cannot_claim_the_same_epoch(where: Place) -> None:
    first, second = open_table(where), open_table(where)
    first.claim(1)
    with pytest.raises(FencedError):
        second.claim(1)


def test_an_empty_batch_is_decided_too(where: Place) -> None:
    table = claimed(where)
    assert table.append(rows(0, 0), Stamp("app", 0), {"query_id": "q", "batch_id": 0, "kept": [1, 2]})
    assert table.last_batch("app") == 0
    assert table.metadata_of("q", 0)["kept"] == [1, 2]


def test_metadata_of_an_unknown_batch_is_an_error(where: Place) -> None:
    table = claimed(where)
    assert table.newest_metadata() is None
    with pytest.raises(DataLossError, match="batch 7"):
        table.metadata_of("q", 7)


BOUNDS = st.one_of(
    st.integers(-2, 10), st.integers(-(10**30), 10**30), st.sampled_from([2**63, -(2**63) - 1])
)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> LakeTable:
    """A table that holds 0 to 8."""
    table = claimed(Place.local(tmp_path_factory.mktemp("held")))
    for batch, first in enumerate((6, 0, 3)):
        table.append(rows(first, 3), Stamp("app", batch))
    return table


@given(BOUNDS, st.none() | BOUNDS)
def test_any_bounds_choose_the_rows_within_them(held: LakeTable, at_least: int, below: int | None) -> None:
    expected = [each for each in range(9) if each >= at_least and (below is None or each < below)]
    assert held.read("sequence", at_least, below)["sequence"].to_pylist() == expected


def test_reads_come_back_in_order_from_the_files_that_matter(where: Place) -> None:
    table = claimed(where)
    for batch, first in enumerate((6, 0, 3)):
        table.append(rows(first, 3), Stamp("app", batch))
    assert table.read("sequence", 2, 7)["sequence"].to_pylist() == [2, 3, 4, 5, 6]
    assert table.maximum("sequence") == 8
    assert table.read("sequence", 100).num_rows == 0
    assert len(table.files("sequence", 2, 4)) == 2
    assert len(table.files("sequence", 8, None)) == 1


def test_reads_by_time_are_exact_to_the_microsecond(where: Place) -> None:
    table = claimed(where)
    table.append(rows(0, 2), Stamp("app", 0))
    micros = int(START.timestamp() * 1_000_000)
    assert table.read("at", micros + 1_500)["sequence"].to_pylist() == [1]
    assert table.read("at", micros + 1_501).num_rows == 0


def test_compaction_keeps_rows_stamps_and_the_fence(where: Place) -> None:
    table = claimed(where)
    tidied = False
    batch = 0
    while not tidied:
        table.append(rows(batch * 2, 2), Stamp("app", batch))
        tidied = table.tidy()
        batch += 1
    assert table.read("sequence", 0)["sequence"].to_pylist() == list(range(2 * batch))
    assert not table.append(rows(0, 1), Stamp("app", batch - 1))
    claimed(where)
    with pytest.raises(FencedError):
        table.append(rows(0, 1), Stamp("app", batch))


def test_a_table_with_other_columns_is_refused_by_name(where: Place) -> None:
    claimed(where)
    with pytest.raises(ConfigurationError, match="extra"):
        open_table(where, SCHEMA.append(pa.field("extra", pa.int64())))


def test_a_table_of_many_columns_is_read_by_its_last_one(where: Place) -> None:
    fields = [pa.field(f"c{place}", pa.int64()) for place in range(40)]
    schema = pa.schema([*fields, pa.field("at", pa.int64())])
    table = LakeTable(where / "wide", schema, "agent/epoch", timedelta(days=30))
    table.claim(1)
    columns = {name: list(range(5)) for name in schema.names}
    table.append(pa.table(columns, schema), Stamp("agent/q", 0))
    assert table.maximum("at") == 4
    assert table.read("at", 3, columns=["c0"]).to_pydict() == {"at": [3, 4], "c0": [3, 4]}


def test_files_without_statistics_are_opened_rather_than_passed_over(where: Place) -> None:
    schema = pa.schema([pa.field(f"c{place}", pa.int64()) for place in range(40)])
    wide = where / "wide"
    DeltaTable.create(wide.uri, schema, storage_options=wide.storage_options)
    table = LakeTable(where / "wide", schema, "agent/epoch", timedelta(days=30))
    table.claim(1)
    table.append(pa.table({name: [1, 2, 3] for name in schema.names}, schema), Stamp("agent/q", 0))
    assert table.maximum("c39") == 3
    assert table.read("c39", 2)["c39"].to_pylist() == [2, 3]


def test_metadata_is_found_however_many_takeovers_lie_behind_it(where: Place) -> None:
    claimed(where).append(rows(0, 2), Stamp("agent/q", 0), {"query_id": "q", "batch_id": 0})
    for epoch in range(2, 70):
        open_table(where).claim(epoch)
    assert open_table(where).metadata_of("q", 0)["batch_id"] == 0


def test_what_cannot_be_read_is_not_taken_for_absent(where: Place) -> None:
    claimed(where)
    assert open_for_reading(where / "nowhere") is None
    log = next(where.path.rglob("_delta_log"))
    next(iter(sorted(log.glob("*.json")))).write_text("{", encoding="utf-8")
    with pytest.raises(MachineError, match="cannot be read"):
        open_for_reading(Place.local(log.parent))


def test_two_threads_commit_through_one_handle_while_it_is_tidied(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lake_table, "_TIDY_EVERY", 3)
    table = claimed(where)

    def commit(app: str) -> None:
        for number in range(12):
            assert table.append(rows(number, 1), Stamp(app, number))
            table.tidy()

    with ThreadPoolExecutor(2) as both:
        for each in [both.submit(commit, app) for app in ("batches", "late")]:
            each.result()
    assert claimed(where).count() == 24


def test_a_table_from_before_a_column_came_is_given_it_and_reads_as_without_a_value(where: Place) -> None:
    schema = pa.schema([pa.field("number", pa.int64(), nullable=False)])
    wider = pa.schema([*schema, pa.field("passed_by", pa.int64())])
    older = LakeTable(where / "alerts", schema, "a/epoch", timedelta(days=1))
    older.claim(1)
    older.append(pa.table({"number": [1]}, schema=schema), Stamp("a/q", 0))
    with pytest.raises(ConfigurationError, match="passed_by"):
        LakeTable(where / "alerts", wider, "a/epoch", timedelta(days=1))
    newer = LakeTable(where / "alerts", wider, "a/epoch", timedelta(days=1), ["passed_by"])
    newer.claim(2)
    for number, passed_by in ((2, None), (3, 7)):
        newer.append(
            pa.table({"number": [number], "passed_by": [passed_by]}, schema=wider), Stamp("a/q", number)
        )
    held = [{"number": 1, "passed_by": None}, {"number": 2, "passed_by": None}, {"number": 3, "passed_by": 7}]
    assert newer.read("number", 0).to_pylist() == held
    assert newer.read("passed_by", 0).to_pylist() == held[2:]
    assert len(newer.files("passed_by", 0, None)) == 2, "not the file that is known to hold no value"
    found = read_stored(where / "alerts", ["number", "passed_by"])
    assert found is not None
    assert found.sort_by("number").to_pylist() == held
