"""What lies in an object store below a table, as listings say: newest entries, data files, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

import obstore

from streaming.delta.log_files import LOG, POINTER, checkpoint_in, entry_name, prefix_of, versions_of
from streaming.store.client import client_of, key_of, name_in, store_faults
from streaming.store.listing import objects_below
from streaming.store.place import Place


def entry_place(table: Place, version: int) -> Place:
    """Return where a log entry lies."""
    return table / LOG / entry_name(version)


def newest_entry(table: Place, after: int = -1) -> int:
    """Return the number of the newest log entry after one that is known, that one where none came since.

    Raises:
        FlagstreamError: the store does not answer, or does not admit this process.
    """
    known = None if after < 0 else entry_place(table, after)
    return max(versions_of(_names(table / LOG, known)), default=after)


def log_names(table: Place, first: int = 0) -> list[str]:
    """Return the names of what lies in a log, relative to it, but for what belongs to versions before one.

    Raises:
        See newest_entry.
    """
    log = table / LOG
    return list(_names(log, log / prefix_of(first) if first else None))


def read_entry(table: Place, version: int) -> bytes | None:
    """Return a log entry, None where there is none; see read_log_file."""
    return read_log_file(table, entry_name(version))


def read_log_file(table: Place, name: str) -> bytes | None:
    """Return a file of a log by its name relative to it, None where there is none or it was forgotten.

    Raises:
        See newest_entry.
    """
    place = table / LOG / name
    try:
        with store_faults(place):
            return bytes(obstore.get(client_of(place), key_of(place)).bytes()) or None
    except FileNotFoundError:
        return None


def entry_tag(table: Place, version: int) -> str | None:
    """Return what tells a log entry from another in its place, None where there is none; see newest_entry."""
    place = entry_place(table, version)
    try:
        with store_faults(place):
            return obstore.head(client_of(place), key_of(place))["e_tag"]
    except FileNotFoundError:
        return None


def remote_checkpoint(table: Place) -> int:
    """Return the version of the newest checkpoint, -1 for none; see newest_entry."""
    return checkpoint_in(read_log_file(table, POINTER))


def data_file_names(table: Place) -> set[str]:
    """Return the names of data files below a table, whether they count or not; see newest_entry."""
    return {name for name in _names(table) if name.endswith(".parquet") and not name.startswith("_")}


def is_in_store(place: Place) -> bool:
    """Say whether anything lies below a place of a store; see newest_entry."""
    with store_faults(place):
        return any(obstore.list(client_of(place), key_of(place), chunk_size=1))


def tables_in_store(lake: Place) -> list[Place]:
    """Return what may be tables right below a lake, by name; see newest_entry."""
    with store_faults(lake):
        found = obstore.list_with_delimiter(client_of(lake), key_of(lake))["common_prefixes"]
    return [lake / name for name in sorted(name_in(lake, each) for each in found)]


def _names(place: Place, after: Place | None = None) -> Iterator[str]:
    return (name for name, _ in objects_below(place, after))
