"""History to load: a file of events, or a Delta table of them, cut into the same chunks at every read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from schemas.contract import EventContract
from schemas.errors import ConfigurationError
from streaming.batch.queries import BACKFILL
from streaming.delta.stored import StoredTable, open_for_reading, open_version
from streaming.events.file_events import Keyed, file_events, table_events

_CHUNK_ROWS = 50_000
_ORDER = "sequence"


@dataclass(frozen=True)
class HistorySource:
    """What is loaded.

    Attributes:
        name: path as it was given.
        digest: tells the content of a file, or a Delta table whatever its version, hex.
        version: the version of a Delta table that is read, None for a file.
        chunks: keys and JSON events, in order, the same at every call.
    """

    name: str
    digest: str
    version: int | None
    chunks: Callable[[], Iterator[Keyed]]

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


def open_history(path: Path, contract: EventContract, version: int | None = None) -> HistorySource:
    """Open a file as `produce` reads it, or a Delta table.

    A Delta table's rows come by `sequence` where it has that column, else by event time; then all of them are
    held in memory.

    Args:
        version: of a Delta table, by default the newest.

    Raises:
        ConfigurationError: there is no such file or table, or a column is missing.
    """
    if path.is_dir():
        return _table(path, contract, version)
    file_events(path, contract)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return HistorySource(str(path), digest, None, lambda: file_events(path, contract))


def _table(path: Path, contract: EventContract, version: int | None) -> HistorySource:
    newest = open_for_reading(path)
    table = None if newest is None else open_version(path, version)
    if newest is None or table is None:
        problem = "no Delta table" if newest is None else f"version {version} of it cannot be read any more"
        raise ConfigurationError(problem, where=str(path))
    table_events(path, table.schema, iter(()), contract)
    digest = hashlib.sha256(str(newest.metadata().id).encode()).hexdigest()
    return HistorySource(
        str(path),
        digest,
        table.version,
        lambda: table_events(path, table.schema, _ordered(table, contract), contract),
    )


def _ordered(table: StoredTable, contract: EventContract) -> Iterator[pa.RecordBatch]:
    rows = table.count()
    if _numbered(table, rows):
        for first in range(0, rows, _CHUNK_ROWS):
            yield from _batches(table.read(_ORDER, first, min(first + _CHUNK_ROWS, rows)))
        return
    names = table.schema.names
    known = [name for name in (_ORDER, contract.event_time.field, "event_time") if name in names]
    whole = table.read_all()
    yield from _batches(whole.sort_by(known[0]) if known else whole)


def _numbered(table: StoredTable, rows: int) -> bool:
    """Tell whether rows are numbered without a gap, so that they can be read piece by piece."""
    if _ORDER not in table.schema.names or not pa.types.is_integer(table.schema.field(_ORDER).type):
        return False
    return table.maximum(_ORDER) == rows - 1


def _batches(rows: pa.Table) -> list[pa.RecordBatch]:
    batches: list[pa.RecordBatch] = rows.combine_chunks().to_batches(max_chunksize=_CHUNK_ROWS)
    return batches
