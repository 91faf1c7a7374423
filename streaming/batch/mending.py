"""Removes what a power cut has torn from the ends of a lake's logs, where nothing rests on it.

Alerts are published, and commands answer, only once everything they rest on is on disk. So a torn commit was
reported to nobody, unless an older version of flagstream wrote it. It may be removed, and its batch be done
again, if the other tables are such as they were before it: then the protocol goes on from there.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from schemas.spec import AgentSpec
from streaming.audit.audit_log import AuditPlaces, chain_end
from streaming.batch.backfill_mark import BackfillMark
from streaming.batch.queries import stamp_of
from streaming.batch.store import Decision
from streaming.delta.key_index import INDEX
from streaming.delta.log_tail import (
    cut_from,
    entry_path,
    facts_before,
    mend_checkpoints,
    torn_end,
    torn_error,
)
from streaming.delta.stored import METADATA_KEY, StoredTable
from streaming.home.settings import Settings
from streaming.output.log import log


def mend(settings: Settings, spec: AgentSpec) -> None:
    """Repair the ends of all logs of an agent's lake, before any of its tables is opened.

    Raises:
        DataLossError: something rests on a commit that is torn, or is between it and the newest.
    """
    folder = settings.lake(spec.name)
    tables = [path.parent for path in sorted(folder.glob("*/_delta_log"))]
    for table in tables:
        mend_checkpoints(table)
    torn = {table.name: version for table in tables if (version := torn_end(table)) is not None}
    if not torn:
        return
    _check_nothing_rests(settings, spec, torn)
    for name, version in torn.items():
        cut_from(folder / name, version)
        shutil.rmtree(folder / name / INDEX, ignore_errors=True)
        log(
            "torn_commit_removed",
            f"{entry_path(folder / name, version)} was torn and is removed: nothing rested on it",
            level=logging.WARNING, agent=spec.name, table=name,
        )  # fmt: skip


def _check_nothing_rests(settings: Settings, spec: AgentSpec, torn: Mapping[str, int]) -> None:
    folder, names = settings.lake(spec.name), spec.tables.model_dump()
    left = {
        role: _as_before(folder / name, torn.get(name))
        for role, name in names.items()
        if (folder / name).is_dir()
    }
    newest = _decision(left.get("transactions"), torn.get(spec.tables.transactions))
    lost = [
        *_lost_from_batches(spec.name, newest, left),
        *_lost_from_shared(AuditPlaces(settings, spec), left),
    ]
    for role, reason in lost:
        if names[role] in torn:
            raise torn_error(folder / names[role], torn[names[role]], reason)


def _lost_from_batches(
    agent: str, newest: Decision | None, left: Mapping[str, StoredTable | None]
) -> Iterator[tuple[str, str]]:
    """Yield the tables that hold less than others say they held, with what says so."""
    batches, alerts = left.get("batches"), left.get("alerts")
    stored = 1 + _highest(left.get("transactions"), "sequence")
    if stored < _highest(batches, "next_sequence"):
        yield "transactions", "its batch was closed"
    if stored <= max(_highest(alerts, name) for name in ("sequence", "passed_by")):
        yield "transactions", "its alerts are stored"
    if 1 + _highest(alerts, "outbox_seq") < _highest(batches, "next_outbox_seq"):
        yield "alerts", "their batch was closed"
    if newest is not None:
        yield from _lost_before(agent, newest, left)


def _lost_before(
    agent: str, newest: Decision, left: Mapping[str, StoredTable | None]
) -> Iterator[tuple[str, str]]:
    """Yield the tables that lack what the newest decision, or a batch closed before it, says they hold."""
    batches = left.get("batches")
    closed = _highest(batches, "next_sequence")
    stamp, last = stamp_of(agent, newest.query_id), newest.batch_id
    closed_stamp = -1 if batches is None else batches.last_batch(stamp)
    if max(closed, 0) not in (newest.first_sequence, newest.next_sequence) or closed_stamp < last - 1:
        yield "batches", "later batches are stored"
    open_batch = newest if closed_stamp < last else None
    for role, column in (("quarantine", "quarantined"), ("duplicates", "duplicates")):
        counted = _total(batches, column) + (0 if open_batch is None else getattr(open_batch, column))
        if _count(left.get(role)) < counted:
            yield role, "the batch that it belongs to is stored"
    monitoring = left.get("monitoring")
    backfilled = BackfillMark.of(newest.pins) is not None
    if not backfilled and (-1 if monitoring is None else monitoring.last_batch(stamp)) < closed_stamp:
        yield "monitoring", "its batch was closed"


def _lost_from_shared(
    places: AuditPlaces, left: Mapping[str, StoredTable | None]
) -> Iterator[tuple[str, str]]:
    if 1 + _highest(left.get("labels"), "label_sequence") < _highest(left.get("batches"), "labels_through"):
        yield "labels", "batches have counted its labels"
    audit, anchor = left.get("audit"), places.anchor.read()
    if anchor is not None and (-1 if audit is None else chain_end(audit)) < anchor.head.number:
        yield "audit", "its anchor names a later row"


def _as_before(table: Path, torn: int | None) -> StoredTable | None:
    """Return a table as it is without its torn end, None where nothing is left of it."""
    if torn == 0:
        return None
    opened = DeltaTable(table, version=None if torn is None else torn - 1)
    return StoredTable(table, opened, pa.schema(opened.schema()))


def _decision(transactions: StoredTable | None, torn: int | None) -> Decision | None:
    """Delta's own history cannot be read while an entry is torn."""
    if transactions is None:
        return None
    if torn is None:
        kept = transactions.newest_metadata()
    else:
        kept = facts_before(transactions.path, torn, METADATA_KEY)
    return None if kept is None else Decision.from_metadata(kept)


def _highest(table: StoredTable | None, column: str) -> int:
    if table is None or column not in table.schema.names:
        return -1
    highest = table.maximum(column)
    return -1 if highest is None else highest


def _count(table: StoredTable | None) -> int:
    return 0 if table is None else table.count()


def _total(table: StoredTable | None, column: str) -> int:
    if table is None:
        return 0
    return pc.sum(table.read("batch_id", 0, columns=[column])[column]).as_py() or 0
