"""A checkpoint that Spark wrote under a plain path is the one that it finds under the location of today."""

from __future__ import annotations

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
        (checkpoint / "commits" / ".2.crc").unlink()
        assert (last_committed(checkpoint), last_planned(checkpoint)) == (1, 2)
    take_back(checkpoint, 1)
    given, *later = read(spark, folder, str(checkpoint))
    assert given == (1, ["second"])
    assert [text for _, texts in later for text in texts] == ["third"]
