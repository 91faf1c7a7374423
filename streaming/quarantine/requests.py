"""Requests to take records out of the quarantine: written by commands, settled by the agent, side by side.

A request names its records by their places on the topic, cut into slices that are decided as one batch each.
Requests are taken in the order of their numbers, each to its end before the next begins. So which records a
request still finds waiting follows from the requests before it and from the quarantine alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.instants import Clock, utc_now
from schemas.tables import REQUEUES
from streaming.batch.queries import REQUEUE
from streaming.delta.lake_reader import LakeReader, declared_rows
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.home.placed_agent import PlacedAgent
from streaming.store.place import Place

State = Literal["waiting", "done", "refused"]
PLACE = ("topic", "partition", "offset")
_STREAM = "requeues"
_REQUESTED = "requested"
_ID_BYTES = 6
_LIGHT = [name for name in REQUEUES.names if name != "places"]


@dataclass(frozen=True)
class RequeueSlice:
    """Records that are decided as one batch.

    Attributes:
        places: rows of `topic`, `partition`, `first_offset` and `next_offset`, none twice.
        records: how many they are.
    """

    places: list[dict[str, Any]]
    records: int


@dataclass(frozen=True)
class RequeueRequest:
    """One request as it stands.

    Attributes:
        number: its turn.
        request: its id.
        slices: records of each slice, in order.
        contract: JSON of the contract they are read under, None for the agent's own.
        why: given by who asked; for a refused request, why it was refused.
        decided: how many slices were decided when nothing was left to be taken, 0 as long as it waits.
    """

    number: int
    request: str
    at: datetime
    who: str
    why: str
    slices: tuple[int, ...]
    contract: str | None
    state: State
    decided: int = 0

    @property
    def query_id(self) -> str:
        """What its batches are called."""
        return f"{REQUEUE}{self.request}"

    @property
    def records(self) -> int:
        """How many records it is about."""
        return sum(self.slices)


def requeues_place(agent: PlacedAgent) -> Place:
    """Return the folder of an agent's requests."""
    return LakeReader.of(agent).place("requeues")


def read_requests(place: Place) -> list[RequeueRequest]:
    """Return all requests, oldest first; nothing where there is no table."""
    found = declared_rows(place, "requeues", _LIGHT)
    rows = found.sort_by([("number", "ascending"), ("slice", "ascending")]).to_pylist()
    asked: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["event"] == _REQUESTED:
            asked.setdefault(row["request"], []).append(row)
    settled = {row["request"]: row for row in rows if row["event"] != _REQUESTED}
    return [_request(slices, settled.get(name)) for name, slices in asked.items()]


def _request(slices: Sequence[dict[str, Any]], settled: dict[str, Any] | None) -> RequeueRequest:
    first = slices[0]
    return RequeueRequest(
        number=first["number"],
        request=first["request"],
        at=first["at"].astimezone(UTC),
        who=first["who"],
        why=settled["why"] if settled is not None and settled["event"] == "refused" else first["why"],
        slices=tuple(each["records"] for each in slices),
        contract=first["contract"],
        state="waiting" if settled is None else settled["event"],
        decided=0 if settled is None else settled["slice"],
    )


def places_of(place: Place, requests: Sequence[RequeueRequest], only: int | None = None) -> pl.DataFrame:
    """Return the places of requests.

    Args:
        only: of this slice alone.

    Returns:
        number, slice, topic, partition, first_offset and next_offset, by number; those of one number are
        disjoint.
    """
    numbers = pa.array([each.number for each in requests], pa.int64())
    where = (pc.field("event") == _REQUESTED) & pc.field("number").isin(numbers)
    where = where if only is None else where & (pc.field("slice") == only)
    rows = pl.DataFrame(declared_rows(place, "requeues", ["number", "slice", "places"], where))
    rows = rows.explode("places").unnest("places").drop_nulls()
    return rows.sort("number", "topic", "partition", "first_offset")


class RequestTable:
    """The requests as commands and the agent write them; the table is created when absent.

    Args:
        place: where it lies.
        retention: how long versions of the table stay readable.
        clock: current time.
    """

    def __init__(self, place: Place, retention: timedelta, clock: Clock = utc_now) -> None:
        self._table, self._clock = SharedTable(place, REQUEUES, retention), clock

    def ask(self, slices: Sequence[RequeueSlice], contract: str | None, who: str, why: str) -> str:
        """Write a request and return its id."""
        request = secrets.token_hex(_ID_BYTES)
        common = {"event": _REQUESTED, "request": request, "contract": contract, "who": who, "why": why}
        rows = [
            {**common, "slice": number, "records": each.records, "places": each.places}
            for number, each in enumerate(slices)
        ]
        self._append(rows)
        return request

    def settle(self, request: RequeueRequest, state: State, decided: int, why: str | None = None) -> None:
        """Note that nothing of a request is left to be taken, and how many of its slices were decided."""
        self._append([{"event": state, "request": request.request, "slice": decided, "why": why}])

    def _append(self, rows: Sequence[dict[str, Any]]) -> None:
        def attempt() -> None:
            number = self._table.last_batch(_STREAM) + 1
            noted = [{**row, "number": number, "at": self._clock()} for row in rows]
            self._table.append(pa.Table.from_pylist(noted, schema=REQUEUES), Stamp(_STREAM, number))

        self._table.by_turns(attempt)
