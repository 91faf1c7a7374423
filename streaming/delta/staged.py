"""Commits to a table by two steps: one puts the data file, one the entry of its log.

Delta's library writes both into a small table made for the purpose, as it would write them there. Its own way
to commit takes six requests in a row in an object store, and longer with every file and entry that a table
has. The entry is put under the next number if nothing lies there yet, so of several that commit at once one
prevails. Whoever finds the number taken reads what lies there, as the library does: where it has nothing to
do with the commit, the next number is tried.
"""

from __future__ import annotations

import json
import shutil
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

from streaming.delta.appending import append_rows
from streaming.delta.commit_target import target_of
from streaming.delta.log_tail import entry_path, log_actions
from streaming.store.place import Place
from streaming.store.spool import spool_folder

_MADE_ANEW_AFTER = 16  # a handle slows down with every commit
_NOTHING = b'{"commitInfo":{}}'


@dataclass(frozen=True)
class Committed:
    """A commit that was made.

    Attributes:
        version: in which it is.
        files: a row for each data file that it adds, as `DeltaTable.get_add_actions` says them flat.
    """

    version: int
    files: pa.Table


@dataclass(frozen=True)
class _Staged:
    """A commit as it will be put: data files by name, the folder that has them, and the entry."""

    names: list[str]
    folder: Path
    entry: bytes
    files: pa.Table


class StagedCommits:
    """Commits to one table.

    Args:
        place: where the table lies.
        seen: takes the number and the content of each log entry that is put, or met in its place.
    """

    def __init__(self, place: Place, seen: Callable[[int, bytes], None] = lambda _, __: None) -> None:
        self._target, self._seen = target_of(place), seen
        self._folder = spool_folder("flagstream-commit-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._stage: DeltaTable | None = None
        self._made, self._tables = self._folder, count()

    def prepared(
        self,
        table: DeltaTable,
        version: int,
        rows: pa.Table,
        properties: CommitProperties,
        after: Sequence[Callable[[], None]] = (),
    ) -> Callable[[], Committed]:
        """Put the data file of a commit; return what puts its entry.

        Args:
            table: of these columns and properties; nothing else of it is asked.
            version: that the commit's writer has seen.
            rows: none decide the application transactions alone.
            properties: of the commit.
            after: what comes before the entry, done beside the upload in a store.

        Raises:
            CommitFailedError: of the entry alone: a commit that came in between has one of the same
                application transactions, or changes the table.
            ConfigurationError: the store does not admit this process.
            OSError: the disk takes nothing.
            StoreError: it does not answer, or is busy; whether an entry has landed, nobody knows.
        """
        staged = self._staged(table, rows, properties)
        self._target.do_all([partial(self._upload, staged), *after])
        return lambda: Committed(self._put(staged.entry, version + 1), staged.files)

    def replace(self, table: DeltaTable, files: Mapping[str, int], rows: pa.Table) -> int:
        """Put rows in place of the files that hold them, and return the version in which they are.

        The library's own compaction commits after whatever version is newest by then, not after the one that
        it has read: two at once would replace the same files, and each row would be there twice.

        Args:
            table: as it was read.
            files: name of each, and its size in bytes.
            rows: all that they hold.

        Raises:
            See prepared.
        """
        staged = self._staged(table, rows, CommitProperties())
        actions = [json.dumps(_unchanged(each)) for each in log_actions(staged.entry)]
        actions += [json.dumps({"remove": _removal(name, size)}) for name, size in files.items()]
        self._upload(staged)
        return self._put("\n".join(actions).encode(), table.version() + 1)

    def made(self, table: DeltaTable, commit: Callable[[DeltaTable], None]) -> int:
        """Put a commit that names files which are there already; return the version in which they are.

        Args:
            table: as it was read.
            commit: makes the commit in a table of the same columns on this machine.

        Raises:
            See prepared.
        """
        stage = self._stage_for(table)
        commit(stage)
        stage.update_incremental()
        return self._put(self._newest_entry_of(stage), table.version() + 1)

    def _upload(self, staged: _Staged) -> None:
        for name in staged.names:
            self._target.put_file(name, staged.folder / name)

    def _staged(self, table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> _Staged:
        stage = self._stage_for(table)
        append_rows(stage, rows, properties)
        entry = self._newest_entry_of(stage)
        names = [action["add"]["path"] for action in log_actions(entry) if "add" in action]
        listed = pa.table(stage.get_add_actions(flatten=True))
        added = listed.filter(pc.is_in(listed["path"], pa.array(names, pa.string())))
        return _Staged(names, self._made, entry, added)

    def _stage_for(self, table: DeltaTable) -> DeltaTable:
        if self._stage is None or self._stage.version() >= _MADE_ANEW_AFTER:
            if self._stage is not None:
                shutil.rmtree(self._made, ignore_errors=True)
            # Kept here: the library spells a folder as a URI, with blanks and letters such as ü encoded.
            self._made = self._folder / str(next(self._tables))
            self._stage = DeltaTable.create(
                self._made,
                schema=table.schema(),
                configuration=table.metadata().configuration,
                raise_if_key_not_exists=False,
            )
        return self._stage

    def _newest_entry_of(self, stage: DeltaTable) -> bytes:
        """Return the entry just made, and leave nothing of it here: its statistics quote rows."""
        file = entry_path(Place.local(self._made), stage.version())
        entry = file.read_bytes()
        file.write_bytes(_NOTHING)  # the library reads no entry twice, and misses those that are gone
        return entry

    def _put(self, entry: bytes, version: int) -> int:
        while True:
            there: bytes | None = entry
            if not self._target.put_entry(version, entry):
                there = self._target.entry(version)
            if there is None:
                raise CommitFailedError("the log was shortened meanwhile")
            self._seen(version, there)
            if there == entry:  # or put by an attempt whose answer was lost
                return version
            _check_apart(there, entry)
            version += 1


def _check_apart(there: bytes, entry: bytes) -> None:
    """Check that a commit may follow another that its writer has not seen."""
    before = log_actions(there)
    if any("metaData" in action or "protocol" in action for action in before):
        raise CommitFailedError("Metadata changed since last commit.")
    ours = log_actions(entry)
    if _writers(before) & _writers(ours):
        raise CommitFailedError("Concurrent transaction failed.")
    if _removed(before) & _removed(ours):
        raise CommitFailedError("Files were replaced by a concurrent transaction.")


def _writers(actions: Sequence[Mapping[str, Any]]) -> set[str]:
    return {action["txn"]["appId"] for action in actions if "txn" in action}


def _removed(actions: Sequence[Mapping[str, Any]]) -> set[str]:
    return {action["remove"]["path"] for action in actions if "remove" in action}


def _unchanged(action: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an action of a commit that changes no row."""
    if "add" in action:
        return {"add": {**action["add"], "dataChange": False}}
    return (
        {"commitInfo": {**action["commitInfo"], "operation": "OPTIMIZE"}}
        if "commitInfo" in action
        else action
    )


def _removal(name: str, size: int) -> Mapping[str, Any]:
    return {
        "path": name,
        "deletionTimestamp": int(time.time() * 1000),
        "dataChange": False,
        "extendedFileMetadata": True,
        "partitionValues": {},
        "size": size,
    }
