"""Opens Delta tables to read, at their newest version or an earlier one, and says why one cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from schemas.counts import count_of
from schemas.errors import DataLossError, MachineError
from streaming.delta.faults import table_faults
from streaming.delta.formats import check_format
from streaming.delta.log_files import LOG
from streaming.delta.log_tail import check_newest
from streaming.delta.remote_log import data_file_names, newest_entry
from streaming.store.place import Place


def newest_version(place: Place, opened: Callable[[], DeltaTable] | None = None) -> DeltaTable:
    """Open a table at its newest version.

    Args:
        place: where it lies.
        opened: opens it, where not Delta's library does so from there.

    Raises:
        ConfigurationError: it is of a later format.
        DataLossError: its newest log entry is torn, or its log is gone.
        RetryableError: the store that it lies in is away.
        TableNotFoundError: there is none.
        DeltaError: it cannot be opened.
    """
    try:
        with table_faults(place):
            table = (opened or partial(_opened, place))()
    except TableNotFoundError:
        _check_nothing_left(place)
        raise
    except DeltaError:
        _check_newest(place)
        raise
    _check_newest(place, table.version())
    check_format(place, table)
    return table


def _opened(place: Place) -> DeltaTable:
    return DeltaTable(place.uri, storage_options=place.storage_options)


def _check_newest(place: Place, version: int | None = None) -> None:
    """A store shows an entry whole or not at all."""
    if place.is_local:
        check_newest(place, version)


def _check_nothing_left(place: Place) -> None:
    """A table whose log is gone must not count as one that never was."""
    if _data_files(place):
        raise DataLossError(
            f"{place} holds data files, but the log that says which of them count is gone: restore its "
            f"folder `{LOG}` from a copy, or move the table aside to begin a new one"
        )


def _data_files(place: Place) -> Collection[str]:
    if place.is_local:
        return [path.name for path in place.path.glob("*.parquet")]
    return data_file_names(place)


def open_for_reading(place: Place) -> DeltaTable | None:
    """Open a table to read without taking it over; None when it does not exist yet.

    Raises:
        ConfigurationError: it is of a later format.
        DataLossError: its newest log entry is torn.
        MachineError: it cannot be read.
    """
    try:
        is_nowhere = place.is_local and not place.path.exists()  # who waits for it looks again and again
        return None if is_nowhere else newest_version(place)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as fault:
        raise MachineError(f"{place} cannot be read: {fault}") from None


def version_at(place: Place, version: int) -> DeltaTable:
    """Open a table at a version; DeltaError where that cannot be read any more."""
    with table_faults(place):
        return DeltaTable(place.uri, version=version, storage_options=place.storage_options)


def gone_files(place: Place, files: Sequence[str]) -> list[str]:
    """Return those of a version's files that are not there any more."""
    if place.is_local:
        return [name for name in files if not (place / name).path.is_file()]
    there = data_file_names(place)
    return [name for name in files if name not in there]


def why_unreadable(place: Place, version: int) -> str | None:
    """Say why a version cannot be read any more, and what decides how long it is kept; None when it can."""
    try:
        kept = DeltaTable(place.uri, storage_options=place.storage_options).metadata().configuration
    except DeltaError:
        return "the log of the table is gone, or entries of it are missing"
    try:
        files = pa.table(version_at(place, version).get_add_actions())["path"].to_pylist()
    except DeltaError:
        name = "delta.logRetentionDuration"
        return f"its log was cleaned up ({name}: {kept.get(name, 'not set')})"
    gone = len(gone_files(place, files))
    name = "delta.deletedFileRetentionDuration"
    wanted, retention = count_of(len(files), "file"), kept.get(name, "not set")
    reason = f"{gone} of its {wanted} were vacuumed ({name}: {retention})"
    return reason if gone else None


def change_mark(place: Place, since: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """Return what tells one state of a table from another; (0, 0) without one.

    Here it costs microseconds. Clocks of file systems may stand still for a while, so the entries of its log
    are counted, too. In a store it costs a request, which is short where an earlier mark is given.
    """
    if not place.is_local:
        return 1 + newest_entry(place, since[0] - 1), 0
    log = place.path / LOG
    try:
        return log.stat().st_mtime_ns, sum(1 for _ in log.iterdir())
    except OSError:
        return 0, 0
