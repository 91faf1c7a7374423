"""Commits to a table in an object store by two requests: one for the data file, one for the entry of its log.

Delta's library writes both into a folder of this machine, as it would write them there; its own way to commit
there takes six requests in a row. The entry is put under the next number if nothing lies there yet, so of
several that commit at once one prevails. Whoever finds the number taken reads what lies there, as the
library does: where it has nothing to do with the commit, the next number is tried.
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

import obstore
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError
from obstore.exceptions import AlreadyExistsError

from streaming.delta.appending import append_rows
from streaming.delta.data_files import keep
from streaming.delta.log_tail import entry_path, log_actions
from streaming.delta.remote_log import entry_place, read_entry
from streaming.delta.side_by_side import side_by_side
from streaming.store.client import client_of, key_of, store_faults
from streaming.store.place import Place
from streaming.store.spool import spool_folder

_MADE_ANEW_AFTER = 64  # a handle slows down with every commit


@dataclass(frozen=True)
class _Staged:
    """A commit as it will be put: data files by name, and the entry that names them."""

    files: dict[str, bytes]
    entry: bytes


class StagedCommits:
    """Commits to one table.

    Args:
        place: where the table lies, in an object store.
        seen: takes the number and the content of each log entry that is put, or met in its place.
    """

    def __init__(self, place: Place, seen: Callable[[int, bytes], None] = lambda _, __: None) -> None:
        self._place, self._client, self._seen = place, client_of(place), seen
        self._folder = spool_folder("flagstream-commit-")
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._stage: DeltaTable | None = None
        self._made, self._tables = self._folder, count()

    def uploaded(
        self,
        table: DeltaTable,
        rows: pa.Table,
        properties: CommitProperties,
        after: Sequence[Callable[[], None]] = (),
    ) -> Callable[[], int]:
        """Put the data file of a commit; return what puts its entry and says under which version.

        Args:
            table: as the commit's writer has seen it.
            rows: none decide the application transactions alone.
            properties: of the commit.
            after: what comes before the entry, done beside the upload.

        Raises:
            CommitFailedError: of the entry alone: a commit that came in between has one of the same
                application transactions, or changes the table.
            ConfigurationError: the store does not admit this process.
            StoreError: it does not answer, or is busy; whether an entry has landed, nobody knows.
        """
        staged = self._staged(table, rows, properties)
        uploads: list[Callable[[], None]] = [partial(self._upload, staged), *after]
        side_by_side(uploads)
        return partial(self._put, staged.entry, table.version() + 1)

    def replace(self, table: DeltaTable, files: Mapping[str, int], rows: pa.Table) -> int:
        """Put rows in place of the files that hold them, and return the version in which they are.

        The library's own compaction commits after whatever version is newest by then, not after the one that
        it has read: two at once would replace the same files, and each row would be there twice.

        Args:
            table: as it was read.
            files: name of each, and its size in bytes.
            rows: all that they hold.

        Raises:
            See uploaded.
        """
        staged = self._staged(table, rows, CommitProperties())
        actions = [json.dumps(_unchanged(each)) for each in log_actions(staged.entry)]
        actions += [json.dumps({"remove": _removal(name, size)}) for name, size in files.items()]
        compacted = _Staged(staged.files, "\n".join(actions).encode())
        self._upload(compacted)
        return self._put(compacted.entry, table.version() + 1)

    def made(self, table: DeltaTable, commit: Callable[[DeltaTable], None]) -> int:
        """Put a commit that names files which are in the store already; return the version in which they are.

        Args:
            table: as it was read.
            commit: makes the commit in a table of the same columns on this machine.

        Raises:
            See uploaded.
        """
        stage = self._stage_for(table)
        commit(stage)
        stage.update_incremental()
        return self._put(self._newest_entry_of(stage), table.version() + 1)

    def put_file(self, name: str, file: Path) -> None:
        """Put a data file that no commit names yet; it goes in parts where it is large."""
        with store_faults(self._place):
            obstore.put(self._client, key_of(self._place / name), file)

    def _upload(self, staged: _Staged) -> None:
        with store_faults(self._place):
            for name, content in staged.files.items():
                obstore.put(self._client, key_of(self._place / name), content)

    def _staged(self, table: DeltaTable, rows: pa.Table, properties: CommitProperties) -> _Staged:
        stage = self._stage_for(table)
        append_rows(stage, rows, properties)
        entry = self._newest_entry_of(stage)
        names = [action["add"]["path"] for action in log_actions(entry) if "add" in action]
        files = {name: (self._made / name).read_bytes() for name in names}
        for name, content in files.items():
            (self._made / name).unlink()
            keep(self._place / name, content)
        return _Staged(files, entry)

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
        return entry_path(Place.local(self._made), stage.version()).read_bytes()

    def _put(self, entry: bytes, first: int) -> int:
        version = first
        while True:
            key = key_of(entry_place(self._place, version))
            try:
                with store_faults(self._place):
                    obstore.put(self._client, key, entry, mode="create", use_multipart=False)
            except AlreadyExistsError:
                there = read_entry(self._place, version)
                if there is None:
                    raise CommitFailedError("the log was shortened meanwhile") from None
            else:
                there = entry
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
