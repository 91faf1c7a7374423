"""Events of the audit log, read for people and for the server: a span, the newest, those of a kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from agent.audit.events import EVENT_KINDS, Doer, EventKind
from schemas.errors import ConfigurationError, nearest
from schemas.tables import AUDIT
from streaming.audit.audit_log import AuditPlaces
from streaming.delta.stored import StoredTable
from streaming.delta.table_versions import open_for_reading

_BATCH: EventKind = "batch_decided"
_LARGEST = 2**63 - 1


def events_from(
    places: AuditPlaces,
    after: int | None,
    most: int,
    kind: str | None = None,
    *,
    before: int | None = None,
    who: str | None = None,
    by: Doer | None = None,
) -> list[dict[str, Any]]:
    """Return rows of the log in order, whole, with the hashes that chain them.

    Args:
        after: the number after which they begin; None for the newest, of the kind if one is given.
        most: rows returned at most.
        kind: of the events, None for all.
        before: the number before which they end, None for the end of the log.
        who: who did what the events tell, None for anybody.
        by: what people have done, or what the agent has by itself; None for both.

    Raises:
        ConfigurationError: no such kind.
    """
    check_kind(kind)
    handle = open_for_reading(places.table)
    if handle is None:
        return []
    table = StoredTable(places.table, handle, AUDIT)
    chosen = _Chosen(kind, who, by, 0 if after is None else after + 1, _LARGEST if before is None else before)
    numbers = _numbers(table, chosen, most, newest=after is None)
    return [_row(row) for row in table.at("number", numbers, AUDIT.names).to_pylist()]


@dataclass(frozen=True)
class _Chosen:
    """Which rows are meant; `first` inclusive, `end` exclusive."""

    kind: str | None
    who: str | None
    by: Doer | None
    first: int
    end: int

    def of(self, read: Callable[[Sequence[str]], pa.Table]) -> npt.NDArray[np.int64]:
        """Return the numbers of a file's rows that are meant; details are read where they may say who."""
        rows = read(["number", "kind"])
        if self.who is not None or self.by is not None:
            if self._names_nobody(rows):
                return np.empty(0, np.int64)
            rows = read(["number", "kind", "detail"])
        return self._of(rows)

    def _names_nobody(self, rows: pa.Table) -> bool:
        """The log is batches by far the most, which nobody but the agent decides."""
        asks_for_people = self.who is not None or self.by == "people"
        return asks_for_people and bool(pc.all(pc.equal(rows["kind"], _BATCH), min_count=0).as_py())

    def _of(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        if self.kind is not None:
            rows = rows.filter(pc.equal(rows["kind"], self.kind))
        if self.who is not None:  # a quote within a value is escaped, so that none is taken for a field
            texts = [f'"{name}":{json.dumps(self.who)}' for name in ("actor", "who")]
            rows = rows.filter(_holds(rows, texts))
        if self.by is not None:
            people = _holds(rows, [f'"{name}":' for name in ("actor", "who")])
            rows = rows.filter(people if self.by == "people" else pc.invert(people))
        numbers: npt.NDArray[np.int64] = rows["number"].drop_null().to_numpy()
        return numbers[(numbers >= self.first) & (numbers < self.end)]


def _holds(rows: pa.Table, texts: Sequence[str]) -> pa.ChunkedArray:
    """Say which rows' details hold any of two texts."""
    one, other = (pc.match_substring(rows["detail"], each) for each in texts)
    return pc.or_(one, other)


def _numbers(table: StoredTable, chosen: _Chosen, most: int, *, newest: bool) -> npt.NDArray[np.int64]:
    """Return the first or the newest numbers that are meant, ascending: as many as asked for, if there are.

    Files are read one after the other, and not those in which none of them can be. Of a file the columns
    alone are read by which rows are chosen, so a log of any length is held nowhere as a whole.
    """
    found = np.empty(0, np.int64)
    for name, low, high in _files_in_order(table, newest=newest):
        full = len(found) == most and (high < found[0] if newest else low > found[-1])
        if full or high < chosen.first or low >= chosen.end:
            continue
        whole = np.unique(np.concatenate([found, chosen.of(partial(table.of_files, [name]))]))
        found = whole[-most:] if newest else whole[:most]
    return found


def _files_in_order(table: StoredTable, *, newest: bool) -> list[tuple[str, int, int]]:
    """Return the files with their least and largest number, those of the end that is asked about first."""
    known = [
        (name, 0 if low is None else low, _LARGEST if high is None else high)
        for name, low, high in table.ranges("number")
    ]
    return sorted(known, key=lambda each: -each[2] if newest else each[1])


def check_kind(kind: str | None) -> None:
    """Check that there are events of a kind.

    Raises:
        ConfigurationError: there are none.
    """
    if kind is not None and kind not in EVENT_KINDS:
        raise ConfigurationError(nearest(kind, EVENT_KINDS), where="--kind")


def _row(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "detail": json.loads(row["detail"])}


def newest_events(places: AuditPlaces, kind: str | None, count: int) -> list[dict[str, Any]]:
    """Return the newest rows of the log, of one kind or all, the newest last.

    Raises:
        ConfigurationError: no such kind, or nothing was recorded yet.
    """
    places.check_layout()
    if open_for_reading(places.table) is None:
        raise ConfigurationError("nothing was recorded yet", where=str(places.table))
    return events_from(places, None, count, kind)
