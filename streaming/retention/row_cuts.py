"""Which rows leave a table, file by file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from streaming.delta.rewriting import Change
from streaming.delta.stored import StoredTable

_SAID = ("classification", "severity", "model", "prompt_id", "prompt_version")


def numbered(column: str, before: int, by: str, kept: pa.Array) -> Change:
    """Take out the rows below a number, but for those whose column `by` holds one of some values."""

    def change(rows: pa.Table) -> pa.Table:
        stays = pc.or_(
            pc.greater_equal(rows[column], before), pc.is_in(rows[by], value_set=kept.cast(rows[by].type))
        )
        return _left(rows, stays)

    return change


def aged(columns: Sequence[str], before: datetime) -> Change:
    """Take out the rows whose time lies before a moment; rows without one stay.

    Args:
        columns: the first of them that holds something is a row's time; older tables may lack some.
        before: the moment.
    """

    def change(rows: pa.Table) -> pa.Table:
        times = [rows[name] for name in columns if name in rows.column_names]
        time = pc.coalesce(*times)
        return _left(rows, pc.fill_null(pc.greater_equal(time, pa.scalar(before, time.type)), True))

    return change


def of_batches(batches: pl.DataFrame, spared: pl.DataFrame) -> Change:
    """Take out the rows of some batches, but for those at some places.

    Args:
        batches: query_id and batch_id.
        spared: topic, partition, first_offset and next_offset, which may overlap.
    """
    place = ["topic", "partition"]
    ranges = spared.select(*place, "first_offset", "next_offset").sort("first_offset")
    reached = ranges.with_columns(pl.col("next_offset").cum_max().over(place))

    def change(rows: pa.Table) -> pa.Table:
        known = pl.DataFrame(rows.select(["query_id", "batch_id", *place, "offset"])).with_row_index("row")
        leave = known.join(batches, on=["query_id", "batch_id"], how="semi").sort("offset")
        held = leave.join_asof(
            reached, left_on="offset", right_on="first_offset", by=place, check_sortedness=False
        )
        gone = held.filter(pl.col("offset").lt(pl.col("next_offset")).fill_null(False).not_())["row"]
        return _left(rows, pa.chunked_array([(~known["row"].is_in(gone.implode())).to_arrow()]))

    return change


def first_young(table: StoredTable, number: str, time: str, before: datetime, now: datetime) -> int:
    """Return the number of the first row from a moment on, beyond all numbers where there is none.

    A later time than `now` says nothing: a clock was ahead.
    """
    young = (pc.field(time) >= pa.scalar(before)) & (pc.field(time) <= pa.scalar(now))
    firsts = (pc.min(part[number]).as_py() for part in table.parts([number], young))
    return min((each for each in firsts if each is not None), default=sys.maxsize)


def answers_to_keep(ledger: StoredTable, before: int) -> pa.Array:
    """Return the keys of answers that must stay: of what models have said, each label once.

    A replay looks whether a published label was ever given; an old answer may stand for a new question.
    """
    rows = ledger.select(["key", "commit", "kind", *_SAID], pc.field("kind") == "answer")
    later = rows.filter(pc.greater_equal(rows["commit"], before))
    known = {tuple(row[name] for name in _SAID) for row in later.select(list(_SAID)).to_pylist()}
    kept = {
        said: row["key"]
        for row in rows.filter(pc.less(rows["commit"], before)).sort_by("commit").to_pylist()
        if (said := tuple(row[name] for name in _SAID)) not in known
    }
    return pa.array(list(kept.values()), pa.string())


def _left(rows: pa.Table, stays: pa.ChunkedArray) -> pa.Table:
    return rows if pc.all(stays).as_py() is not False else rows.filter(stays)
