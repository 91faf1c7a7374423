"""History to load: a file of events, or a Delta table of them, cut into the same chunks at every read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from streaming.batch.queries import BACKFILL
from streaming.files.dialect import FOUND, TextOptions
from streaming.files.event_files import Keyed, open_events
from streaming.files.opening import source_place


@dataclass(frozen=True)
class HistorySource:
    """What is loaded.

    Attributes:
        name: path as it was given.
        digest: tells the content of a file, or a Delta table whatever its version, hex.
        version: the version of a Delta table that is read, None for a file.
        chunks: keys and JSON events, in order, the same at every call.
        said: how its text was taken, for people.
    """

    name: str
    digest: str
    version: int | None
    chunks: Callable[[], Iterator[Keyed]]
    said: tuple[str, ...] = ()

    @property
    def query_id(self) -> str:
        """Under which its batches are stored: another one for another source, or another version."""
        version = "" if self.version is None else f"-{self.version}"
        return f"{BACKFILL}{self.digest[:16]}{version}"

    def count(self) -> int:
        """Read it once and count the rows.

        Raises:
            ConfigurationError: something in it cannot be read, or it holds nothing.
        """
        rows = sum(len(values) for _, values in self.chunks())
        if rows == 0:
            raise ConfigurationError("it holds no rows", where=self.name)
        return rows


def open_history(
    path: Path, contract: EventContract, version: int | None = None, options: TextOptions = FOUND
) -> HistorySource:
    """Open a file or a folder as `produce` reads it, or a Delta table.

    A Delta table's rows come by `sequence` where it has that column, else by event time; then all of them are
    held in memory.

    Args:
        version: of a Delta table, by default the newest.
        options: how text is written, where that need not be found.

    Raises:
        ConfigurationError: there is no such file or table, or a column is missing.
    """
    events = open_events(path, contract, options=options, version=version)
    return HistorySource(str(source_place(path)), events.digest(), events.version, events.keyed, events.said)
