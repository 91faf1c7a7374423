"""The log of a table in an object store, kept on this machine as well: each entry crosses the network once.

Delta's library reads every entry since the last checkpoint whenever it is asked for an application's
transaction, or for the files of a version that it has not seen. Entries never change, so what was read or
written once is kept in a folder here, and the library is given that folder: it reads the log from it, and no
data files. Files of the table are read by their names in the store, see streaming.delta.data_files.
"""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections.abc import Iterable
from functools import partial
from itertools import count
from pathlib import Path

from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from streaming.delta.log_files import (
    LOG,
    POINTER,
    checkpoint_in,
    entry_name,
    is_of_a_version,
    versions_of,
)
from streaming.delta.remote_log import log_names, newest_entry, read_log_file
from streaming.delta.side_by_side import side_by_side
from streaming.store.place import Place
from streaming.store.spool import spool_folder

_MADE_ANEW_AFTER = 128
_FOLDERS = 2  # whoever has opened a table from the one before is about to open it from the newest


class LogMirror:
    """A copy of one table's log from a checkpoint on. Safe to use from several threads.

    It is begun anew from time to time, in another folder; a table that was opened before goes on in its own.

    Args:
        place: where the table lies, in an object store.
    """

    def __init__(self, place: Place) -> None:
        self._place, self._lock = place, threading.RLock()
        self._root = spool_folder("flagstream-log-")
        weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)
        self._numbers = count()
        self._folders: list[Path] = []
        self._newest, self._taken, self._is_sound = -1, 0, False

    def opened(self) -> DeltaTable:
        """Copy what has come since, and open the table as it is now; now and then the copy is made anew.

        Raises:
            FlagstreamError: the store does not answer, or does not admit this process.
            TableNotFoundError: there is no table.
            DeltaError: it cannot be opened.
        """
        with self._lock:
            if not self.follow():
                self._begin()
            try:
                return DeltaTable(self._folders[-1])
            except Exception:
                # What was copied does not belong together: nothing of it is used again.
                self._is_sound = False
                raise

    def follow(self) -> bool:
        """Copy what has come since; False where the table must be opened anew.

        So it must where entries since are gone, and after so many that a newer checkpoint may stand for them.

        Raises:
            See opened.
        """
        with self._lock:
            if not self._is_sound or self._taken >= _MADE_ANEW_AFTER:
                return False
            newest = newest_entry(self._place, self._newest)
            missing = range(self._newest + 1, newest + 1)
            if len(missing) >= _MADE_ANEW_AFTER:
                return False
            names = map(entry_name, missing)
            found = side_by_side([partial(read_log_file, self._place, name) for name in names])
            for version, content in zip(missing, found, strict=True):
                if content is None:
                    return False
                self.take(version, content)
            return True

    def take(self, version: int, content: bytes) -> None:
        """Keep an entry that was put, or met there; one that does not follow the newest is left for later."""
        with self._lock:
            if version == self._newest + 1:
                _write(self._folders[-1] / LOG / entry_name(version), content)
                self._newest, self._taken = version, self._taken + 1

    def _begin(self) -> None:
        """Go on from the newest checkpoint; what is here already is not read again."""
        pointer = read_log_file(self._place, POINTER)
        first = max(checkpoint_in(pointer), 0)
        names = [name for name in log_names(self._place, first) if is_of_a_version(name)]
        if not names:
            raise TableNotFoundError(f"no log in {self._place}")
        versions = versions_of(names) or [-1]
        # A listing may miss an entry that was put while it was made, and hold one that was put after it.
        between = [entry_name(each) for each in range(min(versions), max(versions))]
        self._copy(dict.fromkeys([*names, *between]), pointer)
        self._newest, self._taken, self._is_sound = max(versions), 0, True

    def _copy(self, names: Iterable[str], pointer: bytes | None) -> None:
        """Fill a new folder; handles of the one before go on reading there.

        The pointer is the one by which the names were found: by now it may name a checkpoint that is none of
        them.
        """
        folder = self._root / str(next(self._numbers))
        (folder / LOG).mkdir(parents=True)
        before = self._folders[-1] / LOG if self._is_sound else None
        fetched = [name for name in names if not (before and _linked(before / name, folder / LOG / name))]
        contents = side_by_side([partial(read_log_file, self._place, name) for name in fetched])
        for name, content in [*zip(fetched, contents, strict=True), (POINTER, pointer)]:
            if content is not None:  # an entry that was removed meanwhile is older than the checkpoint
                _write(folder / LOG / name, content)
        self._folders.append(folder)
        while len(self._folders) > _FOLDERS:
            shutil.rmtree(self._folders.pop(0), ignore_errors=True)


def _linked(known: Path, file: Path) -> bool:
    """Take over a file of the copy before, which never changes."""
    if not known.exists():
        return False
    file.parent.mkdir(exist_ok=True)
    os.link(known, file)
    return True


def _write(file: Path, content: bytes) -> None:
    """Write a file as the library expects it to appear: whole."""
    file.parent.mkdir(exist_ok=True)
    beside = file.with_name(f".{file.name}")
    beside.write_bytes(content)
    beside.replace(file)
