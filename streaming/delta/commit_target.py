"""Where the parts of a commit go: files of a table's folder, or objects below its prefix in a store."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import AlreadyExistsError

from streaming.delta.data_files import KEPT_EACH, keep
from streaming.delta.log_tail import checkpointed_version, entry_path
from streaming.delta.remote_log import entry_place, read_entry
from streaming.delta.side_by_side import side_by_side
from streaming.store.client import client_of, key_of, store_faults
from streaming.store.place import Place


class CommitTarget(Protocol):
    """Takes data files and log entries of one table."""

    def put_file(self, name: str, made: Path) -> None:
        """Put a data file that no commit names yet; what was made of it here is gone afterwards."""

    def put_entry(self, version: int, entry: bytes) -> bool:
        """Put a log entry under a number; False where another one lies there."""

    def entry(self, version: int) -> bytes | None:
        """Return a log entry, None where there is none any more."""

    def do_all(self, independent: Sequence[Callable[[], None]]) -> None:
        """Do what does not depend on each other."""


def target_of(place: Place) -> CommitTarget:
    """Return what takes the commits of a table."""
    return _Folder(place) if place.is_local else _Prefix(place)


class _Folder:
    """A folder of this machine. What is on its way has a name that no reader of Delta takes for an entry."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def put_file(self, name: str, made: Path) -> None:
        shutil.move(made, self._place.path / name)

    def put_entry(self, version: int, entry: bytes) -> bool:
        # Where the log was shortened meanwhile, the number is free although it was taken.
        if checkpointed_version(self._place) >= version:
            return False
        wanted = entry_path(self._place, version)
        written = wanted.with_name(f"_commit_{secrets.token_hex(8)}.json.tmp")
        try:
            written.write_bytes(entry)
            os.link(written, wanted)
        except FileExistsError:
            return False
        finally:
            written.unlink(missing_ok=True)
        return True

    def entry(self, version: int) -> bytes | None:
        try:
            return entry_path(self._place, version).read_bytes()
        except FileNotFoundError:
            return None

    def do_all(self, independent: Sequence[Callable[[], None]]) -> None:
        for each in independent:
            each()


class _Prefix:
    """Objects of a store. What was put is kept, since a batch reads back what it has stored."""

    def __init__(self, place: Place) -> None:
        self._place, self._client = place, client_of(place)

    def put_file(self, name: str, made: Path) -> None:
        """See CommitTarget; it goes in parts where it is large."""
        with store_faults(self._place):
            obstore.put(self._client, key_of(self._place / name), made)
        if made.stat().st_size <= KEPT_EACH:
            keep(self._place / name, made.read_bytes())
        made.unlink()

    def put_entry(self, version: int, entry: bytes) -> bool:
        key = key_of(entry_place(self._place, version))
        try:
            with store_faults(self._place):
                obstore.put(self._client, key, entry, mode="create", use_multipart=False)
        except AlreadyExistsError:
            return False
        return True

    def entry(self, version: int) -> bytes | None:
        return read_entry(self._place, version)

    def do_all(self, independent: Sequence[Callable[[], None]]) -> None:
        side_by_side(independent)
