"""What was recorded of a batch that was never decided, and whose records come again in other batches.

A query that is begun anew, since topics came, left or lost records, plans what was not decided anew, too. A
record that an attempt before has rejected stands in the quarantine then, as it does when the same batch is
tried again. It is known by its place and by the broker's time: a topic that was deleted and created anew has
the same places. A record without a broker's time is given another by each attempt that reads it, so it is
known by its place and by the topic's id; where the broker has no ids to tell, it is not known again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import TOPIC_ID, UTC_MICROS
from streaming.batch.queries import newest_of_the_stream, of_the_stream
from streaming.delta.lake import Lake
from streaming.delta.lake_table import LakeTable
from streaming.events.stamps import without_stamp

_PLACE = ("topic", "partition", "offset")
_STAMP, _TOPIC_ID = "kafka_timestamp", TOPIC_ID.name
_KNOWN_BY = (*_PLACE, _STAMP, _TOPIC_ID)
_ATTEMPT = ("query_id", "batch_id")
_REJECTED = pa.schema(
    [("topic", pa.string()), ("partition", pa.int32()), ("offset", pa.int64()), ("reason", pa.string())]
)
_REPEATED = pa.schema(list(_REJECTED)[:-1])


@dataclass(frozen=True)
class OnRecord:
    """What stands on record for the records of one batch, though no attempt at that batch wrote it.

    Attributes:
        rejected: topic, partition, offset and reason of records in the quarantine.
        repeated: topic, partition and offset of records in `duplicates`.
    """

    rejected: pa.Table
    repeated: pa.Table


NOTHING_ON_RECORD = OnRecord(_REJECTED.empty_table(), _REPEATED.empty_table())


@dataclass(frozen=True)
class LeftBehind:
    """What undecided attempts have recorded, with places, broker times, ids of topics and the attempts."""

    rejected: pl.DataFrame
    repeated: pl.DataFrame

    @classmethod
    def of(cls, lake: Lake) -> LeftBehind:
        """Look for what lies beyond the offsets that the stream has decided; no decided batch may be open."""
        reached = newest_of_the_stream(lake.batches).get("offsets")
        where = _beyond(json.loads(reached) if reached else {})
        return cls(
            _undecided(lake, lake.quarantine, (*_KNOWN_BY, "reason", *_ATTEMPT), where),
            _undecided(lake, lake.duplicates, (*_KNOWN_BY, *_ATTEMPT), where),
        )

    def on_record(
        self, places: pa.Table, topic_ids: Mapping[str, str] | None, query_id: str, batch_id: int
    ) -> OnRecord:
        """Return what stands of a batch's records.

        Args:
            places: topic, partition, offset and timestamp of all of them.
            topic_ids: of the topics that they come from, as far as the broker has told.
            query_id, batch_id: whose own attempts are left out.
        """
        if self.rejected.is_empty() and self.repeated.is_empty():
            return NOTHING_ON_RECORD
        asked = _asked(places, topic_ids or {})
        others = (pl.col("query_id") != query_id) | (pl.col("batch_id") != batch_id)
        found = [_found(each.filter(others), asked) for each in (self.rejected, self.repeated)]
        return OnRecord(_rows(found[0], _REJECTED), _rows(found[1], _REPEATED))


NOTHING_LEFT = LeftBehind(pl.DataFrame(), pl.DataFrame())


def _undecided(
    lake: Lake, table: LakeTable, columns: tuple[str, ...], where: pc.Expression | None
) -> pl.DataFrame:
    found = pl.DataFrame(table.select(columns, where)).filter(of_the_stream(pl.col("query_id")))
    if found.is_empty():
        return found
    closed = pl.DataFrame(lake.batches.select(_ATTEMPT))
    return found.join(closed, on=list(_ATTEMPT), how="anti").unique(_KNOWN_BY, keep="first")


def _asked(places: pa.Table, topic_ids: Mapping[str, str]) -> pl.DataFrame:
    """Return by what records are known; the broker's time is null where there is none."""
    stamps = places["timestamp"].cast(UTC_MICROS)
    asked = pl.DataFrame(places.select(list(_PLACE)).append_column(_STAMP, stamps))
    is_stamped = pl.Series(pc.invert(without_stamp(stamps)).to_numpy())
    topic = pl.col("topic").cast(pl.String)
    return asked.with_columns(
        topic,
        pl.when(is_stamped).then(pl.col(_STAMP)),
        topic.replace_strict(topic_ids, default=None, return_dtype=pl.String).alias(_TOPIC_ID),
    )


def _found(recorded: pl.DataFrame, asked: pl.DataFrame) -> pl.DataFrame:
    """Return what is recorded of records, once for each of them."""
    is_stamped = pl.col(_STAMP).is_not_null()
    found = [
        recorded.join(asked.filter(is_stamped), on=[*_PLACE, _STAMP], how="semi"),
        recorded.join(asked.filter(~is_stamped), on=[*_PLACE, _TOPIC_ID], how="semi"),
    ]
    return pl.concat(found).unique(_PLACE, keep="first")


def _beyond(reached: Mapping[str, Mapping[str, int]]) -> pc.Expression | None:
    """Return which places lie beyond offsets, topic → partition → next offset; None where all do."""
    before = [
        (pc.field("topic") == topic) & (pc.field("partition") == int(partition)) & (pc.field("offset") < end)
        for topic, ends in reached.items()
        for partition, end in ends.items()
    ]
    return ~reduce(lambda one, other: one | other, before) if before else None


def _rows(found: pl.DataFrame, schema: pa.Schema) -> pa.Table:
    return found.select(schema.names).to_arrow().cast(schema)
