"""Checks the chain of an agent's audit table, and reads its newest rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from agent.audit.chain import NOTHING_YET, AuditRow, ChainFault, origin, verify
from agent.audit.events import EVENT_KINDS
from schemas.counts import count_of
from schemas.errors import ConfigurationError, MachineError, nearest
from schemas.tables import AUDIT
from streaming.audit.audit_guard import Anchor, AnchorFile
from streaming.audit.audit_log import AuditPlaces, audit_rows
from streaming.delta.stored import read_stored, read_undamaged

_SLICE = 10_000


@dataclass(frozen=True)
class AuditReport:
    """What a check of an audit log found; nothing when it is sound.

    Attributes:
        rows: rows in the table.
        last: number of the last row that the chain reaches, -1 for none.
        anchored: the highest number that an anchor names, None without an anchor.
    """

    rows: int
    last: int
    anchored: int | None
    findings: tuple[ChainFault, ...]

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
    if own is None and not places.table.is_dir():
        raise ConfigurationError("nothing was recorded yet", where=str(places.table))
    table, damage = _read(places)
    anchors += [] if own is None else [own]
    keys = [places.key(anchor) for anchor in anchors] or [places.key(None)]
    heads = [anchor.head for anchor in anchors]
    head, findings = verify(keys[0], origin(keys[0], places.chain), _in_order(table), heads)
    anchored = max((each.number for each in heads), default=None)
    return AuditReport(table.num_rows, head.number, anchored, (*lost, *damage, *findings))


def _own(places: AuditPlaces) -> tuple[Anchor | None, list[ChainFault]]:
    try:
        anchor = places.anchor.read()
    except ConfigurationError as fault:
        return None, [ChainFault(NOTHING_YET, "anchor", str(fault))]
    lost = [ChainFault(NOTHING_YET, "anchor", f"{places.anchor.path} is gone")]
    return anchor, lost if anchor is None else []


def _copied(copy: Path) -> Anchor:
    anchor = AnchorFile(copy).read()
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
    findings = [ChainFault(NOTHING_YET, "unreadable", f"file {name} cannot be read") for name in damaged]
    if unnumbered := table["number"].null_count:
        findings.append(ChainFault(NOTHING_YET, "edited", f"{count_of(unnumbered, 'row')} without a number"))
    return table.filter(pc.is_valid(table["number"])), findings


def _in_order(table: pa.Table) -> Iterator[AuditRow]:
    order = pc.sort_indices(table, [("number", "ascending")])
    for first in range(0, table.num_rows, _SLICE):
        yield from audit_rows(table.take(order.slice(first, _SLICE)))


def newest_events(places: AuditPlaces, kind: str | None, count: int) -> list[dict[str, Any]]:
    """Return the newest rows of the log, of one kind or all, the newest last.

    Raises:
        ConfigurationError: no such kind, or nothing was recorded yet.
    """
    if kind is not None and kind not in EVENT_KINDS:
        raise ConfigurationError(nearest(kind, EVENT_KINDS), where="--kind")
    places.check_layout()
    rows = read_stored(places.table, where=None if kind is None else pc.field("kind") == kind)
    if rows is None:
        raise ConfigurationError("nothing was recorded yet", where=str(places.table))
    newest = rows.sort_by([("number", "descending")]).slice(0, count).to_pylist()
    return [{**row, "detail": json.loads(row["detail"])} for row in reversed(newest)]
