"""Takes rows out of an append-only table, or changes them, beside whoever appends to it.

A commit replaces files by others. It says that no data changed, which is all that Delta admits in a table
with `delta.appendOnly`; so the property stays in force for everybody else. It carries no epoch and reads
nothing that an append writes: whoever appends meanwhile is neither fenced nor refused. Compaction replaces
files, too, so both go by the lock of maintenance; in a store, which has none, the second of two that replace
the same file is refused.

What was done stays readable in application transactions, which outlive the entries of the log.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction, write_deltalake
from deltalake.transaction import AddAction, RemoveAction

from schemas.errors import RetryableError
from streaming.delta.appending import NO_HOOKS, WRITER
from streaming.delta.commit_target import target_of
from streaming.delta.commits import MARK_KEY, new_mark
from streaming.delta.durable import sync
from streaming.delta.faults import table_faults
from streaming.delta.index_files import remove_indexes
from streaming.delta.log_tail import TRANSACTIONS_KEY, added_files
from streaming.delta.maintenance import alone
from streaming.delta.staged import StagedCommits
from streaming.delta.stored import METADATA_KEY, REWRITTEN, StoredTable
from streaming.delta.table_versions import newest_version
from streaming.store.place import Place
from streaming.store.spool import spooled

_PATIENCE_SECONDS, _POLL_SECONDS = 60.0, 0.05

Change = Callable[[pa.Table], pa.Table]
"""Returns a file's rows as they are to be; the very same table where nothing changes."""
Put = Callable[[str, Path], None]
"""Puts a file of this machine under a name of the table's own."""


@dataclass(frozen=True)
class Rewritten:
    """What a rewriting has changed.

    Attributes:
        files: how many were replaced.
        removed: how many rows are gone.
    """

    files: int = 0
    removed: int = 0


@dataclass(frozen=True)
class RewriteNotes:
    """What a rewriting leaves on record beside the rows.

    Attributes:
        counters: application id → number, which must not fall.
        deleted_at: when the replaced files count as deleted, in milliseconds since 1970 UTC.
        facts: further ones of the commit.
        forgets: earlier versions become unreadable afterwards, which readers of one know by the commit.
    """

    counters: Mapping[str, int] = field(default_factory=dict)
    deleted_at: int | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    forgets: bool = False


@contextmanager
def maintained_alone(place: Place) -> Iterator[None]:
    """Keep every other process from maintaining a table, once the one that does has come to its end.

    Raises:
        RetryableError: it has not within a minute.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        with alone(place) as ours:
            if ours:
                yield
                return
        if time.monotonic() > until:
            raise RetryableError(f"{place}: another process maintains this table; try again")
        time.sleep(_POLL_SECONDS)


def rewrite(
    place: Place,
    change: Change,
    notes: Callable[[StoredTable, int], RewriteNotes] = lambda _, __: RewriteNotes(),
    chosen: Sequence[str] | None = None,
) -> Rewritten:
    """Replace the files of a table whose rows a change concerns, in one commit.

    Where it concerns none, there is no commit but for the sake of what it leaves on record.

    Args:
        place: where the table lies; the caller maintains it alone.
        change: is applied file by file.
        notes: what to leave on record, by the table as this rewriting goes on from it and the number of rows
            that go.
        chosen: files to read, all unless given.

    Raises:
        DataLossError: the newest log entry is torn.
        DiskError: the disk takes nothing.
    """
    with table_faults(place):
        table = newest_version(place)
        stored = StoredTable(place, table, pa.schema(table.schema()))
        actions = pa.table(table.get_add_actions()).to_pylist()
        wanted = [each for each in actions if chosen is None or each["path"] in chosen]
        put = target_of(place).put_file
        found = (_replaced(stored, table.schema(), each, change, put) for each in wanted)
        replaced = [each for each in found if each is not None]
        removed = sum(each.removed for each in replaced)
        left = notes(stored, removed)
        if not replaced and not left.facts and not left.forgets:
            return Rewritten()
        commit = partial(_commit, replaced=replaced, notes=left, rewritten=table.version() + 1)
        commit(table) if place.is_local else StagedCommits(place).made(table, commit)
        remove_indexes(place)
        sync(place)
    return Rewritten(len(replaced), removed)


@dataclass(frozen=True)
class _Replaced:
    """A file on its way out, and those that come in its place."""

    path: str
    size: int
    added: tuple[AddAction, ...]
    removed: int


def _replaced(
    stored: StoredTable, schema: Schema, action: dict[str, Any], change: Change, put: Put
) -> _Replaced | None:
    rows = stored.of_files([action["path"]], stored.schema.names)
    left = change(rows)
    if left is rows:
        return None
    added = _written(schema, left, put) if left.num_rows else ()
    return _Replaced(action["path"], action["size_bytes"], added, rows.num_rows - left.num_rows)


def _written(schema: Schema, rows: pa.Table, put: Put) -> tuple[AddAction, ...]:
    """Put files into a table's folder that no commit names yet; Delta's library makes them and their facts.

    A table made for the purpose takes them, as it is the writer of the library that computes statistics.
    """
    with spooled("flagstream-rewrite-") as made:
        # By default only the first 32 columns have statistics, which reads choose files by.
        options: dict[str, str | None] = {"delta.dataSkippingNumIndexedCols": "-1"}
        DeltaTable.create(made, schema=schema, configuration=options)
        write_deltalake(
            made, rows, mode="append", writer_properties=WRITER, post_commithook_properties=NO_HOOKS
        )
        added = added_files(Place.local(made), 1)
        for each in added:
            put(each["path"], made / each["path"])
    moment = int(time.time() * 1000)
    return tuple(
        AddAction(each["path"], each["size"], {}, moment, data_change=False, stats=each["stats"])
        for each in added
    )


def _commit(table: DeltaTable, replaced: Sequence[_Replaced], notes: RewriteNotes, rewritten: int) -> None:
    moment = int(time.time() * 1000) if notes.deleted_at is None else notes.deleted_at
    removed = [
        RemoveAction(each.path, data_change=False, deletion_timestamp=moment, size=each.size)
        for each in replaced
    ]
    added = [action for each in replaced for action in each.added]
    counters = {REWRITTEN: rewritten, **notes.counters}
    custom = {TRANSACTIONS_KEY: str(len(counters)), MARK_KEY: new_mark(), **notes.facts}
    table.create_write_transaction(
        [*removed, *added],
        "append",
        table.schema(),
        commit_properties=CommitProperties(
            custom_metadata=custom,
            app_transactions=[Transaction(name, number) for name, number in counters.items()],
        ),
        post_commithook_properties=NO_HOOKS,
    )


def newest_facts(table: StoredTable) -> dict[str, str]:
    """Return what decided the newest batch, for a commit before which nothing of the log is left.

    Nobody else may commit meanwhile: these facts are then the newest ones.
    """
    facts = table.newest_metadata()
    return {} if facts is None else {METADATA_KEY: json.dumps(facts, sort_keys=True)}
