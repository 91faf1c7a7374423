"""Folders for what is on its way to a store or from it, which outlive no process for long.

Each process has a folder of its own below the spool, locked for as long as it lives. Whoever makes one
removes those whose lock has fallen: a process that was killed has left them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OWN = "process-"
# It cannot be written to, or is on a network without locks, where nobody may tidy up.
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBADF, errno.ENOLCK, errno.ENOTSUP)


class _Spool:
    """Where this process keeps such folders, and those of its own so far."""

    def __init__(self) -> None:
        self.root: Path | None = None
        self._lock = threading.Lock()
        self._own: dict[Path, Path] = {}

    def own(self, root: Path) -> Path:
        """Return this process's folder below a spool."""
        with self._lock:
            if root not in self._own:
                self._own[root] = _made(root)
            return self._own[root]


_SPOOL = _Spool()


def keep_spool_in(root: Path) -> None:
    """Let this process keep its folders below another one; without one they lie among temporary files."""
    _SPOOL.root = root


def spool_folder(prefix: str, root: Path | None = None) -> Path:
    """Return a new empty folder: whoever asked for it removes it; where that was killed, another process.

    Args:
        prefix: of its name.
        root: the spool, unless that of `keep_spool_in`.

    Raises:
        OSError: the disk takes nothing.
    """
    root = root or _SPOOL.root
    if root is None:
        return Path(tempfile.mkdtemp(prefix=prefix))
    try:
        return Path(tempfile.mkdtemp(prefix=prefix, dir=_SPOOL.own(root)))
    except OSError as fault:
        if fault.errno not in _UNUSABLE:  # who only reads an agent may not write to its home
            raise
        return Path(tempfile.mkdtemp(prefix=prefix))


@contextmanager
def spooled(prefix: str, root: Path | None = None) -> Iterator[Path]:
    """Yield a folder of `spool_folder`, which is removed at the end."""
    folder = spool_folder(prefix, root)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _made(root: Path) -> Path:
    """Make a folder that is locked before anybody else could take it for one that was left."""
    root.mkdir(parents=True, exist_ok=True)
    looking = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(looking, fcntl.LOCK_EX)
        for left in root.glob(f"{_OWN}*"):
            _remove_left(left)
        folder = Path(tempfile.mkdtemp(prefix=_OWN, dir=root))
        # Never closed: the lock is to fall with this process.
        fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
        return folder
    finally:
        os.close(looking)


def _remove_left(folder: Path) -> None:
    with suppress(OSError):
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
        finally:
            os.close(held)
