"""Keeps tables small: few files, a short log, nothing on disk that no readable version needs.

It runs beside the writers, in handles of its own. What it commits changes no row and carries no epoch, so it
neither fences a writer nor is refused because of one. Of several that maintain a table one does so at a time:
Delta lets two compactions replace the same files, and then every row of them is there twice.
"""

from __future__ import annotations

import fcntl
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from streaming.delta.appending import NO_HOOKS, WRITER
from streaming.delta.durable import sync
from streaming.delta.faults import table_faults
from streaming.delta.log_files import LOG
from streaming.delta.log_tail import checkpointed_version
from streaming.delta.remote_log import newest_entry, tables_in_store
from streaming.delta.staged import StagedCommits
from streaming.delta.stored import StoredTable
from streaming.delta.table_versions import newest_version
from streaming.store.place import Place

_COMPACTED_BYTES = 16 * 1024 * 1024
_LOW_PRIORITY = 10
ROUND_SECONDS, PAUSE_SECONDS = 10.0, 1.0
STORE_ROUND_SECONDS = 60.0  # to see whether a table has changed is a request
_DAY_MS = 24 * 60 * 60 * 1000
_FILES_KEPT, _LOG_KEPT = "delta.deletedFileRetentionDuration", "delta.logRetentionDuration"


@dataclass(frozen=True)
class MaintenanceLimits:
    """How much may gather in a table before it is worked off.

    Attributes:
        files: small files, and those that have lain for a day.
        old_files: see files.
        entries: log entries since the newest checkpoint.
        least_age: younger files stay, whatever the table's retention: a commit may be under way.
    """

    files: int = 64
    old_files: int = 8
    entries: int = 100
    least_age: timedelta = timedelta(hours=1)


def maintain(
    place: Place, limits: MaintenanceLimits = MaintenanceLimits(), *, now_ms: int | None = None
) -> bool:
    """Compact a table's small files and shorten its log, where enough has gathered; True where it did.

    Where somebody else maintains the table at the moment, it is left to them.

    Raises:
        DataLossError: its newest log entry is torn.
        DiskError: the disk takes nothing.
    """
    with table_faults(place), alone(place) as ours:
        if not ours:
            return False
        table = newest_version(place)
        compacted = _compact(table, place, limits, int(time.time() * 1000) if now_ms is None else now_ms)
        shortened = _shorten_log(table, place, limits)
    return compacted or shortened


def tables_below(lake: Place) -> list[Place]:
    """Return where the tables of a lake lie, by name; its snapshots are none.

    In a store folders without tables are among them: to look into each costs a request.
    """
    if not lake.is_local:
        return tables_in_store(lake)
    return [lake / log.parent.name for log in sorted(lake.path.glob(f"*/{LOG}"))]


def clear(place: Place, limits: MaintenanceLimits = MaintenanceLimits()) -> int | None:
    """Remove the files that no readable version of a table names; return how many.

    None where somebody else maintains the table at the moment: what they have written, no commit names yet.
    Files that were replaced stay for the table's retention, and so do those that no commit has named yet.
    Delta's own clearing forgets replaced files once a checkpoint has dropped them; so all that lie there are
    looked through.
    """
    with table_faults(place), alone(place) as ours:
        if not ours:
            return None
        table = newest_version(place)
        hours = _hours(table, limits)
        if not table.vacuum(hours, full=True):
            return 0
        return len(table.vacuum(hours, dry_run=False, full=True, post_commithook_properties=NO_HOOKS))


def files_kept(place: Place, limits: MaintenanceLimits = MaintenanceLimits()) -> timedelta | None:
    """Return for how long clearing leaves replaced files of a table; None for Delta's own time, a week.

    Raises:
        See maintain.
    """
    with table_faults(place):
        kept = _kept_seconds(newest_version(place), _FILES_KEPT)
    return None if math.isinf(kept) else max(timedelta(seconds=kept), limits.least_age)


class Maintenance:
    """Goes round some tables, again and again.

    Args:
        tables: gives where they lie, each round.
        limits: how much may gather.
        clear_every: between two clearings of one table.
        clock: seconds, monotonic.
        also: is done before each round; True where there was something to do.
    """

    def __init__(
        self,
        tables: Callable[[], Iterable[Place]],
        limits: MaintenanceLimits = MaintenanceLimits(),
        clear_every: timedelta = timedelta(hours=1),
        clock: Callable[[], float] = time.monotonic,
        also: Callable[[], bool] = lambda: False,
    ) -> None:
        self._tables, self._limits, self._clock = tables, limits, clock
        self._also = also
        self._clear_seconds = clear_every.total_seconds()
        self._seen: dict[Place, int] = {}
        self._cleared: dict[Place, float] = {}
        self._last: Place | None = None
        self._pause = ROUND_SECONDS

    def round(self) -> float:
        """Look after the tables that have changed, until there was work on one; return the seconds to wait.

        Tables are due together, since each batch writes to most of them. To work them all off at once would
        slow the batches of that moment down.

        Raises:
            FlagstreamError: a table cannot be maintained; that keeps no other from it.
        """
        faults, worked = list[Exception](), False
        try:
            worked = self._also()
        except Exception as failed:
            faults.append(failed)
        for place in () if worked else self._in_turn():
            worked, fault = self._attempt(place)
            faults += [] if fault is None else [fault]
            if worked:
                self._last = place
                break
        if faults:
            raise faults[0]
        return PAUSE_SECONDS if worked else self._pause

    def _in_turn(self) -> list[Place]:
        """Return the tables, first those that come after the one that was worked on last."""
        tables = list(self._tables())
        self._pause = ROUND_SECONDS if all(each.is_local for each in tables) else STORE_ROUND_SECONDS
        first = tables.index(self._last) + 1 if self._last in tables else 0
        return [*tables[first:], *tables[:first]]

    def _attempt(self, place: Place) -> tuple[bool, Exception | None]:
        try:
            return self._maintain(place), None
        except (CommitFailedError, FileNotFoundError):
            self._seen.pop(place, None)  # another process was quicker, or the table was removed
        except Exception as fault:
            return False, fault
        return False, None

    def _maintain(self, place: Place) -> bool:
        """Clear and maintain a table where it is due; True where there was something to do."""
        if (changed := self._changed(place)) is None:
            return False
        worked = False
        # Clearing shortens the log up to the last checkpoint: see _shorten_log for why it comes first.
        if self._clock() - self._cleared.get(place, -self._clear_seconds) >= self._clear_seconds:
            self._cleared[place], worked = self._clock(), True
            if clear(place, self._limits) is None:
                del self._cleared[place]
            self._seen.pop(place, None)
            changed = self._changed(place)
        if changed is not None and self._is_due(place, changed):
            worked |= maintain(place, self._limits)
            self._seen[place] = changed
        return worked

    def _changed(self, place: Place) -> int | None:
        """Return what changes with each commit; None where no table lies."""
        if place.is_local:
            return (place / LOG).path.stat().st_mtime_ns
        newest = newest_entry(place, self._seen.get(place, -1))
        return None if newest < 0 else newest

    def _is_due(self, place: Place, changed: int) -> bool:
        """To open a table in a store costs a request per log entry: it is left until enough has gathered."""
        seen = self._seen.get(place)
        if seen is None or place.is_local:
            return seen != changed
        return changed - seen >= min(self._limits.files, self._limits.entries)


def at_low_priority() -> None:
    """Let this thread step back behind the others; elsewhere than on Linux it would be the whole process."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW_PRIORITY)


@contextmanager
def alone(place: Place) -> Iterator[bool]:
    """Say whether nobody else maintains a table, and keep others from it; the lock ends with its process.

    A store knows no locks: there the commit of whoever comes second is refused, see StagedCommits.replace.
    """
    if not place.is_local:
        yield True
        return
    folder = os.open((place / LOG).path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(folder)


def _compact(table: DeltaTable, place: Place, limits: MaintenanceLimits, now_ms: int) -> bool:
    actions = pa.table(table.get_add_actions())
    columns = (actions[name].to_pylist() for name in ("size_bytes", "modification_time"))
    small = [_as_ms(moment) for size, moment in zip(*columns, strict=True) if size < _COMPACTED_BYTES]
    old = [moment for moment in small if now_ms - moment > _DAY_MS]
    if len(small) < limits.files and len(old) < limits.old_files:
        return False
    if place.is_local:
        table.optimize.compact(
            target_size=_COMPACTED_BYTES, writer_properties=WRITER, post_commithook_properties=NO_HOOKS
        )
        return True
    return _compact_in_store(table, place, actions)


def _compact_in_store(table: DeltaTable, place: Place, actions: pa.Table) -> bool:
    """Put one file in place of small ones, as many as make it large; the others wait for the next time."""
    sizes = zip(*(actions[name].to_pylist() for name in ("path", "size_bytes")), strict=True)
    chosen, total = dict[str, int](), 0
    for name, size in sorted(sizes, key=lambda each: each[1]):
        if total + size <= _COMPACTED_BYTES:
            chosen[name], total = size, total + size
    if len(chosen) <= 1:
        return False
    stored = StoredTable(place, table, pa.schema(pa.schema(table.schema())))
    StagedCommits(place).replace(table, chosen, stored.of_files(list(chosen), stored.schema.names))
    table.update_incremental()
    return True


def _as_ms(moment: object) -> int:
    return int(moment.timestamp() * 1000) if hasattr(moment, "timestamp") else int(str(moment))


def _shorten_log(table: DeltaTable, place: Place, limits: MaintenanceLimits) -> bool:
    """Remove entries before the last checkpoint, then write another.

    So a checkpoint is long on disk before the entries that it stands for are removed, and handles that were
    opened since it was written find all they need.
    """
    if table.version() - checkpointed_version(place) < limits.entries:
        return False
    # Handles in a store are not told that a log was shortened: what is young stays, see StoredTable.keep_up.
    if place.is_local or _kept_seconds(table, _LOG_KEPT) >= limits.least_age.total_seconds():
        table.cleanup_metadata()
    table.create_checkpoint()
    sync(place)
    return True


def _hours(table: DeltaTable, limits: MaintenanceLimits) -> int | None:
    """Return for how long files are kept, None for the table's own retention, as `LakeTable` has set it."""
    least = int(limits.least_age.total_seconds())
    return None if _kept_seconds(table, _FILES_KEPT) >= least else -(-least // 3600)


def _kept_seconds(table: DeltaTable, property_name: str) -> float:
    """Return a retention as `LakeTable` has set it; others are Delta's own, which are long."""
    kept = table.metadata().configuration.get(property_name, "")
    return int(kept.split()[1]) if kept.endswith(" seconds") else math.inf
