"""Folders of files that are there whole or not at all: checkpoints, snapshots, trained models.

Whoever makes one fills a folder of this machine, and whoever reads one gets a folder of this machine, so that
large files are written by any library and read by mapping them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from streaming.store.place import Place

ARTEFACTS = "artefacts"  # trained models, below a lake or a snapshot
BASE = "base"  # below profiles: as they stood at the first transaction that retention has left


class Folders(Protocol):
    """Whole folders below one place, by name.

    From any call:

    Raises:
        ConfigurationError: the store does not admit this process, or there is no such bucket.
        RetryableError: the store is away or busy.
        OSError: the disk takes nothing, or cannot be read.
    """

    @property
    def place(self) -> Place:
        """Where they lie."""

    def holds(self, name: str) -> bool:
        """Say whether one is there."""

    def names(self) -> list[str]:
        """Return the names of those that are there, in order; on this machine, of other folders, too."""

    def writing(self, name: str, *, replace: bool = False) -> AbstractContextManager[Path]:
        """Yield a folder to fill; where it is left without a fault, its content is there under the name.

        Args:
            replace: one that is there makes room first; of several writers at once the last prevails.

        Raises:
            FileExistsError: there is one of the name, and it was not to make room.
            RetryableError: somebody has removed what was on its way.
        """

    def reading(self, name: str, part: str = "") -> AbstractContextManager[Path]:
        """Yield the path of a folder of this machine that holds one, or a folder or file within it.

        What was mapped of it stays readable afterwards.

        Raises:
            FileNotFoundError: there is none, or something is missing in it.
        """

    def read(self, name: str, file: str) -> bytes:
        """Return a small file of one.

        Raises:
            FileNotFoundError: there is none, or no such file in it.
        """

    def place_of(self, name: str) -> Place:
        """Return where the files of one lie.

        Raises:
            FileNotFoundError: there is none.
        """

    def below(self, name: str) -> Folders:
        """Return those below another place, which lies in this one."""

    def parts(self) -> list[str]:
        """Return the names of the places that `below` gives, as far as something lies there, in order."""

    def within(self, name: str, part: str) -> Folders:
        """Return the folders in a folder of one, to be read."""

    def drop(self, name: str) -> None:
        """Remove one, which may be gone already; half-way it no longer counts."""

    def drop_all(self) -> None:
        """Remove all that lies below the place."""

    def tidy(self) -> None:
        """Remove what writers that died have left half-written; only for a place that has one writer."""
