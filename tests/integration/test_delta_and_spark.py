"""Tables written by the lake belong to Delta: Spark reads the same rows, version by version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from schemas.contract import load_contract
from schemas.errors import FencedError
from schemas.tables import transactions_schema
from streaming.delta.lake_table import LakeTable, Stamp
from streaming.store.place import Place

SCHEMA = transactions_schema(load_contract("simulator").arrow_schema())
STREAM = "tester/query"
FENCE = "tester/epoch"
ROWS = 3
COMMITS = 8
START = datetime(2024, 5, 1, 12, 0, 0, 123_456, tzinfo=UTC)


@pytest.fixture(autouse=True)
def small_snapshots(spark: SparkSession) -> None:
    """Delta reads even the smallest log in 50 tasks unless told otherwise."""
    spark.conf.set("spark.databricks.delta.snapshotPartitions", "1")


def batch(number: int) -> pa.Table:
    """Three transactions, with a null and text that wants escaping among them."""
    sequences = range(number * ROWS, number * ROWS + ROWS)
    columns = {
        "sequence": list(sequences),
        "transaction_id": [f"t{each}" for each in sequences],
        "event_time": [START + timedelta(microseconds=each) for each in sequences],
        "amount": [each / 3 for each in sequences],
        "currency": ["EUR"] * ROWS,
        "customer": [f"c{each % 2}" for each in sequences],
        "terminal": [f"m{each}" for each in sequences],
        "merchant_category": ["grocery", None, "travel"],
        "country": ["DE"] * ROWS,
        "memo": ['ünusual \N{SNOWMAN}\n"quoted"', None, ""],
        "topic": ["events"] * ROWS,
        "partition": [0] * ROWS,
        "offset": list(sequences),
        "kafka_timestamp": [START] * ROWS,
        "query_id": ["query"] * ROWS,
        "batch_id": [number] * ROWS,
        "late": [each % 2 == 0 for each in sequences],
        "faults": [["memo: cut"], None, None],
    }
    return pa.table(columns, schema=SCHEMA)


def open_table(path: Path, epoch: int = 1) -> LakeTable:
    table = LakeTable(Place.local(path), SCHEMA, FENCE, timedelta(days=30))
    table.claim(epoch)
    return table


def spark_rows(spark: SparkSession, path: Path, version: int | None = None) -> pa.Table:
    reader = spark.read.format("delta")
    if version is not None:
        reader = reader.option("versionAsOf", version)
    return reader.load(str(path)).sort("sequence").toArrow().select(SCHEMA.names).cast(SCHEMA)


def batches(count: int) -> pa.Table:
    return pa.concat_tables([SCHEMA.empty_table(), *(batch(number) for number in range(count))])


def test_spark_reads_every_version_before_and_after_compaction(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.delta.lake_table._TIDY_EVERY", 5)
    path = tmp_path / "transactions"
    table = open_table(path)
    claimed = table.version
    contents = {claimed: 0}
    for number in range(COMMITS):
        assert table.append(batch(number), Stamp(STREAM, number))
        contents[table.version] = number + 1
        if number == 2:
            assert spark_rows(spark, path, claimed + 2) == batches(2)
        if table.tidy():
            contents[table.version] = number + 1
            compacted = table.version
    assert table.version == claimed + COMMITS + 1, "compacted once"
    for version in (claimed, claimed + 2, compacted - 1, compacted):
        assert spark_rows(spark, path, version) == batches(contents[version])
    assert spark_rows(spark, path) == batches(COMMITS) == table.read("sequence", 0)


def spark_append(spark: SparkSession, path: Path, number: int, app_id: str = STREAM) -> None:
    writer = spark.createDataFrame(batch(number)).write.format("delta").mode("append")
    writer.option("txnAppId", app_id).option("txnVersion", number).save(str(path))


def test_a_batch_committed_by_one_writer_is_known_to_the_other(spark: SparkSession, tmp_path: Path) -> None:
    path = tmp_path / "transactions"
    table = open_table(path)
    assert table.append(batch(0), Stamp(STREAM, 0), {"query_id": "query", "batch_id": 0})

    spark_append(spark, path, 0)
    assert spark_rows(spark, path) == batches(1), "Spark knows what delta-rs committed"

    for _ in range(2):
        spark_append(spark, path, 1)
    assert spark_rows(spark, path) == batches(2)

    later = open_table(path, epoch=2)
    assert later.last_batch(STREAM) == 1
    assert not later.append(batch(1), Stamp(STREAM, 1)), "delta-rs knows what Spark committed"
    assert later.append(batch(2), Stamp(STREAM, 2))
    assert spark_rows(spark, path) == batches(3) == later.read("sequence", 0)
    with pytest.raises(FencedError):
        table.append(batch(3), Stamp(STREAM, 3))
