"""Labelled history out of files, read as the live path would."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schemas.contract import EventContract
from schemas.counts import count_of
from schemas.documents import clipped
from schemas.errors import ConfigurationError
from schemas.references import ExchangeRates
from streaming.arrays.compilation import Flags, Ints
from streaming.batch.references import References
from streaming.events.decode import decode
from streaming.events.record_table import record_table
from streaming.files.dialect import FOUND, TextOptions
from streaming.files.event_files import EventFile, open_events
from streaming.files.table_rows import Chunk
from streaming.labels.label_parsing import EXPECTED, FRAUD_WORDS, GENUINE_WORDS

NO_LABEL = ("", "null", "none", "nan", "na", "n/a", "\\n")

_FAR = datetime(2200, 1, 1, tzinfo=UTC)
_MEANINGS: Mapping[str, bool | None] = {
    **dict.fromkeys(FRAUD_WORDS, True),
    **dict.fromkeys(GENUINE_WORDS, False),
    **dict.fromkeys(NO_LABEL, None),
}
_UNKNOWN = -1


@dataclass(frozen=True)
class Labelled:
    """Labelled history in event order.

    Attributes:
        transactions: what Scorer.score wants.
        frauds: bool[n], False where there is no label.
        known: bool[n], where there is one.
        kinds: int64[n], the kind of fraud, -1 where none is said, or None when the files do not say.
        rejected: rows that are no event under the contract, and are left out.
        filtered: rows that the contract does not want.
        taken: how many labels were written in which way, by the word in the files and what it was taken for.
    """

    transactions: pa.Table
    frauds: Flags
    known: Flags
    kinds: Ints | None = None
    rejected: int = 0
    filtered: int = 0
    taken: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def unlabelled(self) -> int:
        """How many rows have no label."""
        return int(np.count_nonzero(~self.known))

    def said(self) -> str:
        """Return what was taken for what, for people."""
        words = [f"{word} as {meaning} ({count:,})" for (word, meaning), count in self.taken.items()]
        left = count_of(self.unlabelled, "row")
        return f"labels: {', '.join(words) or 'none'}; left out: {left} without a label"


def read_labelled(
    paths: Sequence[Path],
    contract: EventContract,
    options: TextOptions = FOUND,
    on_say: Callable[[str], None] = lambda _: None,
    rates: ExchangeRates | None = None,
) -> Labelled:
    """Read files as the live path would: to JSON events, decoded under the contract, in event order.

    Args:
        paths: files, folders or Delta tables, as `produce` reads them.
        contract: names the label.
        options: how text is written, where that need not be found.
        on_say: called with how the text of a file was taken, for people.
        rates: what the spec converts amounts by.

    Raises:
        ConfigurationError: the contract names no label, a file cannot be read under it, or a label is no word
            that is known for one.
    """
    if contract.label is None:
        raise ConfigurationError(
            "names no label to evaluate against", where=f"contract {contract.name}", key="label"
        )
    reader = _LabelReader(contract.label.field, contract.label.kind)
    opened = [open_events(path, contract, options=options, beside=reader.columns) for path in paths]
    for line in (line for each in opened for line in each.said):
        on_say(line)
    parts = [part for each in opened for part in _decoded(each, contract, reader, rates)]
    transactions, order = _numbered([part.transactions for part in parts])
    known, frauds = (_joined([getattr(part, name) for part in parts])[order] for name in ("known", "frauds"))
    kinds = _joined([part.kinds for part in parts])[order] if contract.label.kind else None
    rejected, filtered = (sum(getattr(part, name) for part in parts) for name in ("rejected", "filtered"))
    return Labelled(transactions, frauds, known, kinds, rejected, filtered, reader.taken)


def read_transactions(paths: Sequence[Path], contract: EventContract) -> pa.Table:
    """Read files without labels as read_labelled does; returns what Scorer.score wants.

    Raises:
        ConfigurationError: a file cannot be read under the contract.
    """
    parts = [part for path in paths for part in _decoded(open_events(path, contract), contract, None, None)]
    return _numbered([part.transactions for part in parts])[0]


@dataclass(frozen=True)
class _DecodedChunk:
    """What became of one chunk of rows, in the order of the file."""

    transactions: pa.Table
    frauds: Flags
    known: Flags
    kinds: Ints
    rejected: int
    filtered: int


def _decoded(
    events: EventFile,
    contract: EventContract,
    reader: _LabelReader | None,
    rates: ExchangeRates | None,
) -> Iterator[_DecodedChunk]:
    first, references = 0, References(contract, rates=rates)
    for chunk in events.chunks():
        records = record_table(chunk.keys, chunk.values, topic="file", first=first, sent_at=_FAR)
        decoded = decode(records, contract, _FAR, from_file=True)
        rows = decoded.valid["offset"].to_numpy() - first
        first += len(chunk.values)
        labels, kinds = _NOTHING if reader is None else reader.read(chunk)
        truth = labels[rows] if reader else np.zeros(len(rows), np.int8)
        yield _DecodedChunk(
            _wanted(references.join(decoded.valid), contract),
            truth == 1,
            truth != _UNKNOWN,
            kinds[rows] if reader else np.zeros(len(rows), np.int64),
            decoded.rejected.num_rows,
            decoded.filtered.num_rows,
        )


class _LabelReader:
    """Reads the labels of chunks, and counts which words were taken for which."""

    def __init__(self, label: str, kind: str | None) -> None:
        self._label, self._kind = label, kind
        self.columns = [label, *([kind] if kind else [])]
        self._counts: Counter[tuple[str, str]] = Counter()

    @property
    def taken(self) -> Mapping[tuple[str, str], int]:
        """See Labelled."""
        return dict(self._counts)

    def read(self, chunk: Chunk) -> tuple[np.ndarray[Any, np.dtype[np.int8]], Ints]:
        """Return 1 for fraud, 0 for genuine and -1 for no label of each row, and the kinds."""
        meanings = {
            value: _meaning(value) for value in dict.fromkeys(map(_hashable, chunk.beside[self._label]))
        }
        known = [meanings[_hashable(value)] for value in chunk.beside[self._label]]
        if "" in known:
            row = known.index("")
            shown = clipped(str(chunk.beside[self._label][row]))
            problem = f"column {self._label!r} is {shown!r}; expected {EXPECTED['is_fraud']}"
            raise ConfigurationError(problem, where=chunk.places(row))
        self._count(chunk.beside[self._label], meanings)
        codes = np.array([_UNKNOWN if each is None else int(bool(each)) for each in known], np.int8)
        return codes, self._kinds(chunk)

    def _count(self, values: Sequence[Any], meanings: Mapping[Any, bool | str | None]) -> None:
        for value, count in Counter(map(_hashable, values)).items():
            meaning = meanings[value]
            if meaning is not None:
                self._counts[str(value).strip(), "fraud" if meaning else "genuine"] += count

    def _kinds(self, chunk: Chunk) -> Ints:
        if self._kind is None:
            return np.zeros(len(chunk.values), np.int64)
        values = chunk.beside[self._kind]
        numbers = [_whole(value) for value in values]
        if None in numbers:
            row = numbers.index(None)
            problem = f"column {self._kind!r} is {clipped(str(values[row]))!r}; expected a whole number"
            raise ConfigurationError(problem, where=chunk.places(row))
        return np.array(numbers, np.int64)


def _hashable(value: Any) -> Any:
    # Of equal values 1, 1.0 and True each is a word of its own.
    return (
        str(value).lower()
        if isinstance(value, bool | float)
        else repr(value)
        if isinstance(value, dict | list)
        else value
    )


def _meaning(value: Any) -> bool | str | None:
    """Return what a label means, None for none, and empty text for what is no label."""
    return None if value is None else _MEANINGS.get(str(value).strip().lower(), "")


def _whole(value: Any) -> int | None:
    if value is None or str(value).strip().lower() in NO_LABEL:
        return _UNKNOWN
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _wanted(rows: pa.Table, contract: EventContract) -> pa.Table:
    own = ["event_time", "amount", "currency", *contract.labelled_columns, *contract.extra]
    return rows.select([*own, *contract.reference_columns])


def _numbered(tables: Sequence[pa.Table]) -> tuple[pa.Table, Ints]:
    if not tables:
        raise ConfigurationError("the files hold no rows")
    table = pa.concat_tables(tables)
    order = np.argsort(table["event_time"].cast(pa.int64()).to_numpy(), kind="stable")
    ranks = pa.array(np.arange(len(order)))
    return table.take(pa.array(order)).append_column("sequence", ranks), order


def _joined(parts: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


_NOTHING = (np.zeros(0, np.int8), np.zeros(0, np.int64))
