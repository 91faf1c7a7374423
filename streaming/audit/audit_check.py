"""Checks the chain of an agent's audit table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from agent.audit.chain import NOTHING_YET, AuditRow, ChainFault, ChainKey, Head, origin, verify
from schemas.counts import count_of
from schemas.errors import ConfigurationError, MachineError
from schemas.tables import AUDIT
from streaming.audit.audit_cut import cut_of
from streaming.audit.audit_guard import Anchor, AnchorFile
from streaming.audit.audit_log import AuditPlaces, audit_rows, chain_end
from streaming.delta.stored import StoredTable
from streaming.delta.table_versions import open_for_reading
from streaming.delta.whole_tables import read_undamaged
from streaming.store.place import Place

_SLICE = 10_000


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
