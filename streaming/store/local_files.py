"""Files in a folder of this machine: written beside and renamed into place, replaced under a lock."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from schemas.errors import ConfigurationError
from streaming.store.files import MOST_BYTES, FileState
from streaming.store.place import Place
from streaming.store.whole_files import create_file, sync_path, written_beside

_LOCK_SECONDS, _LOCK_POLL_SECONDS = 1.0, 0.005


@dataclass(frozen=True)
class LocalFiles:
    """Files of a folder of this machine, made when first written to; see streaming.store.files.Files."""

    place: Place

    def read(self, name: str) -> FileState | None:
        """See Files.read."""
        path = self._path(name)
        with suppress(FileNotFoundError):
            # Opened without waiting: a named pipe that nobody writes to would hold the reader for ever.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:  # noqa: PTH123 -- a descriptor
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise ConfigurationError("expected a regular file", where=str(path))
                content = file.read(MOST_BYTES + 1)
            if len(content) > MOST_BYTES:
                raise ConfigurationError(f"larger than {MOST_BYTES:,} bytes", where=str(path))
            return FileState(content, content)
        return None

    def create(self, name: str, content: bytes) -> FileState | None:
        """See Files.create."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return FileState(content, content) if create_file(path, content) else None

    def replace(self, name: str, content: bytes, held: FileState) -> FileState | None:
        """See Files.replace; None, too, where somebody else holds the lock beside it for a second.

        Who is stopped while it holds the lock keeps others from writing: so it is held for a moment alone.
        """
        path = self._path(name)
        if not path.parent.is_dir():
            return None
        made = written_beside(path, content)
        try:
            with locked(path.with_suffix(".lock")) as alone:
                found = self.read(name) if alone else None
                if found is None or found.mark != held.mark:
                    return None
                made.replace(path)
        finally:
            made.unlink(missing_ok=True)
        sync_path(path.parent)
        return FileState(content, content)

    def remove(self, name: str) -> None:
        """See Files.remove."""
        path = self._path(name)
        with suppress(FileNotFoundError):
            path.unlink()
            sync_path(path.parent)

    def names(self) -> list[str]:
        """See Files.names; what is being written has a name that begins with a dot."""
        folder = self.place.path
        if not folder.is_dir():
            return []
        return sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != ".")

    def _path(self, name: str) -> Path:
        return self.place.path / name


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Yield whether a lock was to be had within a second; it falls with its process, however that ends."""
    until = time.monotonic() + _LOCK_SECONDS
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        while not (alone := _try_lock(lock)) and time.monotonic() < until:
            time.sleep(_LOCK_POLL_SECONDS)
        yield alone


def _try_lock(lock: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
