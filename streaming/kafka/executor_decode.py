"""What runs on executors: the records of a task, an Arrow batch at a time, decoded and packed.

An answer is a row of binary values, each an Arrow stream, so that the JVM moves bytes and not records.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from streaming.arrays.kernel_folder import keep_kernels_in
from streaming.events.decode import Decoded, decode
from streaming.events.decoder_version import decoder_version
from streaming.kafka.intake import SIZE, with_dates, with_topic

_PARTS = ("places", "left", "valid", "rejected", "filtered")
ANSWER = "made_by string, " + ", ".join(f"{each} binary" for each in _PARTS)
_FIELDS = pa.schema([("made_by", pa.string()), *((each, pa.binary()) for each in _PARTS)])


@dataclass(frozen=True)
class DecodeOrder:
    """What a task needs to know.

    Attributes:
        contract: what the records mean; one that reads by a schema registry cannot be used here.
        now: the moment that stamps are judged by.
        topic: the only one of the stream, None where records name theirs.
        places: the columns that say of a record where it lies, and when it came.
        share: bytes; larger records have come without their contents.
        kernels: folder of compiled kernels, None for beside the sources.
    """

    contract: EventContract
    now: datetime
    topic: str | None
    places: tuple[str, ...]
    share: int
    kernels: Path | None = None


@dataclass(frozen=True)
class DecodedPiece:
    """What became of one Arrow batch.

    Attributes:
        made_by: the decoder, see streaming.events.decoder_version.
        places: of all its records.
        left: topic, partition, offset and size of those above the share.
        decoded: all others.
    """

    made_by: str
    places: pa.Table
    left: pa.Table
    decoded: Decoded

    def packed(self) -> pa.RecordBatch:
        """Return it as a row of `ANSWER`."""
        found = self.decoded
        parts = (self.places, self.left, found.valid, found.rejected, found.filtered)
        values = [[self.made_by], *([_pack(each)] for each in parts)]
        arrays = [pa.array(each, field.type) for each, field in zip(values, _FIELDS, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=_FIELDS)

    @classmethod
    def unpacked(cls, made_by: str, *parts: bytes) -> DecodedPiece:
        """Read it from a row."""
        places, left, *decoded = (pa.ipc.open_stream(each).read_all() for each in parts)
        return cls(made_by, places, left, Decoded(*decoded))


def decode_task(order: DecodeOrder, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Decode the records of a task; what `mapInArrow` calls.

    Args:
        order: the same for all tasks of a batch.
        batches: key, value, headers, place and size of each record.

    Yields:
        A row of `ANSWER` for each.
    """
    if order.kernels is not None:
        keep_kernels_in(order.kernels)
    _settle_in()
    for batch in batches:
        yield decoded_piece(order, pa.Table.from_batches([batch])).packed()


def decoded_piece(order: DecodeOrder, records: pa.Table) -> DecodedPiece:
    """Decode records, as the driver would."""
    if order.topic is not None:
        records = with_topic(records, order.topic)
    left_out = pc.greater(records[SIZE], order.share)
    kept = with_dates(records.filter(pc.invert(left_out)).drop_columns([SIZE]))
    left = records.filter(left_out).select(["topic", "partition", "offset", SIZE])
    decoded = decode(kept, order.contract, order.now)
    return DecodedPiece(decoder_version(), records.select(list(order.places)), left, decoded)


@cache
def _settle_in() -> None:
    """Once a process: PySpark collects garbage after each task, and would go through all that is loaded."""
    gc.collect()
    gc.freeze()


def _pack(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed
