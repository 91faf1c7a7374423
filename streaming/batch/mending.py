"""Removes what a power cut has torn from the ends of a lake's logs, where nothing rests on it.

Alerts are published, and commands answer, only once everything they rest on is on disk. So a torn commit was
reported to nobody, unless an older version of flagstream wrote it. It may be removed, and its batch be done
again, if the other tables are such as they were before it: then the protocol goes on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from schemas.lake_tables import TABLES
from streaming.audit.audit_log import AuditPlaces, chain_end
from streaming.batch.backfill_mark import BackfillMark
from streaming.batch.decision import Decision
from streaming.batch.queries import stamp_of
from streaming.delta.index_files import remove_indexes
from streaming.delta.lake_reader import LakeReader
from streaming.delta.log_tail import (
    cut_from,
    entry_path,
    facts_before,
    mend_checkpoints,
    torn_end,
    torn_error,
)
from streaming.delta.maintenance import tables_below
from streaming.delta.stored import METADATA_KEY, StoredTable
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.source import last_committed, query_id_of, take_back
from streaming.output.log import log
from streaming.store.place import Place


def mend(agent: PlacedAgent) -> None:
    """Repair the ends of all logs of an agent's lake, before any of its tables is opened.

    An object store shows a log entry whole or not at all, so there is nothing to repair.

    Raises:
        DataLossError: something rests on a commit that is torn, or is between it and the newest.
    """
    lake = agent.lake
    if not lake.is_local:
        return
    tables = tables_below(lake)
    for table in tables:
        mend_checkpoints(table)
    torn = {table.name: version for table in tables if (version := torn_end(table)) is not None}
    if not torn:
        return
    left = _without(torn, LakeReader.of(agent))
    _check_nothing_rests(agent, torn, left)
    if agent.spec.tables.transactions in torn:
        _take_back_undecided(agent, left.get("transactions"))
    for table in tables:
        if table.name in torn:
            _cut(agent, table, torn[table.name])


def _cut(agent: PlacedAgent, table: Place, version: int) -> None:
    cut_from(table, version)
    remove_indexes(table)
    log(
        "torn_commit_removed",
        f"{entry_path(table, version)} was torn and is removed: nothing rested on it",
        level=logging.WARNING, agent=agent.name, table=table.name,
    )  # fmt: skip


def _take_back_undecided(agent: PlacedAgent, left: StoredTable | None) -> None:
    """Have Spark give a batch again whose decision is torn: a batch is Spark's once it is decided.

    This comes before the cut: killed between the two, the next start finds the torn entry, and does it again.
    """
    checkpoint = agent.settings.checkpoint(agent.name)
    query, given = query_id_of(checkpoint), last_committed(checkpoint)
    if query is None or given is None:
        return
    decided = -1 if left is None else left.last_batch(stamp_of(agent.name, query))
    if given == decided + 1:
        take_back(checkpoint, given)


def _without(torn: Mapping[str, int], reader: LakeReader) -> dict[str, StoredTable | None]:
    """Return the tables that are there, by role, as they are without their torn ends."""
    places = {role: reader.place(role) for role in TABLES}
    there = {role: place for role, place in places.items() if place.path.is_dir()}
    return {role: _as_before(place, torn.get(place.name)) for role, place in there.items()}


def _check_nothing_rests(
    agent: PlacedAgent, torn: Mapping[str, int], left: Mapping[str, StoredTable | None]
) -> None:
    reader = LakeReader.of(agent)
    newest = _decision(left.get("transactions"), torn.get(agent.spec.tables.transactions))
    lost = [
        *_lost_from_batches(agent.name, newest, left),
        *_lost_from_shared(AuditPlaces(agent), left),
    ]
    for role, reason in lost:
        place = reader.place(role)
        if place.name in torn:
            raise torn_error(place, torn[place.name], reason)


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
        if _count(left.get(role)) + _removed(left.get(role)) < counted:
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


def _as_before(table: Place, torn: int | None) -> StoredTable | None:
    """Return a table as it is without its torn end, None where nothing is left of it."""
    if torn == 0:
        return None
    opened = DeltaTable(table.uri, version=None if torn is None else torn - 1)
    return StoredTable(table, opened, pa.schema(opened.schema()))


def _decision(transactions: StoredTable | None, torn: int | None) -> Decision | None:
    """Delta's own history cannot be read while an entry is torn."""
    if transactions is None:
        return None
    if torn is None:
        kept = transactions.newest_metadata()
    else:
        kept = facts_before(transactions.place, torn, METADATA_KEY)
    return None if kept is None else Decision.from_metadata(kept)


def _highest(table: StoredTable | None, column: str) -> int:
    if table is None or column not in table.schema.names:
        return -1
    highest = table.maximum(column)
    return -1 if highest is None else highest


def _count(table: StoredTable | None) -> int:
    return 0 if table is None else table.count()


def _removed(table: StoredTable | None) -> int:
    return 0 if table is None else table.removed_rows


def _total(table: StoredTable | None, column: str) -> int:
    if table is None:
        return 0
    return pc.sum(table.read("batch_id", 0, columns=[column])[column]).as_py() or 0
