"""One table of a lake, appended by one driver: idempotent and fenced commits, and the care of its log."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from schemas.errors import (
    DataLossError,
    FencedError,
    FlagstreamError,
    RetryableError,
)
from streaming.delta.commits import MARK_KEY, RefusedError, has_landed, new_mark
from streaming.delta.durable import sync
from streaming.delta.faults import table_faults
from streaming.delta.log_mirror import LogMirror
from streaming.delta.log_tail import TRANSACTIONS_KEY
from streaming.delta.maintenance import MaintenanceLimits, maintain
from streaming.delta.staged import StagedCommits
from streaming.delta.stored import METADATA_KEY, RECENT_COMMITS, StoredTable
from streaming.delta.table_schema import check_columns, create_table, former_columns, missing_columns
from streaming.delta.table_versions import newest_version
from streaming.store.place import Place

_TIDY_EVERY = 128


@dataclass(frozen=True)
class Stamp:
    """Who writes: the stream's application id and the batch within it."""

    app_id: str
    batch_id: int


class LakeTable(StoredTable):
    """One append-only Delta table, held by one driver under one epoch.

    Args:
        place: where the table lies; created with `schema` when absent.
        schema: Arrow schema; an existing table must have the same column names and types.
        fence_id: application id under which epochs are recorded, and no stream's.
        retention: how long versions stay readable.
        later: columns, nullable, that a table from before they came is given.
        evolves: the columns are a contract's, which changes: a new one is added, null in what is stored; one
            that is gone stays, null in what is to come.
        synced: others learn of a commit as soon as it is made, so it is on disk when append returns.

    Raises:
        ConfigurationError: the table exists with another schema.
        DiskError: from any call, when the disk takes nothing.
    """

    # How many times the log is tried to be read for a commit whose answer was lost.
    _read_attempts = 1

    def __init__(
        self,
        place: Place,
        schema: pa.Schema,
        fence_id: str,
        retention: timedelta,
        later: Collection[str] = (),
        *,
        synced: bool = False,
        evolves: bool = False,
    ) -> None:
        self._log = None if place.is_local else LogMirror(place)
        self.place = place
        with table_faults(place):
            super().__init__(place, self._open_or_create(schema, retention), schema)
        self._fence_id, self._epoch, self._commits, self._synced = fence_id, 0, 0, synced
        self._staged: StagedCommits | None = None
        self._add_missing(schema.names if evolves else later)
        self._former = former_columns(self._found(), self.schema) if evolves else []
        self.schema = pa.schema([*schema, *self._former])
        # Late answers are committed beside batches, which open the tables anew meanwhile.
        self._writing = threading.RLock()
        check_columns(self._found(), self.schema, self.place)

    def _open_or_create(self, schema: pa.Schema, retention: timedelta) -> DeltaTable:
        with suppress(TableNotFoundError):
            return self._newest()
        create_table(self.place, schema, retention)
        return self._newest()

    @property
    def epoch(self) -> int:
        """The highest epoch any driver has claimed on this table, as this handle sees it."""
        return self._transaction(self._fence_id) or 0

    def completed(self, rows: pa.Table) -> pa.Table:
        """Return rows in this table's columns; those that are gone from the contract hold nothing."""
        for field in self._former:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
        return rows.select(self.schema.names).cast(self.schema)

    def claim(self, epoch: int) -> None:
        """Take the table over: from here on commits under a lower epoch fail.

        Raises:
            FencedError: another driver claimed this or a later epoch first.
        """
        self.refresh()
        if self.epoch >= epoch:
            raise FencedError(f"{self.place.name}: epoch {self.epoch} is already claimed")
        self._epoch = epoch
        self._commit(self.schema.empty_table())

    def hold(self, epoch: int) -> None:
        """Go on under an epoch that this process has claimed, and nobody a later one since: no commit."""
        self._epoch = epoch

    def append(
        self,
        rows: pa.Table,
        stamp: Stamp,
        metadata: Mapping[str, Any] | None = None,
        also: Sequence[Stamp] = (),
        after: Sequence[Callable[[], None]] = (),
    ) -> bool:
        """Commit `rows` once for this stamp; False when an earlier attempt already has.

        Args:
            rows: a table with exactly this table's columns; empty is allowed and still decides the stamp.
            stamp: the stream and batch that the rows belong to.
            metadata: JSON-serialisable facts to keep in the commit.
            also: further stamps that the commit settles; the caller has checked them through this handle.
            after: commits to other tables, independent of each other, that come before this one. In a store
                they are made side by side, and beside the upload of these rows.

        Raises:
            FencedError: a later driver has claimed the table.
        """
        with self._writing:
            self._follow()
            self._check_epoch()
            if self.last_batch(stamp.app_id) >= stamp.batch_id:
                return False
            self._commit(rows, [stamp, *also], metadata, after)
            self._commits += 1
        if self._synced:
            sync(self.place)
        return True

    def last_batch(self, app_id: str) -> int:
        """See StoredTable; a log that was shortened meanwhile is followed."""
        self._follow()
        return super().last_batch(app_id)

    def _follow(self) -> None:
        self.keep_up()

    def _newest(self) -> DeltaTable:
        return newest_version(self.place, None if self._log is None else self._log.opened)

    def _refresh_table(self) -> None:
        if self._log is not None and not self._log.follow():
            self._reopen()
        super()._refresh_table()

    def _history(self) -> Iterator[Mapping[str, Any]]:
        """The copy of a log begins with a checkpoint: what was before it is asked of the store.

        Each entry is a request there, so the recent ones come first.
        """
        there = newest_version(self.place)
        yield from there.history(RECENT_COMMITS)
        yield from there.history()

    def keep_up(self) -> bool:
        """See StoredTable; nobody commits meanwhile."""
        with self._writing:
            return super().keep_up()

    def metadata_of(self, query_id: str, batch_id: int) -> dict[str, Any]:
        """Return the facts committed with a batch.

        Raises:
            DataLossError: no commit on record belongs to the batch.
        """
        for commit in self._recorded():
            kept = json.loads(commit.get(METADATA_KEY, "{}"))
            if kept.get("query_id") == query_id and kept.get("batch_id") == batch_id:
                return cast("dict[str, Any]", kept)
        raise DataLossError(f"{self.place.name}: batch {batch_id} of query {query_id} has no commit to read")

    def tidy(self) -> bool:
        """Maintain the table and open it anew, once every few commits; True when it did.

        For who has nobody to do it beside; see streaming.delta.maintenance.
        """
        if self._commits < _TIDY_EVERY:
            return False
        with self._writing:
            maintain(self.place, MaintenanceLimits(files=_TIDY_EVERY))
        return self.renew()

    def renew(self) -> bool:
        """Open the table anew once every few commits, or when its log was shortened; True when it did.

        A handle kept for long takes longer with every commit to catch up with the log.
        """
        with self._writing:
            if self._commits < _TIDY_EVERY:
                return self.keep_up()
            self._commits = 0
            self._reopen()
        return True

    def _commit(
        self,
        rows: pa.Table,
        stamps: Sequence[Stamp] = (),
        metadata: Mapping[str, Any] | None = None,
        after: Sequence[Callable[[], None]] = (),
    ) -> None:
        before, mark = self.version, new_mark()
        transactions = {self._fence_id: self._epoch, **{each.app_id: each.batch_id for each in stamps}}
        assert len(transactions) > len(stamps), "a stream has the name of the fence"
        properties = _properties(mark, transactions, metadata)
        with table_faults(self.place):
            put = self._stage().prepared(self._handle.opened, before, rows, properties, after)
        try:
            with table_faults(self.place):
                made = put()
            self._handle.committed(made.version, transactions, made.files)
        except Exception as fault:
            landed = has_landed(self._reopened, before, mark, self._read_attempts)
            if landed:
                return
            if isinstance(fault, CommitFailedError):
                raise self._refused(fault, certainly=landed is not None) from None
            raise

    def _stage(self) -> StagedCommits:
        """Return what makes commits; who only reads through this handle needs no folder for it."""
        if self._staged is None:
            self._staged = StagedCommits(self.place, *(() if self._log is None else (self._log.take,)))
        return self._staged

    def _reopened(self) -> DeltaTable:
        self._reopen()
        return self._table

    def check_ours(self) -> None:
        """Check that no later driver has claimed the table.

        Raises:
            FencedError: one has.
        """
        self.refresh()
        self._check_epoch()

    def _check_epoch(self) -> None:
        if self.epoch > self._epoch:
            raise FencedError(f"{self.place.name}: a driver with epoch {self.epoch} has taken over")

    def _refused(self, fault: CommitFailedError, *, certainly: bool) -> FlagstreamError:
        """Return what a refusal means; where the log could not be read, the commit may have landed."""
        try:
            self.check_ours()
        except FencedError as fenced:
            return fenced
        kind = RefusedError if certainly else RetryableError
        return kind(f"{self.place.name}: {fault}")

    def _add_missing(self, later: Collection[str]) -> None:
        missing = missing_columns(self._found(), self.schema, later, self.place)
        if missing:
            newest_version(self.place).alter.add_columns(Schema.from_arrow(pa.schema(missing)).fields)
            self._reopen()

    def _found(self) -> pa.Schema:
        return pa.schema(self._table.schema().to_arrow())


def _properties(
    mark: str, transactions: Mapping[str, int], metadata: Mapping[str, Any] | None
) -> CommitProperties:
    custom = {TRANSACTIONS_KEY: str(len(transactions)), MARK_KEY: mark}
    if metadata is not None:
        custom[METADATA_KEY] = json.dumps(metadata, sort_keys=True)
    written = [Transaction(app_id, version) for app_id, version in transactions.items()]
    return CommitProperties(custom_metadata=custom, app_transactions=written)
