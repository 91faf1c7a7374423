"""Events of cases as frames: what a row of the table says, and how rows are made.

`alerted` says that an alert, or a revision of it, belongs to a case; all other events say what happened to a
case. Rows of one `action` were written together and are undone together. Columns that differ in meaning by
event: `other` is the case that a `merged` one went to or an `absorbed` one came from, the action that was
`undone`, and the closing whose labels were written (`labelled`); `classification` of a `closed` case is the
kind of fraud that its labels name.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl
import pyarrow as pa

from schemas.tables import CASE_EVENTS

CaseEvent = Literal[
    "opened",
    "alerted",
    "claimed",
    "released",
    "assigned",
    "commented",
    "attached",
    "escalated",
    "close_asked",
    "closed",
    "labelled",
    "reopened",
    "merged",
    "absorbed",
    "undone",
]
ALERTED: CaseEvent = "alerted"
MOMENT = pl.Datetime("us", "UTC")

_ENTITIES, _CONTENT = "entities", "content"
# Contents of attachments are read one by one, when somebody asks for them.
LIGHT = [name for name in CASE_EVENTS.names if name != _CONTENT]
_KINDS = pl.DataFrame(CASE_EVENTS.empty_table().drop_columns([_ENTITIES])).schema
FRAME = pl.Schema({**_KINDS, "entity": pl.String(), "entity_id": pl.String()})
_MEMBER = (
    "number", "at", "case_id", "alert_id", "transaction_id", "outbox_seq", "revision", "severity",
    "classification", "rules", "amount", "currency", "event_time", "alerted_at",
)  # fmt: skip
MEMBERS = pl.Schema({name: FRAME[name] for name in _MEMBER})
_MOVE = (
    "number", "at", "action", "event", "case_id", "who", "kind", "entity", "entity_id", "rule", "assignee",
    "leased_until", "reason", "classification", "text", "other", "name", "digest", "size",
)  # fmt: skip
MOVES = pl.Schema({name: FRAME[name] for name in _MOVE})


def frame_of(rows: pa.Table) -> pl.DataFrame:
    """Return rows of the table as a frame, the entity of a case in columns of its own."""
    found = pl.DataFrame(rows.drop_columns([_ENTITIES]))
    entities = pa.chunked_array(rows[_ENTITIES].chunks, CASE_EVENTS.field(_ENTITIES).type).combine_chunks()
    first = np.asarray(entities.offsets)
    has = np.diff(first) > 0
    places = pa.array(first[:-1], mask=~has)
    return found.with_columns(
        pl.Series("entity", entities.keys.take(places)),
        pl.Series("entity_id", entities.items.take(places)),
    )


def table_of(frame: pl.DataFrame) -> pa.Table:
    """Return a frame with some of the columns of FRAME as rows of the table; the others hold nothing."""
    missing = [pl.lit(None, kind).alias(name) for name, kind in FRAME.items() if name not in frame.columns]
    whole = frame.with_columns(missing)
    has = whole["entity"].is_not_null()
    offsets = np.concatenate([[0], np.cumsum(has.to_numpy())]).astype(np.int32)
    named = whole.filter(has)
    keys, items = (named[name].to_arrow().cast(pa.string()) for name in ("entity", "entity_id"))
    entities = pa.MapArray.from_arrays(pa.array(offsets), keys, items)
    plain = whole.select([name for name in CASE_EVENTS.names if name != _ENTITIES]).to_arrow()
    place = CASE_EVENTS.get_field_index(_ENTITIES)
    return plain.add_column(place, CASE_EVENTS.field(_ENTITIES), entities).cast(CASE_EVENTS)


def members_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that say which alerts belong to cases."""
    return rows.filter(pl.col("event") == ALERTED).select(MEMBERS.names())


def moves_of(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that say what happened to cases."""
    return rows.filter(pl.col("event") != ALERTED).select(MOVES.names())
