"""Keeps tables small: few files, a short log, nothing on disk that no readable version needs.

It runs beside the writers, in handles of its own. What it commits changes no row and carries no epoch, so it
neither fences a writer nor is refused because of one. Of several that maintain a table one does so at a time:
Delta lets two compactions replace the same files, and then every row of them is there twice.
"""

from __future__ import annotations

import fcntl
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, PostCommitHookProperties, WriterProperties
from deltalake.exceptions import CommitFailedError

from streaming.delta.durable import sync
from streaming.delta.faults import disk_faults
from streaming.delta.log_tail import checkpointed_version
from streaming.delta.stored import newest_version

# Groups of rows are what a look-up of single rows reads of a file.
WRITER = WriterProperties(compression="ZSTD", compression_level=1, max_row_group_size=65_536)
NO_HOOKS = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
_COMPACTED_BYTES = 16 * 1024 * 1024
_LOW_PRIORITY = 10
ROUND_SECONDS, PAUSE_SECONDS = 10.0, 1.0
_DAY_MS = 24 * 60 * 60 * 1000


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
    path: Path, limits: MaintenanceLimits = MaintenanceLimits(), *, now_ms: int | None = None
) -> bool:
    """Compact a table's small files and shorten its log, where enough has gathered; True where it did.

    Where somebody else maintains the table at the moment, it is left to them.

    Raises:
        DataLossError: its newest log entry is torn.
        DiskError: the disk takes nothing.
    """
    with disk_faults(path), _alone(path) as alone:
        if not alone:
            return False
        table = newest_version(path)
        compacted = _compact(table, limits, int(time.time() * 1000) if now_ms is None else now_ms)
        shortened = _shorten_log(table, path, limits)
    return compacted or shortened


def clear(path: Path, limits: MaintenanceLimits = MaintenanceLimits()) -> int | None:
    """Remove the files that no readable version of a table names; return how many.

    None where somebody else maintains the table at the moment: what they have written, no commit names yet.
    Files that were replaced stay for the table's retention, and so do those that no commit has named yet.
    Delta's own clearing forgets replaced files once a checkpoint has dropped them; so all that lie there are
    looked through.
    """
    with disk_faults(path), _alone(path) as alone:
        if not alone:
            return None
        table = newest_version(path)
        hours = _hours(table, limits)
        if not table.vacuum(hours, full=True):
            return 0
        return len(table.vacuum(hours, dry_run=False, full=True, post_commithook_properties=NO_HOOKS))


class Maintenance:
    """Goes round some tables, again and again.

    Args:
        tables: gives their folders, each round.
        limits: how much may gather.
        clear_every: between two clearings of one table.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        tables: Callable[[], Iterable[Path]],
        limits: MaintenanceLimits = MaintenanceLimits(),
        clear_every: timedelta = timedelta(hours=1),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables, self._limits, self._clock = tables, limits, clock
        self._clear_seconds = clear_every.total_seconds()
        self._seen: dict[Path, int] = {}
        self._cleared: dict[Path, float] = {}
        self._last: Path | None = None

    def round(self) -> float:
        """Look after the tables that have changed, until there was work on one; return the seconds to wait.

        Tables are due together, since each batch writes to most of them. To work them all off at once would
        slow the batches of that moment down.

        Raises:
            FlagstreamError: a table cannot be maintained; that keeps no other from it.
        """
        faults, worked = list[Exception](), False
        for path in self._in_turn():
            worked, fault = self._attempt(path)
            faults += [] if fault is None else [fault]
            if worked:
                self._last = path
                break
        if faults:
            raise faults[0]
        return PAUSE_SECONDS if worked else ROUND_SECONDS

    def _in_turn(self) -> list[Path]:
        """Return the tables, first those that come after the one that was worked on last."""
        tables = list(self._tables())
        place = tables.index(self._last) + 1 if self._last in tables else 0
        return [*tables[place:], *tables[:place]]

    def _attempt(self, path: Path) -> tuple[bool, Exception | None]:
        try:
            return self._look_after(path), None
        except (CommitFailedError, FileNotFoundError):
            self._seen.pop(path, None)  # another process was quicker, or the table was removed
        except Exception as fault:
            return False, fault
        return False, None

    def _look_after(self, path: Path) -> bool:
        """Clear and maintain a table where it is due; True where there was something to do."""
        worked = False
        # Clearing shortens the log up to the last checkpoint: see _shorten_log for why it comes first.
        if self._clock() - self._cleared.get(path, -self._clear_seconds) >= self._clear_seconds:
            self._cleared[path], worked = self._clock(), True
            if clear(path, self._limits) is None:
                del self._cleared[path]
        changed = (path / "_delta_log").stat().st_mtime_ns
        if self._seen.get(path) != changed:
            worked |= maintain(path, self._limits)
            self._seen[path] = changed
        return worked


def at_low_priority() -> None:
    """Let this thread step back behind the others; elsewhere than on Linux it would be the whole process."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOW_PRIORITY)


@contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Say whether nobody else maintains a table, and keep others from it; the lock ends with its process."""
    folder = os.open(path / "_delta_log", os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(folder)


def _compact(table: DeltaTable, limits: MaintenanceLimits, now_ms: int) -> bool:
    actions = pa.table(table.get_add_actions())
    columns = (actions[name].to_pylist() for name in ("size_bytes", "modification_time"))
    small = [_as_ms(moment) for size, moment in zip(*columns, strict=True) if size < _COMPACTED_BYTES]
    old = [moment for moment in small if now_ms - moment > _DAY_MS]
    if len(small) < limits.files and len(old) < limits.old_files:
        return False
    table.optimize.compact(
        target_size=_COMPACTED_BYTES, writer_properties=WRITER, post_commithook_properties=NO_HOOKS
    )
    return True


def _as_ms(moment: object) -> int:
    return int(moment.timestamp() * 1000) if hasattr(moment, "timestamp") else int(str(moment))


def _shorten_log(table: DeltaTable, path: Path, limits: MaintenanceLimits) -> bool:
    """Remove entries before the last checkpoint, then write another.

    So a checkpoint is long on disk before the entries that it stands for are removed, and handles that were
    opened since it was written find all they need.
    """
    if table.version() - checkpointed_version(path) < limits.entries:
        return False
    table.cleanup_metadata()
    table.create_checkpoint()
    sync(path)
    return True


def _hours(table: DeltaTable, limits: MaintenanceLimits) -> int | None:
    """Return for how long files are kept, None for the table's own retention, as `LakeTable` has set it."""
    kept = table.metadata().configuration.get("delta.deletedFileRetentionDuration", "")
    seconds = int(kept.split()[1]) if kept.endswith(" seconds") else None
    least = int(limits.least_age.total_seconds())
    return None if seconds is None or seconds >= least else -(-least // 3600)
