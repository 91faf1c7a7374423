"""The files below a table: listed with their ages, entries of its log read, and removed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import obstore

from streaming.delta.log_tail import entry_path
from streaming.delta.needless import Written
from streaming.delta.remote_log import read_entry
from streaming.delta.side_by_side import side_by_side
from streaming.store.client import client_of, key_of, store_faults
from streaming.store.listing import objects_below
from streaming.store.object_files import delete_objects
from streaming.store.place import Place


class TableFiles(Protocol):
    """The files below one table.

    From any call:

    Raises:
        ConfigurationError: the store does not admit this process.
        StoreError: it does not answer, or is busy.
        OSError: the disk does not.
    """

    def written(self) -> Written:
        """List what is there."""

    def entries(self, versions: Sequence[int]) -> dict[int, bytes]:
        """Read entries of the log, as far as they are there, by version."""

    def remove(self, names: Sequence[str]) -> None:
        """Delete files; one that is gone already keeps no other from it."""

    def void(self, entries: Sequence[str]) -> None:
        """Take away what young entries of the log hold, so that nobody commits under their numbers."""


def files_below(place: Place) -> TableFiles:
    """Return the files of a table, here or in a store."""
    return FilesHere(place) if place.is_local else FilesInStore(place)


@dataclass(frozen=True)
class FilesHere:
    """See TableFiles."""

    place: Place

    def written(self) -> Written:
        """See TableFiles."""
        found, folder = dict[str, float](), self.place.path
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):  # the library writes an entry under another name first
                if path.is_file():
                    found[path.relative_to(folder).as_posix()] = path.stat().st_mtime
        return found

    def entries(self, versions: Sequence[int]) -> dict[int, bytes]:
        """See TableFiles."""
        return {version: entry_path(self.place, version).read_bytes() for version in versions}

    def remove(self, names: Sequence[str]) -> None:
        """See TableFiles."""
        for name in names:
            (self.place / name).path.unlink(missing_ok=True)

    def void(self, entries: Sequence[str]) -> None:
        """See TableFiles; here who commits looks for a newer checkpoint right before."""
        self.remove(entries)


@dataclass(frozen=True)
class FilesInStore:
    """See TableFiles."""

    place: Place

    def written(self) -> Written:
        """See TableFiles."""
        return {name: each["last_modified"].timestamp() for name, each in objects_below(self.place)}

    def entries(self, versions: Sequence[int]) -> dict[int, bytes]:
        """See TableFiles."""
        found = side_by_side([partial(read_entry, self.place, each) for each in versions])
        return {number: each for number, each in zip(versions, found, strict=True) if each is not None}

    def remove(self, names: Sequence[str]) -> None:
        """See TableFiles."""
        client, keys = client_of(self.place), [key_of(self.place / name) for name in names]
        with store_faults(self.place):
            delete_objects(client, keys)

    def void(self, entries: Sequence[str]) -> None:
        """See TableFiles; who has not read the log for a minute finds the number taken, and reads it."""
        client = client_of(self.place)
        with store_faults(self.place):
            for name in entries:
                obstore.put(client, key_of(self.place / name), b"")
