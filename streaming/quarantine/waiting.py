"""Which records are still in the quarantine: derived from its rows and the requests that were taken.

A record that fails again gets a further row, under the query of the request that took it. So of the places
that the newest request took, those wait which have a row of that request; the others are stored, or were
redeliveries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schemas.tables import QUARANTINE, TOPIC_ID, UTC_MICROS
from streaming.delta.data_files import opened
from streaming.delta.lake_reader import LakeReader
from streaming.delta.stored import StoredTable, open_version
from streaming.quarantine.requests import PLACE, RequeueRequest, places_of
from streaming.store.place import Place

_ORIGINAL = -1
_LISTED = [*PLACE, "kafka_timestamp", "reason", "detail", "query_id"]
_CAME = ["key", "value", "headers", *PLACE]
_REJECTION = [name for name in QUARANTINE.names if name != TOPIC_ID.name]  # not in older files
_RECORD = [*_CAME, "kafka_timestamp", "query_id"]


def waiting(
    quarantine: Place, requeues: Place, requests: Sequence[RequeueRequest], *, sizes: bool = True
) -> pl.DataFrame:
    """Return every record that waits, by its newest rejection.

    Args:
        quarantine: where the table lies.
        requeues: where the requests lie.
        requests: all of them.
        sizes: tell `bytes`, for which the records themselves are read; else it is 0.

    Returns:
        topic, partition, offset, reason, detail, query_id, `arrived` (broker time of the record), `rejected`
        (broker time of the newest rejection), `times` (how often it was rejected) and `bytes`, by place.
    """
    table = open_version(quarantine)
    columns = [*_LISTED, "value"] if sizes else _LISTED
    parts = [] if table is None else [_with_sizes(part) for part in _files(table, columns)]
    empty = QUARANTINE.empty_table().select(_LISTED).append_column("bytes", pa.array([], pa.int64()))
    rows = pl.DataFrame(pa.concat_tables([empty, *parts]))
    rows = _with_turns(rows, requests)
    newest = rows.sort(*PLACE, "turn", "kafka_timestamp").group_by(PLACE, maintain_order=True)
    found = newest.agg(
        pl.col("reason", "detail", "query_id", "turn", "bytes").last(),
        pl.col("kafka_timestamp").first().alias("arrived"),
        pl.col("kafka_timestamp").last().alias("rejected"),
        pl.len().alias("times"),
    )
    return found.filter(found["turn"] >= _last_taken(found, requeues, requests)).drop("turn")


def records_waiting(
    quarantine: StoredTable,
    requeues: Place,
    request: RequeueRequest,
    number: int,
    earlier: Sequence[RequeueRequest],
) -> pa.Table:
    """Return those records of a slice that wait, as they came.

    Args:
        earlier: requests before this one.

    Returns:
        key, value, headers, topic, partition and offset, one row per place.
    """
    rows = _held(quarantine, places_of(requeues, [request], number))
    places = _with_turns(pl.DataFrame(rows.select([*PLACE, "kafka_timestamp", "query_id"])), earlier)
    chosen = (
        places.with_row_index("row")
        .sort(*PLACE, "turn", "kafka_timestamp")
        .group_by(PLACE, maintain_order=True)
    )
    newest = chosen.agg(pl.col("turn").last(), pl.col("row").first())
    kept = newest.filter(newest["turn"] >= _last_taken(newest, requeues, earlier))
    return rows.take(kept["row"].to_arrow()).select(_CAME)


def records_at(quarantine: Place, chosen: pl.DataFrame) -> pa.Table:
    """Return the records of some rows of `waiting`, as they came; columns as of records_waiting."""
    table = open_version(quarantine)
    if table is None or chosen.height == 0:
        return QUARANTINE.empty_table().select(_CAME)
    offset = pl.col("offset")
    places = chosen.select("topic", "partition", first_offset=offset, next_offset=offset + 1)
    rows = _held(table, places)
    numbered = pl.DataFrame(rows.select(list(PLACE))).with_row_index("row")
    first = numbered.unique(PLACE, keep="first", maintain_order=True)
    return rows.take(first["row"].to_arrow()).select(_CAME)


def attempts_at(quarantine: Place, place: tuple[str, int, int]) -> list[dict[str, object]]:
    """Return all rows of one place, the first rejection first."""
    table, (topic, partition, offset) = open_version(quarantine), place
    parts = [] if table is None else _files(table, _REJECTION, offset, offset + 1)
    rows = pa.concat_tables([QUARANTINE.empty_table().select(_REJECTION), *parts])
    ours = (
        (pc.field("topic") == topic) & (pc.field("partition") == partition) & (pc.field("offset") == offset)
    )
    return list(rows.filter(ours).sort_by("kafka_timestamp").to_pylist())


def _held(quarantine: StoredTable, places: pl.DataFrame) -> pa.Table:
    """Return all rows of the quarantine at places."""
    empty = QUARANTINE.empty_table().select(_RECORD)
    if places.height == 0:
        return empty
    bounds = int(places["first_offset"].min()), int(places["next_offset"].max())  # type: ignore[arg-type]  # numbers
    return pa.concat_tables(
        [empty, *(_inside(part, places) for part in _files(quarantine, _RECORD, *bounds))]
    )


def waiting_by_reason(reader: LakeReader, requests: Sequence[RequeueRequest]) -> dict[str, int]:
    """Count what waits by the reason of its newest rejection, the most frequent first; see `waiting`."""
    if requests:
        places = reader.place("quarantine"), reader.place("requeues")
        return counts_by(waiting(*places, requests, sizes=False), "reason")
    return counts_by(reader.frame("quarantine", ["reason"]), "reason")  # each row is a record of its own


def counts_by(rows: pl.DataFrame, column: str) -> dict[str, int]:
    """Count rows of `waiting` by a column, the most frequent value first."""
    counts = rows.group_by(column).len().sort("len", column, descending=[True, False])
    return dict(counts.iter_rows())


def _with_sizes(part: pa.Table) -> pa.Table:
    """Return rejections with the size of each record in place of its value, 0 where that was not read."""
    if "value" not in part.column_names:
        return part.append_column("bytes", pa.repeat(pa.scalar(0, pa.int64()), part.num_rows))
    size = pc.fill_null(pc.binary_length(part["value"]), 0).cast(pa.int64())
    return part.drop(["value"]).append_column("bytes", size)


def _files(
    table: StoredTable, columns: Sequence[str], first: int = 0, end: int | None = None
) -> Iterator[pa.Table]:
    """Read a file at a time: what outsiders sent may be large."""
    kinds = pa.schema([QUARANTINE.field(name) for name in columns])
    for file in table.files("offset", first, end):
        yield pq.ParquetFile(opened(file)).read(list(columns)).select(list(columns)).cast(kinds)


def _inside(rows: pa.Table, places: pl.DataFrame) -> pa.Table:
    held = _within(pl.DataFrame(rows.select(list(PLACE))), places)
    return rows.filter(held.to_arrow())


def _with_turns(rows: pl.DataFrame, requests: Iterable[RequeueRequest]) -> pl.DataFrame:
    """Add `turn`: the number of the request that took a row, -1 for what the topic brought."""
    turns = {each.query_id: each.number for each in requests}
    if not turns:
        return rows.with_columns(turn=pl.lit(_ORIGINAL, pl.Int64))
    turn = pl.col("query_id").replace_strict(turns, default=_ORIGINAL, return_dtype=pl.Int64)
    return rows.with_columns(turn=turn)


def _last_taken(rows: pl.DataFrame, requeues: Place, requests: Sequence[RequeueRequest]) -> pl.Series:
    """Return the number of the newest settled request of which a slice with the place was decided, or -1."""
    taken = pl.Series("taken", [_ORIGINAL] * rows.height, dtype=pl.Int64)
    decided = [each for each in requests if each.decided]
    places = places_of(requeues, decided)
    for each in decided:
        own = places.filter(pl.col("number") == each.number, pl.col("slice") < each.decided)
        inside = _within(rows, own)
        taken = pl.select(pl.when(inside).then(pl.lit(each.number)).otherwise(taken)).to_series()
    return taken


def _within(rows: pl.DataFrame, places: pl.DataFrame) -> pl.Series:
    """Return which rows lie in one of the places, which are disjoint."""
    numbered = rows.select(PLACE).with_row_index("row").sort("offset")
    own = places.select("topic", "partition", "first_offset", "next_offset").sort("first_offset")
    found = numbered.join_asof(
        own,
        left_on="offset",
        right_on="first_offset",
        by=["topic", "partition"],
        strategy="backward",
        check_sortedness=False,
    )
    inside = (pl.col("offset") < pl.col("next_offset")).fill_null(value=False)
    return found.sort("row").select(inside.alias("inside")).to_series()


def stamped(records: pa.Table, moment: pa.Scalar) -> pa.Table:
    """Return records as the stream's source gives them, as if they arrived at a moment."""
    return records.append_column("timestamp", pa.repeat(moment.cast(UTC_MICROS), records.num_rows))
