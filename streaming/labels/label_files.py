"""Labels out of files: Parquet, CSV or JSON lines, with columns of any name."""

from __future__ import annotations

import csv
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError, nearest
from schemas.label import GIVEN, LABEL_REJECTS
from streaming.kafka.sending import Report
from streaming.labels.book import LabelBook, Recorded, rejects_table
from streaming.labels.label_parsing import UNKNOWN_DECIDER, json_columns, parse_labels

_BATCH_ROWS = 250_000

Said = tuple[pl.DataFrame, pl.DataFrame]


@dataclass(frozen=True)
class LabelColumns:
    """Which column of a file says what.

    A column that is named must be there. Those left out are taken when the file has them under the label's
    own name; `fraud_type` serves as a kind too.
    """

    transaction_id: str = "transaction_id"
    is_fraud: str = "is_fraud"
    decided_at: str | None = None
    kind: str | None = None
    decided_by: str | None = None

    def named(self) -> dict[str, str]:
        """Return the columns that are named, by the label's field."""
        return {name: column for name, column in vars(self).items() if column is not None}

    def within(self, path: Path, present: Collection[str]) -> dict[str, str]:
        """Return the file's column by the label's field.

        Raises:
            ConfigurationError: a column is absent; the nearest one is suggested.
        """
        named = self.named()
        for column in named.values():
            if column not in present:
                raise ConfigurationError(f"no column {column!r}; {nearest(column, present)}", where=str(path))
        for name, usual in _USUAL:
            if usual in present:
                named.setdefault(name, usual)
        return named


_USUAL = (
    ("decided_at", "decided_at"),
    ("kind", "kind"),
    ("kind", "fraud_type"),
    ("decided_by", "decided_by"),
)


def import_labels(
    path: Path,
    book: LabelBook,
    *,
    columns: LabelColumns = LabelColumns(),
    by: str = UNKNOWN_DECIDER,
    on_progress: Report | None = None,
) -> Recorded:
    """Record a file's labels in one commit.

    Rows are counted from 1, without a CSV file's heading; rows of JSON are lines. The columns that are read
    are held in memory as a whole.

    Args:
        path: a .parquet, .csv, .jsonl or .ndjson file.
        book: where they go.
        columns: which column says what.
        by: who decided where no column says.
        on_progress: called with the rows read so far.

    Returns:
        What became of each row; stored + repeated + rejected is the number of rows.

    Raises:
        ConfigurationError: no such file, an unknown ending, a missing column, a column of another type.
    """
    labels, rejects = [GIVEN.empty_table()], [LABEL_REJECTS.empty_table()]
    rows = 0
    for said, unreadable in _said(path, columns):
        try:
            parsed, unparsed = parse_labels(said, by)
        except ConfigurationError as fault:
            raise fault.within(str(path)) from None
        labels.append(parsed)
        rejects += [unparsed, rejects_table(unreadable)]
        rows += said.height + unreadable.height
        if on_progress is not None:
            on_progress(rows)
    recorded = book.record(pa.concat_tables(labels), source=path.name)
    return recorded.with_rejects(pa.concat_tables(rejects))


def _said(path: Path, columns: LabelColumns) -> Iterator[Said]:
    if not path.is_file():
        raise ConfigurationError("no such file", where=str(path))
    if path.suffix not in _READERS:
        known = ", ".join(_READERS)
        raise ConfigurationError(f"unknown ending {path.suffix!r}; expected one of: {known}", where=str(path))
    try:
        yield from _READERS[path.suffix](path, columns)
    except (pa.ArrowInvalid, UnicodeDecodeError) as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault


def _parquet(path: Path, columns: LabelColumns) -> Iterator[Said]:
    with pq.ParquetFile(path) as file:
        fields = columns.within(path, file.schema_arrow.names)
        rows = 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=sorted(set(fields.values()))):
            yield _picked(batch, fields, pl.int_range(rows + 1, rows + 1 + batch.num_rows, eager=True)), _NONE
            rows += batch.num_rows


def _csv(path: Path, columns: LabelColumns) -> Iterator[Said]:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as lines:
        fields = columns.within(path, next(csv.reader(lines), []))
    included = sorted(set(fields.values()))
    torn: list[int] = []

    def pass_over(row: pa_csv.InvalidRow) -> str:
        torn.append(row.number - 1)  # the heading is counted as a row there
        return "skip"

    # Cells are read as bytes, so that one of another encoding spoils its row and not the file; rows are only
    # numbered without threads.
    table = pa_csv.read_csv(
        path,
        read_options=pa_csv.ReadOptions(use_threads=False),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=pass_over),
        convert_options=pa_csv.ConvertOptions(
            include_columns=included, column_types=dict.fromkeys(included, pa.binary())
        ),
    )
    numbers = pl.int_range(1, table.num_rows + len(torn) + 1, eager=True)
    rejects = pl.DataFrame({"source_position": torn}, {"source_position": pl.Int64})
    reason = pl.lit("not as many cells as the heading").alias("reason")
    yield _picked(table, fields, numbers.filter(~numbers.is_in(torn))), rejects.with_columns(reason)


def _json_lines(path: Path, columns: LabelColumns) -> Iterator[Said]:
    with path.open("rb") as file:
        names = _names(file)
        fields = columns.within(path, names or columns.named().values())
        file.seek(0)
        lines = ((number, line) for number, line in enumerate(file, 1) if not line.isspace())
        while batch := list(islice(lines, _BATCH_ROWS)):
            yield json_columns([line for _, line in batch], [number for number, _ in batch], fields)


def _names(lines: Iterable[bytes]) -> list[str]:
    """Return every field name in a file of JSON lines: any line may leave some out."""
    names: dict[str, None] = {}
    for line in lines:
        with suppress(orjson.JSONDecodeError):
            label = orjson.loads(line)
            names.update(dict.fromkeys(label if isinstance(label, dict) else ()))
    return list(names)


def known_rows(path: Path) -> int | None:
    """Return how many rows a file holds, None where only reading it would tell."""
    if path.suffix != ".parquet" or not path.is_file():
        return None
    with suppress(pa.ArrowInvalid):
        return int(pq.read_metadata(path).num_rows)
    return None


def _picked(rows: pa.RecordBatch | pa.Table, fields: dict[str, str], numbers: pl.Series) -> pl.DataFrame:
    columns = {name: pl.Series(name, rows[column]) for name, column in fields.items()}
    return pl.DataFrame({"source_position": numbers, **columns})


_NONE = pl.DataFrame(LABEL_REJECTS.empty_table())
_READERS: dict[str, Callable[[Path, LabelColumns], Iterator[Said]]] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
}
