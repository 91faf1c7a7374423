"""Rows of a Parquet file, in batches of its columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError
from schemas.event_paths import steps_of
from streaming.files.opening import is_packed


class ParquetRows:
    """The rows of one Parquet file, numbered from 1."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            _check_not_packed(path)
            with _opened(path) as file:
                self.schema: pa.Schema = file.schema_arrow
                self.count = int(file.metadata.num_rows)
                self._leaves = [file.schema.column(place).path for place in range(len(file.schema))]
        except (pa.ArrowInvalid, OSError) as fault:
            raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault

    def batches(self, paths: Sequence[str], size: int) -> Iterator[pa.RecordBatch]:
        """Read the columns that some paths lead into, whole, in batches of at most `size` rows.

        Raises:
            ConfigurationError: it cannot be read.
        """
        try:
            with _opened(self.path) as file:
                yield from file.iter_batches(size, columns=self._within(paths))
        except (pa.ArrowInvalid, OSError) as fault:
            raise ConfigurationError(f"cannot be read: {fault}", where=str(self.path)) from fault

    def place_of(self, row: int) -> str:
        """Return the file, and a row by its number."""
        return f"{self.path}: row {row}"

    def _within(self, paths: Sequence[str]) -> list[str]:
        """A column's leaves: Parquet would take a column's name with a dot for a step."""
        names = self.schema.names
        columns = {path if path in names else str(steps_of(path)[0]) for path in paths}
        return [
            leaf
            for leaf in self._leaves
            if any(leaf == each or leaf.startswith(f"{each}.") for each in columns)
        ]


def _check_not_packed(path: Path) -> None:
    if is_packed(path):
        problem = "Parquet that is packed once more is not read: unpack it, as by gzip -d"
        raise ConfigurationError(problem, where=str(path))


def _opened(path: Path) -> pq.ParquetFile:
    # Spark stores times as INT96, of which nanoseconds would hold those from 1677 to 2262 alone.
    return pq.ParquetFile(path, coerce_int96_timestamp_unit="us")
