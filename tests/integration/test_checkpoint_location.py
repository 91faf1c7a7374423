"""A checkpoint that Spark wrote under a plain path is the one that it finds under the location of today."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from pyspark.sql import DataFrame, SparkSession

from schemas.subscription import Subscription
from streaming.batch.stream_settings import StreamSettings
from streaming.kafka.source import last_committed, last_planned, take_back


def read(spark: SparkSession, folder: Path, location: str) -> list[tuple[int, list[str]]]:
    """Read what is new in a folder, and return each batch with its number."""
    seen = list[tuple[int, list[str]]]()

    def take(frame: DataFrame, number: int) -> None:
        seen.append((number, [row.value for row in frame.collect()]))

    writer = spark.readStream.text(str(folder)).writeStream.foreachBatch(take)
    query = writer.option("checkpointLocation", location).trigger(availableNow=True).start()
    query.awaitTermination()
    return seen


@pytest.mark.parametrize("name", ["plain", "of Ada", "100%25 ü#1"])
def test_a_stream_goes_on_from_a_checkpoint_of_a_plain_path(
    name: str, spark: SparkSession, tmp_path: Path
) -> None:
    folder, checkpoint = tmp_path / "input", tmp_path / name
    folder.mkdir()
    settings = StreamSettings("one:9092", Subscription(("a",)), checkpoint, 1, 1, "earliest")
    (folder / "1").write_text("before", encoding="utf-8")
    assert read(spark, folder, str(checkpoint)) == [(0, ["before"])]
    (folder / "2").write_text("after", encoding="utf-8")
    assert read(spark, folder, settings.checkpoint_location) == [(1, ["after"])]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["input", name])


@pytest.mark.parametrize("planned", [True, False])
def test_spark_gives_a_batch_again_that_is_taken_back_though_it_has_planned_later_ones(
    spark: SparkSession, tmp_path: Path, *, planned: bool
) -> None:
    folder, checkpoint = tmp_path / "input", tmp_path / "checkpoint"
    folder.mkdir()
    for number, text in enumerate(("first", "second", "third")):
        (folder / str(number)).write_text(text, encoding="utf-8")
        assert read(spark, folder, str(checkpoint)) == [(number, [text])]
    if planned:
        (checkpoint / "commits" / "2").unlink()
        assert (last_committed(checkpoint), last_planned(checkpoint)) == (1, 2)
    take_back(checkpoint, 1)
    given, *later = read(spark, folder, str(checkpoint))
    assert given == (1, ["second"])
    assert [text for _, texts in later for text in texts] == ["third"]


def test_spark_writes_no_checksums_beside_a_checkpoint_and_goes_on_from_one_that_has_some(
    spark: SparkSession, tmp_path: Path
) -> None:
    folder, checkpoint = tmp_path / "input", tmp_path / "checkpoint"
    folder.mkdir()
    for number, text in enumerate(("first", "second")):
        (folder / str(number)).write_text(text, encoding="utf-8")
        assert read(spark, folder, str(checkpoint)) == [(number, [text])]
        assert list(checkpoint.rglob(f"*.{number}.crc")) == []
        for kept in ("offsets", "commits"):  # as version 0.1.0 left them, and of other bytes
            (checkpoint / kept / f".{number}.crc").write_bytes(b"crc\0" + bytes(8))


def children_ended(jvm: int) -> int:
    """Return the minor page faults of all processes that a process started and that have ended."""
    text = Path(f"/proc/{jvm}/stat").read_text(encoding="ascii")
    return int(text.rpartition(")")[2].split()[8])


def test_spark_starts_one_process_for_each_file_of_a_batch_and_no_more(
    spark: SparkSession, tmp_path: Path
) -> None:
    """It has two files, and by the interface that Spark prefers there would be ten processes."""
    jvm = spark.sparkContext._jvm
    assert jvm is not None
    own = jvm.java.lang.ProcessHandle.current().pid()
    seen, ended = list[int](), threading.Event()

    def count(_: DataFrame, __: int) -> None:
        seen.append(children_ended(own))
        if len(seen) == 4:
            ended.set()

    reader = spark.readStream.format("rate-micro-batch").option("rowsPerBatch", 1)
    writer = reader.load().writeStream.foreachBatch(count)
    query = writer.option("checkpointLocation", str(tmp_path / "checkpoint")).start()
    assert ended.wait(120), query.exception()
    query.stop()
    before = children_ended(own)
    jvm.java.lang.ProcessBuilder(
        ["chmod", "0644", str(tmp_path / "checkpoint" / "metadata")]
    ).start().waitFor()
    one = children_ended(own) - before
    assert 0 < seen[3] - seen[1] < 2 * 3 * one
