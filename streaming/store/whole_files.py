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
    written_beside(path, content).replace(path)
    sync_path(path.parent)


def create_file(path: Path, content: bytes) -> bool:
    """Write a file unless one is there, and say whether it was this one: of several at once, one prevails.

    Raises:
        OSError: it cannot be written.
    """
    made, created = written_beside(path, content), False
    try:
        with suppress(FileExistsError):
            path.hardlink_to(made)
            created = True
    finally:
        made.unlink()
    sync_path(path.parent)
    return created


def sync_path(path: Path) -> None:
    """Return once the content of a file, or the names in a folder, are on its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def written_beside(path: Path, content: bytes) -> Path:
    """Write a file beside where it is to be, for its owner alone, and return it once it is on its disk.

    Raises:
        OSError: it cannot be written; nothing is left of it.
    """
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
