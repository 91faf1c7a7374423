"""The Kafka source of the stream: reader options and Spark's recorded offsets."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from pyspark.sql import DataFrame, SparkSession

from schemas.errors import DataLossError
from schemas.subscription import Subscription
from streaming.home.brokers import spark_connection
from streaming.kafka.poll_size import FEW_AT_ONCE, fetch_bytes
from streaming.kafka.shading import with_class_names
from streaming.store.whole_files import sync_path

_AT_ONCE, _FETCHED = "kafka.max.poll.records", "kafka.max.partition.fetch.bytes"
_FEWER = 8
_PLACES = ("partition", "offset", "timestamp", "timestampType")


def read_stream(
    session: SparkSession,
    bootstrap: str,
    reads: Subscription,
    *,
    max_records: int,
    starting: str,
    most_at_once: int = FEW_AT_ONCE,
) -> DataFrame:
    """Return the streaming frame of topics: key, value, headers and `places_in`.

    `starting` is `earliest`, `latest` or Spark's JSON of offsets; a checkpoint overrides it. A task takes
    `most_at_once` records from the broker at once.
    """
    how = (
        ("subscribe", ",".join(reads.names))
        if reads.pattern is None
        else ("subscribePattern", reads.expression)
    )
    return (
        session.readStream.format("kafka")
        .options(**options_in(session, bootstrap))
        .option(_AT_ONCE, most_at_once)
        .option(_FETCHED, fetch_bytes(most_at_once))
        .option(*how)
        .option("startingOffsets", starting)
        .option("maxOffsetsPerTrigger", max_records)
        .load()
        .select("key", "value", "headers", *places_in(reads))
    )


def options_in(session: SparkSession, bootstrap: str) -> dict[str, str]:
    """Return the options of a reader, with the names that classes have in the session's JVM."""

    def is_loadable(name: str) -> bool:
        utilities = getattr(session._jvm, "org.apache.spark.util.Utils")
        return bool(utilities.classIsLoadable(name))

    return with_class_names(reader_options(bootstrap), is_loadable)


def places_in(reads: Subscription) -> tuple[str, ...]:
    """Return the columns that Spark gives of a record's place: partition, offset, timestamp and its type.

    The topic is among them where there may be several; a single one is the same constant in every row.
    """
    return _PLACES if reads.is_one else ("topic", *_PLACES)


def reader_options(bootstrap: str) -> dict[str, str]:
    """Return what every reading of the topic by Spark has in common.

    The broker answers a fetch after 20 ms: with its default of 500 ms every trigger waits that long. What is
    fetched is unpacked in memory, where a megabyte can have come from a kilobyte, so few records are taken at
    once until a stream has shown that they are small (streaming.kafka.poll_size).
    """
    return {
        **spark_connection(bootstrap),
        "kafka.isolation.level": "read_committed",
        "kafka.fetch.max.wait.ms": "20",
        _FETCHED: str(fetch_bytes(FEW_AT_ONCE)),
        _AT_ONCE: str(FEW_AT_ONCE),
        "failOnDataLoss": "true",
        "includeHeaders": "true",
    }


def fewer_at_once(most: int) -> int:
    """Return how many records are taken at once after so many of them were more than the JVM holds."""
    return max(most // _FEWER, 1)


def query_id_of(checkpoint: Path) -> str | None:
    """Return the query id recorded in a Spark checkpoint folder, None for a fresh one.

    Raises:
        DataLossError: what is recorded was cut off.
    """
    path = checkpoint / "metadata"
    if not path.is_file():
        return None
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    except (ValueError, KeyError, TypeError):
        raise DataLossError(f"{path}: Spark's record of its query is not whole") from None


def offsets_of(checkpoint: Path, batch_id: int) -> dict[str, dict[str, int]]:
    """Return the end offsets Spark planned for a batch: topic → partition → next offset.

    Raises:
        DataLossError: the checkpoint holds no such batch.
    """
    path = checkpoint / "offsets" / str(batch_id)
    for line in reversed(path.read_text(encoding="utf-8").splitlines() if path.is_file() else []):
        parsed: Any = _read(line) if line.startswith("{") else None
        if isinstance(parsed, dict) and all(isinstance(value, dict) for value in parsed.values()):
            return cast("dict[str, dict[str, int]]", parsed)
    raise DataLossError(f"{path}: Spark recorded no offsets for batch {batch_id}")


def _read(line: str) -> Any:
    """Return what a line says, None where it was cut off."""
    with suppress(ValueError):
        return json.loads(line)
    return None


def initial_offsets(checkpoint: Path) -> dict[str, dict[str, int]] | None:
    """Return where Spark began: topic → partition → offset; None for a fresh checkpoint."""
    path = checkpoint / "sources" / "0" / "0"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    begins: dict[str, dict[str, int]] = json.loads(text[text.index("{") :])
    return begins


def begins_of(checkpoint: Path, batch_id: int) -> dict[str, dict[str, int]] | None:
    """Return where a planned batch begins: topic → partition → offset; None where Spark noted no beginning.

    Raises:
        DataLossError: the checkpoint holds no batch before it.
    """
    return offsets_of(checkpoint, batch_id - 1) if batch_id else initial_offsets(checkpoint)


def last_planned(checkpoint: Path) -> int | None:
    """Return the number of the newest batch that Spark has planned."""
    return _newest_number(checkpoint / "offsets")


def last_committed(checkpoint: Path) -> int | None:
    """Return the number of the newest batch in Spark's commit log."""
    return _newest_number(checkpoint / "commits")


def take_back(checkpoint: Path, batch_id: int) -> None:
    """Have Spark give a batch that it holds for done once more, and plan anew what comes after it.

    Plans of later batches go first and the newest before the others. Spark runs its newest plan alone, so a
    batch would be lost whose plan stayed while a later one was there.
    """
    for folder, least in (("offsets", batch_id + 1), ("commits", batch_id)):
        for number in sorted(_numbers(checkpoint / folder), reverse=True):
            if number >= least:
                (checkpoint / folder / f".{number}.crc").unlink(missing_ok=True)
                (checkpoint / folder / str(number)).unlink()
        if (checkpoint / folder).is_dir():
            sync_path(checkpoint / folder)


def committed_offsets(checkpoint: Path) -> dict[str, dict[str, int]]:
    """Return the end offsets of the newest batch that Spark has committed, empty for none."""
    newest = last_committed(checkpoint)
    return {} if newest is None else offsets_of(checkpoint, newest)


def _newest_number(folder: Path) -> int | None:
    return max(_numbers(folder), default=None)


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
