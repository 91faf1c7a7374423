"""Files that are there whole or not at all, after a power cut as well; only their owner may read them."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in place of one that may be there.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    _written_beside(path, content).replace(path)
    sync_path(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """Write a file unless one is there: of several processes that do so at once, one prevails.

    Raises:
        OSError: it cannot be written.
    """
    made = _written_beside(path, content)
    with suppress(FileExistsError):
        path.hardlink_to(made)
    made.unlink()
    sync_path(path.parent)


def sync_path(path: Path) -> None:
    """Return once the content of a file, or the names in a folder, are on its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written_beside(path: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    made = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        made.unlink()  # a full disk would gather one for each attempt
        raise
    return made
