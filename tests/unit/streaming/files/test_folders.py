"""Folders as Spark writes them, and Delta tables of other people."""

from __future__ import annotations

import gzip
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from schemas.loading import parse_document
from streaming.files.delta_table import DeltaTableRows
from streaming.files.event_files import open_events
from streaming.files.opening import data_files, is_delta, source_place
from streaming.store.place import SCHEMES

CONTRACT = parse_document(
    {
        "name": "own",
        "transaction_id": {"field": "id", "type": "integer"},
        "event_time": {"field": "ts"},
        "amount": {"field": "amount"},
        "currency": {"field": "currency"},
        "entities": {"account": {"field": "accounts[0].id"}},
        "extra": {"hour": {"field": "hour", "type": "integer"}, "second": {"field": "accounts[1].id"}},
    },
    EventContract,
    where="test",
)

ACCOUNTS = pa.list_(pa.struct([("id", pa.string()), ("kind", pa.string())]))
SCHEMA = pa.schema(
    [("id", pa.int64()), ("ts", pa.string()), ("amount", pa.float64()), ("accounts", ACCOUNTS)]
)


def rows(*numbers: int) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "id": number,
                "ts": f"2026-11-28T12:00:{number:02}Z",
                "amount": number + 0.5,
                "accounts": [{"id": f"a{number}", "kind": "x"}] * (number % 3),
            }
            for number in numbers
        ],
        SCHEMA,
    )


def events(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [
        orjson.loads(value)
        for chunk in open_events(path, CONTRACT, **options).chunks()
        for value in chunk.values
    ]


def part(folder: Path, name: str, table: pa.Table) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name)


def test_a_folder_of_spark_is_read_in_order_with_its_partitions(tmp_path: Path) -> None:
    part(tmp_path, "currency=EUR/hour=7/part-00001.snappy.parquet", rows(2))
    part(tmp_path, "currency=EUR/hour=7/part-00000.snappy.parquet", rows(1, 3))
    part(tmp_path, "currency=US%20D/hour=__HIVE_DEFAULT_PARTITION__/part-00000.parquet", rows(4))
    part(tmp_path, "_temporary/part-00000.parquet", rows(9))
    for name in ("_SUCCESS", "currency=EUR/.part-00000.parquet.crc", "empty.parquet"):
        (tmp_path / name).touch()
    found = events(tmp_path)
    assert [each["id"] for each in found] == [1, 3, 2, 4]
    assert [(each["currency"], each["hour"]) for each in found] == [("EUR", 7)] * 3 + [("US D", None)]
    first = [each["accounts"][0]["id"] for each in found]
    assert first == ["a1", None, "a2", "a4"]
    assert found[2]["accounts"][1]["id"] == "a2"
    assert open_events(tmp_path, CONTRACT).rows == 4


def test_a_folder_of_lines_of_json_is_read_alike(tmp_path: Path) -> None:
    for number, name in ((1, "part-00000.json.gz"), (2, "part-00001.json.gz")):
        (row,) = rows(number).to_pylist()
        text = orjson.dumps({**row, "currency": "EUR", "label": 1}) + b"\n"
        (tmp_path / name).write_bytes(gzip.compress(text))
    found = events(tmp_path)
    assert [(each["id"], each["accounts"]) for each in found] == [
        (1, [{"id": "a1"}]),
        (2, [{"id": "a2"}, {"id": "a2"}]),
    ]


def test_folders_without_files_or_of_several_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a folder without files of data"):
        open_events(tmp_path, CONTRACT)
    part(tmp_path, "a.parquet", rows(1))
    (tmp_path / "b.csv").write_text("id\n1\n")
    with pytest.raises(
        ConfigurationError, match="a folder with files of csv and parquet; expected files of one kind"
    ):
        open_events(tmp_path, CONTRACT)


def test_an_array_column_that_is_none_is_named(tmp_path: Path) -> None:
    table = rows(1).set_column(3, "accounts", pa.array(["a"])).append_column("currency", pa.array(["EUR"]))
    part(tmp_path, "a.parquet", table.append_column("hour", pa.array([1])))
    with pytest.raises(ConfigurationError, match=r"a\.parquet: .*'accounts\[0\]\.id'.*string is no array"):
        open_events(tmp_path / "a.parquet", CONTRACT)


def test_a_delta_table_of_spark_is_read_by_time_with_its_partitions_at_any_version(tmp_path: Path) -> None:
    path = tmp_path / "table"
    for number in (3, 1, 2):
        table = rows(number).append_column("currency", pa.array(["US D"]))
        write_deltalake(
            path, table.append_column("hour", pa.array([number])), partition_by=["currency"], mode="append"
        )
    found = events(path)
    assert [(each["id"], each["currency"], each["hour"]) for each in found] == [
        (number, "US D", number) for number in (1, 2, 3)
    ]
    assert [each["id"] for each in events(path, version=1)] == [1, 3]
    with pytest.raises(ConfigurationError, match="version 9 of it cannot be read"):
        open_events(path, CONTRACT, version=9)


def test_times_of_spark_that_nanoseconds_cannot_hold_stay_what_they_are(tmp_path: Path) -> None:
    moment = datetime(1600, 2, 29, 12, tzinfo=UTC)
    table = with_all(rows(1)).set_column(1, "ts", pa.array([moment], pa.timestamp("us", "UTC")))
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    (found,) = events(tmp_path / "a.parquet")
    assert datetime.fromisoformat(found["ts"]).replace(tzinfo=UTC) == moment


def test_ids_that_a_table_with_gaps_holds_as_floats_are_whole(tmp_path: Path) -> None:
    table = rows(1).set_column(0, "id", pa.array([7.0])).append_column("currency", pa.array(["EUR"]))
    part(tmp_path, "a.parquet", table.append_column("hour", pa.array([8.0])))
    (found,) = events(tmp_path / "a.parquet")
    assert (found["id"], found["hour"]) == (7, 8)


def test_the_digest_of_a_folder_tells_its_names_and_content(tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 1), ("c", 2)):
        part(tmp_path / name, "part-0.parquet", with_all(rows(number)))
    first, same, other = (open_events(tmp_path / name, CONTRACT).digest() for name in "abc")
    assert first == same != other


def with_all(table: pa.Table) -> pa.Table:
    return table.append_column("currency", pa.array(["EUR"])).append_column("hour", pa.array([1]))


@pytest.mark.parametrize("given", ["s3://bucket/table", "abfss://c@account.dfs.core.windows.net/t"])
@pytest.mark.parametrize("before", ["", "/folder/of/the/spec/"])
def test_a_uri_is_told_from_a_file_that_is_missing(before: str, given: str) -> None:
    with pytest.raises(ConfigurationError, match="read from folders of this machine: copy it here, or mount"):
        data_files(Path(before + given))


@pytest.mark.parametrize("given", ["file:///data/x.csv", "file:/data/x.csv"])
@pytest.mark.parametrize("before", ["", "/folder/of/the/spec/"])
def test_a_uri_of_this_machine_is_answered_with_the_path(before: str, given: str) -> None:
    for opened in (data_files, is_delta, DeltaTableRows):
        with pytest.raises(ConfigurationError, match=r"named by its path, not by a URI: /data/x\.csv"):
            opened(Path(before + given))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("before", ["", "/folder/of/the/spec/"])
def test_a_place_in_any_store_is_told_from_a_path(before: str, scheme: str) -> None:
    with suppress(ConfigurationError):  # one that is not supported is named as what it is
        assert not source_place(Path(f"{before}{scheme}://bucket/table")).is_local


def test_tables_of_others_in_stores_are_waited_for_as_the_environment_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLAGSTREAM_STORE_OPTIONS", "timeout=7s,max_retries=1")
    options = source_place(Path("s3://bucket/table")).storage_options
    assert options is not None
    assert (options["timeout"], options["max_retries"], options["connect_timeout"]) == ("7s", "1", "5s")
