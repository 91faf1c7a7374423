"""Checks the chain of an agent's audit table, and reads its newest rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from agent.audit.chain import NOTHING_YET, AuditRow, ChainFault, ChainKey, Head, origin, verify
from agent.audit.events import EVENT_KINDS, Doer, EventKind
from schemas.counts import count_of
from schemas.errors import ConfigurationError, MachineError, nearest
from schemas.tables import AUDIT
from streaming.audit.audit_cut import cut_of
from streaming.audit.audit_guard import Anchor, AnchorFile
from streaming.audit.audit_log import AuditPlaces, audit_rows, chain_end
from streaming.delta.stored import StoredTable
from streaming.delta.table_versions import open_for_reading
from streaming.delta.whole_tables import read_undamaged
from streaming.store.place import Place

_SLICE = 10_000
_BATCH: EventKind = "batch_decided"
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class AuditReport:
    """What a check of an audit log found; nothing when it is sound.

    Attributes:
        rows: rows in the table.
        last: number of the last row that the chain reaches, -1 for none.
        anchored: the highest number that an anchor names, None without an anchor.
        first: number of the first row; those before it were removed by retention, on record.
    """

    rows: int
    last: int
    anchored: int | None
    findings: tuple[ChainFault, ...]
    first: int = 0

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def facts(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {"sound": self.sound, **asdict(self)}


def check_audit(places: AuditPlaces, copy: Path | None = None) -> AuditReport:
    """Check every row of an audit log against its chain, and that its anchor is among them.

    Args:
        copy: a copy of the anchor file that was kept elsewhere, to find among the rows as well.

    Raises:
        ConfigurationError: there is no such log, the key is not its key, or the copy is no anchor.
    """
    anchors = [] if copy is None else [_copied(copy)]
    own, lost = _own(places)
    if own is None and not _is_there(places.table):
        raise ConfigurationError("nothing was recorded yet", where=str(places.table))
    table, damage = _read(places)
    anchors += [] if own is None else [own]
    keys = [places.key(anchor) for anchor in anchors] or [places.key(None)]
    heads = [anchor.head for anchor in anchors]
    start, unsealed = _start(places, keys[0])
    table = table.filter(pc.greater(table["number"], start.number))
    heads = [each for each in heads if each.number >= start.number]
    head, faults = verify(keys[0], start, _in_order(table), heads)
    first = start.number + 1
    anchored = max((each.number for each in heads), default=None)
    return AuditReport(table.num_rows, head.number, anchored, (*lost, *damage, *unsealed, *faults), first)


def _own(places: AuditPlaces) -> tuple[Anchor | None, list[ChainFault]]:
    try:
        anchor = places.anchor.read()
    except ConfigurationError as fault:
        return None, [ChainFault(NOTHING_YET, "anchor", str(fault))]
    lost = [ChainFault(NOTHING_YET, "anchor", f"{places.anchor.place} is gone")]
    return anchor, lost if anchor is None else []


def _start(places: AuditPlaces, key: ChainKey) -> tuple[Head, list[ChainFault]]:
    """Return what the first row has to follow: the last one that retention has removed, if any."""
    try:
        cut = cut_of(places).read(key)
    except ConfigurationError as fault:
        return origin(key, places.chain), [ChainFault(NOTHING_YET, "anchor", str(fault))]
    return cut or origin(key, places.chain), []


def _is_there(table: Place) -> bool:
    return table.path.is_dir() if table.is_local else open_for_reading(table) is not None


def _copied(copy: Path) -> Anchor:
    anchor = AnchorFile.at(copy).read()
    if anchor is None:
        raise ConfigurationError("there is no such file", where=str(copy))
    return anchor


def _read(places: AuditPlaces) -> tuple[pa.Table, list[ChainFault]]:
    try:
        places.check_layout()
        read = read_undamaged(places.table)
    except MachineError as fault:
        return AUDIT.empty_table(), [ChainFault(NOTHING_YET, "unreadable", str(fault))]
    if read is None:
        return AUDIT.empty_table(), [
            ChainFault(NOTHING_YET, "unreadable", f"there is no table {places.table}")
        ]
    table, damaged = read
    faults = [ChainFault(NOTHING_YET, "unreadable", f"file {name} cannot be read") for name in damaged]
    if unnumbered := table["number"].null_count:
        faults.append(ChainFault(NOTHING_YET, "edited", f"{count_of(unnumbered, 'row')} without a number"))
    return table.filter(pc.is_valid(table["number"])), faults


def _in_order(table: pa.Table) -> Iterator[AuditRow]:
    order = pc.sort_indices(table, [("number", "ascending")])
    for first in range(0, table.num_rows, _SLICE):
        yield from audit_rows(table.take(order.slice(first, _SLICE)))


def check_span(places: AuditPlaces, before: int | None, most: int) -> AuditReport:
    """Check a part of the log against the chain: that each row has its hash, and follows the one before it.

    Args:
        before: number of the row before which it ends; None for the end of the log, which the anchor names.
        most: rows checked at most, those at the end of the part.

    Raises:
        ConfigurationError: there is no such log, or the key is not its key.
        MachineError: a file of the table cannot be read.
    """
    own, lost = _own(places)  # read first: a row that it names is in the table by then
    handle = open_for_reading(places.table)
    if handle is None:
        raise ConfigurationError("nothing was recorded yet", where=str(places.table))
    table, key = StoredTable(places.table, handle, AUDIT), places.key(own)
    start, unsealed = _start(places, key)
    newest = chain_end(table) + 1
    end = newest if before is None else min(before, newest)
    first = max(start.number + 1, end - most)
    rows = table.at("number", np.arange(first - 1, end), AUDIT.names)
    start = start if first == start.number + 1 else _head_at(rows, first - 1)
    rows = rows.filter(pc.greater_equal(rows["number"], first))
    heads = [own.head] if own is not None and end == newest and own.head.number >= first else []
    head, faults = verify(key, start, _in_order(rows), heads)
    if not faults and head.number < end - 1:
        gone = count_of(end - 1 - head.number, "row")
        faults = [ChainFault(head.number + 1, "missing", f"{gone} missing before row {end}")]
    anchored = None if own is None else own.head.number
    return AuditReport(rows.num_rows, head.number, anchored, (*lost, *unsealed, *faults), first)


def _head_at(rows: pa.Table, number: int) -> Head:
    """Return what the row after `number` has to follow; where that row is gone, the walk finds a gap."""
    found = rows.filter(pc.equal(rows["number"], number))
    return Head(number, found["hash"][0].as_py()) if found.num_rows else Head(number - 1, "")


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
