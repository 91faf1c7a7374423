"""Labels out of files, with columns of any name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError, nearest
from schemas.event_paths import look_up, steps_of
from schemas.label import GIVEN, LABEL_REJECTS
from streaming.files.csv_rows import CsvRows
from streaming.files.delta_table import DeltaTableRows
from streaming.files.dialect import FOUND, TextOptions, dialect_of
from streaming.files.json_records import json_records
from streaming.files.opening import DataFile, Kind, data_files, is_delta
from streaming.files.parquet_rows import ParquetRows
from streaming.files.record_events import leaf_names
from streaming.files.table_rows import leads_somewhere, value_at
from streaming.kafka.sending import Report
from streaming.labels.book import LabelBook
from streaming.labels.label_parsing import UNKNOWN_DECIDER, json_columns, parse_labels
from streaming.labels.recorded import Recorded, rejects_table
from streaming.store.place import Place

_BATCH_ROWS = 250_000

Said = tuple[pl.DataFrame, pl.DataFrame]


@dataclass(frozen=True)
class LabelColumns:
    """Which column of a file says what, or which path leads to it in nested ones.

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

    def within(
        self, path: Path | Place, present: Collection[str], leads: Callable[[str], bool] | None = None
    ) -> dict[str, str]:
        """Return the file's column by the label's field.

        Args:
            path: of the file.
            present: names of its columns.
            leads: whether a path that is none of them leads to values in one.

        Raises:
            ConfigurationError: a column is absent; the nearest one is suggested.
        """
        named = self.named()
        for column in named.values():
            if column not in present and not (leads and leads(column)):
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
    options: TextOptions = FOUND,
    on_say: Callable[[str], None] = lambda _: None,
    on_progress: Report | None = None,
) -> Recorded:
    """Record a file's labels in one commit.

    Rows are counted from 1, without headings and blank lines, through all files of a folder; rows of JSON
    lines are lines. The columns that are read
    are held in memory as a whole.

    Args:
        path: a file, folder or Delta table, as `produce` reads them.
        book: where they go.
        columns: which column says what.
        by: who decided where no column says.
        options: how text is written, where that need not be found.
        on_say: called with how the text of a file was taken, for people.
        on_progress: called with the rows read so far.

    Returns:
        What became of each row; stored + repeated + rejected is the number of rows.

    Raises:
        ConfigurationError: no such file, an unknown ending, a missing column, a column of another type.
    """
    labels, rejects = [GIVEN.empty_table()], [LABEL_REJECTS.empty_table()]
    rows = 0
    for said, unreadable in _readable(_said(path, columns, options, on_say), path):
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


def _said(
    path: Path, columns: LabelColumns, options: TextOptions, on_say: Callable[[str], None]
) -> Iterator[Said]:
    files = [] if is_delta(path) else data_files(path)
    for line in () if files and files[0].kind == "csv" else options.idle(path):
        on_say(line)
    if not files:
        yield from _table(DeltaTableRows(path), columns)
    done = 0
    for file in files:
        last = 0
        for said, unreadable in _READERS[file.kind](file, columns, options, on_say):
            for each in (said, unreadable):
                last = max(last, *each["source_position"].tail(1).to_list(), 0)
            yield _moved(said, done), _moved(unreadable, done)
        done += last


def _readable(said: Iterator[Said], path: Path) -> Iterator[Said]:
    try:
        yield from said
    except (pa.ArrowInvalid, OSError) as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault


def _moved(rows: pl.DataFrame, done: int) -> pl.DataFrame:
    return rows.with_columns(pl.col("source_position") + done) if done else rows


def _parquet(
    file: DataFile, columns: LabelColumns, _: TextOptions, __: Callable[[str], None]
) -> Iterator[Said]:
    source = ParquetRows(file.path)
    names = [*source.schema.names, *file.partition]
    fields = columns.within(file.path, names, partial(leads_somewhere, source.schema))
    wanted = sorted(set(fields.values()))
    yield from _numbered(source.batches(wanted, _BATCH_ROWS), fields, file)


def _table(table: DeltaTableRows, columns: LabelColumns) -> Iterator[Said]:
    fields = columns.within(table.place, table.schema.names, partial(leads_somewhere, table.schema))
    yield from _numbered(table.in_order(("decided_at",), _BATCH_ROWS, fields.values()), fields)


def _numbered(
    batches: Iterable[pa.RecordBatch], fields: dict[str, str], file: DataFile | None = None
) -> Iterator[Said]:
    rows = 0
    for batch in batches:
        rows_here = batch if file is None else file.completed(batch)
        yield _picked(rows_here, fields, pl.int_range(rows + 1, rows + 1 + batch.num_rows, eager=True)), _NONE
        rows += batch.num_rows


def _csv(
    file: DataFile, columns: LabelColumns, options: TextOptions, on_say: Callable[[str], None]
) -> Iterator[Said]:
    named = [name for name in columns.named().values() if name not in file.partition]
    dialect = dialect_of(file.path, options, named)
    on_say(f"{file.path}: {dialect.said()}")
    dialect.header.check(named, str(file.path))
    fields = columns.within(file.path, [*dialect.header.unique, *file.partition])
    wanted = sorted(set(fields.values()) - file.partition.keys())
    source, seen = CsvRows(file.path, dialect), 0
    for batch in source.batches(wanted, keep_torn=True):
        torn, seen = source.torn[seen:], len(source.torn)
        yield _picked(file.completed(batch), fields, pl.Series(batch["row"])), _torn(torn)
    empty = pl.DataFrame(schema={"source_position": pl.Int64, **dict.fromkeys(fields, pl.Binary)})
    yield empty, _torn(source.torn[seen:])


def _torn(rows: Sequence[int]) -> pl.DataFrame:
    reason = pl.lit("not as many cells as the heading").alias("reason")
    return pl.DataFrame({"source_position": rows}, {"source_position": pl.Int64}).with_columns(reason)


def _json(file: DataFile, columns: LabelColumns, _: TextOptions, __: Callable[[str], None]) -> Iterator[Said]:
    names = _names(file.path, columns.named().values())
    fields = columns.within(file.path, names or columns.named().values())
    records = json_records(file.path)
    while batch := list(islice(records, _BATCH_ROWS)):
        yield json_columns([each.value for each in batch], [each.number for each in batch], fields)


def _names(path: Path, wanted: Collection[str]) -> list[str]:
    """Return every field name in a file of JSON, and of some paths those that lead to values.

    Any record may leave some out.
    """
    names: dict[str, None] = {}
    paths = [(each, steps_of(each), _ABSENT) for each in wanted]
    for record in json_records(path):
        with suppress(orjson.JSONDecodeError):
            parsed = orjson.loads(record.value)
            label = parsed if isinstance(parsed, dict) else {}
            names.update(dict.fromkeys([*label, *leaf_names(label)]))
            names.update(dict.fromkeys(each[0] for each in paths if look_up(label, *each) is not _ABSENT))
    return list(names)


def known_rows(path: Path) -> int | None:
    """Return how many rows a file holds, None where only reading it would tell."""
    if path.suffix != ".parquet" or not path.is_file():
        return None
    with suppress(pa.ArrowInvalid):
        return int(pq.read_metadata(path).num_rows)
    return None


def _picked(rows: pa.RecordBatch | pa.Table, fields: dict[str, str], numbers: pl.Series) -> pl.DataFrame:
    columns = {name: pl.Series(name, value_at(rows, column)) for name, column in fields.items()}
    return pl.DataFrame({"source_position": numbers, **columns})


_ABSENT = object()
_NONE = pl.DataFrame(LABEL_REJECTS.empty_table())
_READERS: dict[
    Kind, Callable[[DataFile, LabelColumns, TextOptions, Callable[[str], None]], Iterator[Said]]
] = {"parquet": _parquet, "csv": _csv, "json": _json}
