"""The Kafka source of the stream: reader options, the micro-batch as Arrow, Spark's recorded offsets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession

from schemas.errors import DataLossError

Offsets = Mapping[str, Mapping[str, int]]


def read_stream(
    session: SparkSession, bootstrap: str, topic: str, *, max_records: int, starting: str
) -> DataFrame:
    """Return the streaming frame of a topic: key, value, headers, partition, offset, timestamp.

    `starting` is `earliest`, `latest` or Spark's JSON of offsets; a checkpoint overrides it. The broker is
    told to answer a fetch after 20 ms: with its default of 500 ms every trigger waits that long.
    """
    return (
        session.readStream.format("kafka")
        .option("kafka.bootstrap.servers", bootstrap)
        .option("subscribe", topic)
        .option("startingOffsets", starting)
        .option("maxOffsetsPerTrigger", max_records)
        .option("kafka.isolation.level", "read_committed")
        .option("kafka.fetch.max.wait.ms", "20")
        .option("failOnDataLoss", "true")
        .option("includeHeaders", "true")
        .load()
        .select("key", "value", "headers", "partition", "offset", "timestamp")
    )


def take(frame: DataFrame, topic: str) -> pa.Table:
    """Collect one micro-batch: columns key, value, headers, topic, partition, offset, timestamp.

    The topic is one constant for the whole stream, so it is added here and not moved once per row.
    """
    rows = frame.toArrow()
    names = pa.array([topic], pa.string()).dictionary_encode().dictionary
    indices = pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows)
    return rows.append_column("topic", pa.DictionaryArray.from_arrays(indices, names).cast(pa.string()))


def query_id_of(checkpoint: Path) -> str | None:
    """Return the query id recorded in a Spark checkpoint folder, None for a fresh one."""
    path = checkpoint / "metadata"
    if not path.is_file():
        return None
    return str(json.loads(path.read_text(encoding="utf-8"))["id"])


def offsets_of(checkpoint: Path, batch_id: int) -> dict[str, dict[str, int]]:
    """Return the end offsets Spark planned for a batch: topic → partition → next offset.

    Raises:
        DataLossError: the checkpoint holds no such batch.
    """
    path = checkpoint / "offsets" / str(batch_id)
    for line in reversed(path.read_text(encoding="utf-8").splitlines() if path.is_file() else []):
        parsed: Any = json.loads(line) if line.startswith("{") else None
        if isinstance(parsed, dict) and all(isinstance(value, dict) for value in parsed.values()):
            return cast("dict[str, dict[str, int]]", parsed)
    raise DataLossError(f"{path}: Spark recorded no offsets for batch {batch_id}")
