"""Files beside tables: made if absent, replaced if unchanged, read, listed and removed, wherever they lie.

On this machine they are files of their folder, written beside and renamed into place; in an object store they
are objects under its prefix, written under a condition. Either is there whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from streaming.store.place import Place

MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class FileState:
    """A file as it was read or written.

    Attributes:
        content: all of it.
        mark: what tells this state of it from others, for `Files.replace`.
    """

    content: bytes
    mark: object = field(repr=False)


class Files(Protocol):
    """Small files below one place, by their names relative to it.

    From any call:

    Raises:
        ConfigurationError: the store does not admit this process, or there is no such bucket.
        RetryableError: the store is away or busy.
        OSError: the disk takes nothing, or cannot be read.
    """

    @property
    def place(self) -> Place:
        """Where they lie."""

    def read(self, name: str) -> FileState | None:
        """Return a file, None where there is none.

        Raises:
            ConfigurationError: it is larger than `MOST_BYTES`, or no regular file.
        """

    def create(self, name: str, content: bytes) -> FileState | None:
        """Write a file unless one is there; of several at once, one prevails.

        Returns:
            It, None where another is there. Where the answer was lost, what is there is compared: so the
            content of two writers that must be told apart differs.
        """

    def replace(self, name: str, content: bytes, held: FileState) -> FileState | None:
        """Write a file in place of one that is still what was read or written.

        Returns:
            It, None where another is there; see `create`.
        """

    def remove(self, name: str) -> None:
        """Remove a file, which may be gone already."""

    def names(self) -> list[str]:
        """Return the names of the files right below the place, in order; none where it is not there."""
