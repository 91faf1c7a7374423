"""Rows of a CSV file, in batches of its cells."""

from __future__ import annotations

import codecs
import io
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from schemas.counts import count_of
from schemas.errors import ConfigurationError
from streaming.arrays.compilation import Ints
from streaming.files.dialect import Dialect
from streaming.files.opening import open_bytes

_BLOCK_BYTES = 8 << 20
_ARROW_CODEC = {"utf-8-sig": "utf-8"}
_TORN = re.compile(r"Expected (\d+) columns, got (\d+)")


class CsvRows:
    """The rows of one CSV file, numbered from 1 without the heading; blank lines are no rows."""

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self.path, self.dialect = path, dialect
        self._passing = _Passing(keep_torn=False)

    @property
    def torn(self) -> list[int]:
        """Numbers of the rows read so far that were kept apart; see `batches`."""
        return [int(each) for each in self._passing.rows(np.array(self._passing.torn, np.int64))]

    def batches(self, wanted: Sequence[str], *, keep_torn: bool = False) -> Iterator[pa.RecordBatch]:
        """Read some columns, as binary in UTF-8 with empty cells as null, after their rows' numbers, `row`.

        Args:
            wanted: names of the columns, as Header.unique has them.
            keep_torn: keep rows of another length than the heading's apart, instead of refusing them.

        Raises:
            ConfigurationError: it cannot be read; file and line are named.
        """
        self._passing = passing = _Passing(keep_torn=keep_torn, last=self._mark())
        done = 0
        try:
            for batch in self._opened(wanted, passing):
                places = passing.places(done, batch.num_rows)
                done = int(places[-1]) if len(places) else done
                columns = [pa.array(passing.rows(places)), *(self._cells(batch[name]) for name in wanted)]
                yield pa.RecordBatch.from_arrays(columns, ["row", *wanted])
            self._check_ended(passing)
        except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as fault:
            raise self._placed(str(fault)) from fault

    def place_of(self, row: int) -> str:
        """Return file and line of a row by its number."""
        line = next((line for line, _ in islice(self.dialect.rows(self.path), row - 1, None)), None)
        return str(self.path) if line is None else f"{self.path}:{line}"

    def _opened(self, wanted: Sequence[str], passing: _Passing) -> Iterator[pa.RecordBatch]:
        if not self.dialect.header.columns:
            return
        with open_bytes(self.path) as opened:
            file = _Ended(opened, self._last_row(passing.last))
            convert = pa_csv.ConvertOptions(
                include_columns=list(wanted),
                column_types=dict.fromkeys(wanted, pa.binary()),
                null_values=[""],
                strings_can_be_null=True,
            )
            yield from pa_csv.open_csv(
                file,
                read_options=self._reading(),
                parse_options=self._parsing(passing),
                convert_options=convert,
            )

    def _reading(self) -> pa_csv.ReadOptions:
        dialect = self.dialect
        return pa_csv.ReadOptions(
            use_threads=False,  # rows are numbered only without
            block_size=_BLOCK_BYTES,
            skip_rows=dialect.before,
            skip_rows_after_names=1,
            column_names=list(dialect.header.unique),
            encoding=self._codec(),
        )

    def _codec(self) -> str:
        # Arrow passes on rows alone of which all is text; by Latin-1 any byte is a character.
        encoding = self.dialect.encoding
        return "latin-1" if encoding.broken else _ARROW_CODEC.get(encoding.codec, encoding.codec)

    def _cells(self, cells: pa.Array) -> pa.Array:
        if not self.dialect.encoding.broken:
            return cells
        bare = [None if cell is None else cell.decode().encode("latin-1") for cell in cells.to_pylist()]
        return pa.array(bare, pa.binary())

    def _parsing(self, passing: _Passing) -> pa_csv.ParseOptions:
        dialect = self.dialect
        return pa_csv.ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=dialect.quoting.quote,
            escape_char=dialect.quoting.escape or False,
            double_quote=dialect.quoting.escape is None,
            newlines_in_values=True,
            invalid_row_handler=passing.judge,
        )

    def _mark(self) -> str:
        """Return a row of another length than the heading's, which is put after the last one."""
        mark = "\x1f" if self.dialect.delimiter == "\x1e" else "\x1e"
        return mark if len(self.dialect.header.columns) > 1 else f"{mark}{self.dialect.delimiter}{mark}"

    def _last_row(self, mark: str) -> bytes:
        codec = self.dialect.encoding.codec
        if codec in ("utf-16", "utf-32"):
            with open_bytes(self.path) as file:
                codec += "-le" if file.read(2) == codecs.BOM_UTF16_LE else "-be"
        return f"\n{mark}".encode(_ARROW_CODEC.get(codec, codec))

    def _check_ended(self, passing: _Passing) -> None:
        """Refuse a quote that nothing closes: Arrow takes all rows after it for one cell."""
        if passing.ended or not self.dialect.header.columns:
            return
        line = self.dialect.never_closed(self.path)
        problem = "a quote is opened in this row and never closed, so what follows is no row: close it"
        raise ConfigurationError(problem, where=str(self.path) if line is None else f"{self.path}:{line}")

    def _placed(self, problem: str) -> ConfigurationError:
        if not _TORN.search(problem):
            return ConfigurationError(f"cannot be read: {problem}", where=str(self.path))
        cells = len(self.dialect.header.columns)
        for line, row in self.dialect.rows(self.path):
            if len(row) != cells:
                problem = f"{count_of(len(row), 'cell')} where the heading has {cells}"
                return ConfigurationError(problem, where=f"{self.path}:{line}")
        return ConfigurationError(f"cannot be read: {problem}", where=str(self.path))


class _Ended(io.RawIOBase):
    """A stream with something put after its end."""

    def __init__(self, stream: BinaryIO, end: bytes) -> None:
        self._stream, self._end = stream, end

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        # In one piece with what it ends: a row may lie in two blocks and in no more.
        piece = self._stream.read(size)
        room = len(self._end) if size < 0 else size - len(piece)
        end, self._end = self._end[:room], self._end[room:]
        return piece + end


@dataclass
class _Passing:
    """What is passed over, by its place among the lines that are not empty: torn rows, lines of blanks.

    The row `last`, which is put after all others, says that the table has `ended`.
    """

    keep_torn: bool
    last: str = ""
    ended: bool = False
    torn: list[int] = field(default_factory=list)
    blank: list[int] = field(default_factory=list)

    def judge(self, row: pa_csv.InvalidRow) -> str:
        place = row.number - 1  # the heading is counted as a row there
        if row.text == self.last:
            self.ended = True
        elif not row.text.strip():
            self.blank.append(place)
        elif self.keep_torn:
            self.torn.append(place)
        else:
            return "error"
        return "skip"

    def places(self, done: int, rows: int) -> Ints:
        """Return the places of the next rows that were not passed over, after place `done`."""
        over = [each for found in (self.torn, self.blank) for each in found[bisect_right(found, done) :]]
        following = np.arange(done + 1, done + 1 + rows + len(over))
        return following[~np.isin(following, over)][:rows]

    def rows(self, places: Ints) -> Ints:
        """Return the numbers of the rows at some places."""
        return places - np.searchsorted(np.array(self.blank, np.int64), places)
