"""Takes a micro-batch in pieces that fit in memory, whatever the size of its records.

Spark plans a batch by records and learns how large they are only while it reads them. So the first piece
brings the contents of those records alone that are not larger than their share of the limit, and of all
others the place and the size. These are then read again by ranges of offsets, in slices of known size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as sql

from schemas.contract import EventContract
from schemas.counts import count_of
from schemas.errors import DataLossError
from schemas.instants import micros_of
from schemas.subscription import Subscription
from schemas.tables import UTC_MICROS
from streaming.events.decode import Decoded
from streaming.kafka.planned import Place, Range, assigned_partitions, offsets_option, ranges_in_words
from streaming.kafka.poll_size import FEW_AT_ONCE
from streaming.kafka.source import (
    options_in,
    places_in,
)

_CONTENTS = ("key", "value", "headers")
SIZE = "size"
_EARLIEST, _LATEST = (micros_of(datetime(year, 1, 1, tzinfo=UTC)) for year in (1000, 9000))
_SLICES = 4  # of the limit, so that a slice and what was taken before it fit beside each other
_FEW = 4096  # records of a small batch
_CHUNK_BYTES = 16 * 1024 * 1024
_FEWEST_TOGETHER, _MOST_TOGETHER = 16, 10_000


@dataclass(frozen=True)
class Taken:
    """The records of a batch: key, value, headers, topic, partition, offset, timestamp.

    Attributes:
        rows: what fits in memory at once; where it was decoded elsewhere, the places alone.
        more: the other records, a slice at a time, each read when it is asked for.
        stamps: timestamp and place of all records, None where `rows` are all.
        away: gives `rows` decoded, where that is done elsewhere: by a contract and the moment that stamps are
            judged by.
        size: bytes of all records together, 0 where they were counted elsewhere.
    """

    rows: pa.Table
    more: Iterable[pa.Table] = ()
    stamps: pa.Table | None = None
    away: Callable[[EventContract, datetime], Decoded] | None = None
    size: int = 0

    @classmethod
    def of(cls, taken: Taken | pa.Table) -> Taken:
        """Return a table as what was taken at once; stamps that no calendar knows are brought to its ends."""
        found = taken if isinstance(taken, Taken) else cls(taken)
        stamps = None if found.stamps is None else with_dates(found.stamps)
        more = map(with_dates, found.more)
        return replace(found, rows=with_dates(found.rows), more=more, stamps=stamps)

    @property
    def places(self) -> pa.Table:
        """Timestamp and place of all records."""
        return self.rows if self.stamps is None else self.stamps


@dataclass(frozen=True)
class Intake:
    """How the batches of a stream are taken.

    Attributes:
        bootstrap: address of the broker.
        reads: the topics.
        max_bytes: keys, values and headers that are taken at once, together; slices have a quarter of that,
            or one record.
    """

    bootstrap: str
    reads: Subscription
    max_bytes: int

    def bounded(self, frame: DataFrame) -> DataFrame:
        """Return a stream with the size of each record, without the contents of those above the share of few.

        It is part of the stream's own plan, since to plan a selection takes a tenth of a small batch's time.
        Each batch is planned anew, so the size stands in one expression alone.
        """
        return _up_to(self._share_of_few, frame.withColumn(SIZE, _size()), self._of_spark)

    def take(self, frame: DataFrame, planned: int) -> Taken:
        """Collect a micro-batch.

        Args:
            frame: of a stream that is `bounded`, as it was handed over by the query.
            planned: how many records it holds at most.

        Raises:
            DataLossError: records left the topic between the first and the second reading.
        """
        frame, share = self.shared(frame, planned)
        found = self.named(frame.toArrow())
        left_out, size = pc.greater(found[SIZE], share), pc.sum(found[SIZE].cast(pa.int64())).as_py() or 0
        rows = found.drop_columns([SIZE])
        if not pc.any(left_out).as_py():
            return Taken(rows, size=size)
        left = found.filter(left_out).select(["topic", "partition", "offset", SIZE])
        more = self.slices(frame, left, share)
        return Taken(rows.filter(pc.invert(left_out)), more, rows.select(self.places), size=size)

    def shared(self, frame: DataFrame, planned: int) -> tuple[DataFrame, int]:
        """Return a micro-batch without the contents of records above their share, and that share in bytes."""
        share = self._share_of_few
        if planned > _FEW:
            share = _rounded(self.max_bytes // planned)
            frame = _up_to(share, frame, self._of_spark)
        _bound_chunks(frame, share)
        return frame, share

    @property
    def places(self) -> list[str]:
        """The columns that say of a record where it lies, and when it came."""
        return [*dict.fromkeys(["topic", *self._of_spark])]

    @property
    def _of_spark(self) -> tuple[str, ...]:
        return places_in(self.reads)

    @property
    def _share_of_few(self) -> int:
        return self.max_bytes // _FEW

    def slices(self, frame: DataFrame, left: pa.Table, share: int) -> Iterator[pa.Table]:
        """Yield the records that were left out, a slice at a time, each read when it is asked for.

        Args:
            frame: of the stream.
            left: topic, partition, offset and size of each record of more than `share` bytes.

        Raises:
            DataLossError: records left the topic meanwhile.
        """
        largest = pc.max(left[SIZE]).as_py()
        _bound_chunks(frame, largest)
        for count, ranges in slices(left, self.max_bytes // _SLICES):
            rows = self._read_again(frame, ranges, largest).where(_size() > share)
            found = rows.select(*_CONTENTS, *self._of_spark).toArrow()
            if found.num_rows != count:
                raise DataLossError(
                    f"of {count_of(count, 'record')} in {ranges_in_words(ranges)} "
                    f"{found.num_rows} are left: their topic removed them while they were read; keep "
                    "records for longer (retention.ms)"
                )
            yield self.named(found)

    def _read_again(self, frame: DataFrame, ranges: Mapping[Place, Range], largest: int) -> DataFrame:
        session = frame.sparkSession
        reader = session.read.format("kafka").options(**options_in(session, self.bootstrap))
        bounds = {name: offsets_option(ranges, end) for end, name in enumerate(("starting", "ending"))}
        return (
            reader.option("assign", json.dumps(assigned_partitions(ranges)))
            .option("startingOffsets", bounds["starting"])
            .option("endingOffsets", bounds["ending"])
            .option("kafka.max.poll.records", max(1, min(FEW_AT_ONCE, _CHUNK_BYTES // largest)))
            .load()
        )

    def named(self, rows: pa.Table) -> pa.Table:
        """Add a single topic, one constant for the whole stream, which is not moved once per row."""
        return with_topic(rows, self.reads.names[0]) if self.reads.is_one else rows


def with_topic(rows: pa.Table, topic: str) -> pa.Table:
    """Return records with their topic, the same for all."""
    names = pa.array([topic], pa.string()).dictionary_encode().dictionary
    indices = pa.repeat(pa.scalar(0, pa.int32()), rows.num_rows)
    return rows.append_column("topic", pa.DictionaryArray.from_arrays(indices, names).cast(pa.string()))


def slices(left: pa.Table, max_bytes: int) -> Iterator[tuple[int, dict[Place, Range]]]:
    """Cut records into runs of at most `max_bytes`, or of one record.

    Args:
        left: columns topic, partition, offset and size in bytes, in any order.

    Returns:
        For each run the number of records and, by topic and partition, the first offset and the one after
        the last.
    """
    rows = left.sort_by([(name, "ascending") for name in ("topic", "partition", "offset")])
    topics, partitions, offsets, sizes = (column.to_numpy() for column in rows.columns)
    others = np.flatnonzero((topics[1:] != topics[:-1]) | (partitions[1:] != partitions[:-1])) + 1
    first = 0
    for end in [*_cuts(sizes, max_bytes), len(sizes)]:
        bounds = sorted({first, *others[(others > first) & (others < end)].tolist(), end})
        yield (
            end - first,
            {
                (topics[begin], int(partitions[begin])): (int(offsets[begin]), int(offsets[after - 1]) + 1)
                for begin, after in pairwise(bounds)
            },
        )
        first = end


def _cuts(sizes: np.ndarray[Any, Any], max_bytes: int) -> Iterator[int]:
    held = 0
    for row, size in enumerate(sizes.tolist()):
        if held and held + size > max_bytes:
            yield row
            held = 0
        held += size


def _rounded(share: int) -> int:
    """Round down to a power of two: Spark compiles the selection anew for each other number in it."""
    return 1 << (share.bit_length() - 1) if share else 0


def _bound_chunks(frame: DataFrame, largest: int) -> None:
    """Have Spark pack few large records at a time: each pack is held several times while it is made."""
    rows = max(_FEWEST_TOGETHER, min(_MOST_TOGETHER, _CHUNK_BYTES // max(largest, 1)))
    frame.sparkSession.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", rows)


def with_dates(rows: pa.Table) -> pa.Table:
    """Return records whose stamps are moments: whoever sends one may stamp it with what is none."""
    stamps = rows["timestamp"].cast(UTC_MICROS).cast(pa.int64())
    ends = pc.min_max(stamps).as_py()
    if ends["min"] is None or (ends["min"] >= _EARLIEST and ends["max"] <= _LATEST):
        return rows
    held = pc.max_element_wise(
        pc.min_element_wise(stamps, _LATEST, skip_nulls=False), _EARLIEST, skip_nulls=False
    )
    place = rows.schema.get_field_index("timestamp")
    return rows.set_column(place, "timestamp", held.cast(UTC_MICROS))


def _up_to(share: int, sized: DataFrame, places: Sequence[str]) -> DataFrame:
    """Select everything of the records of at most `share` bytes; of the others, place and size alone."""
    contents = [sql.when(sql.col(SIZE) <= share, sql.col(name)).alias(name) for name in _CONTENTS]
    return sized.select(*contents, *places, SIZE)


def _size() -> Column:
    """Bytes of a record, those of its headers by and large."""
    sizes = [sql.octet_length(column) for column in ("key", "value")]
    sizes.append(sql.octet_length(sql.col("headers").cast("string")))
    return sum((sql.coalesce(size, sql.lit(0)) for size in sizes), start=sql.lit(0))
