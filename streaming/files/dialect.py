"""How a file separates, quotes and writes its values: named by options, or found in its first rows."""

from __future__ import annotations

import _csv
import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from schemas.errors import ConfigurationError
from streaming.files.encodings import Encoding, encoding_of
from streaming.files.headers import Header
from streaming.files.opening import open_bytes

DecimalSign = Literal[".", ","]

_SAMPLE_BYTES = 1 << 18
_SAMPLE_ROWS = 500
csv.field_size_limit((1 << 31) - 1)  # Arrow has read cells that Python's reader would refuse
_USUAL = (",", ";", "\t", "|")
_NEVER = frozenset("\0\r\n\"'_-./\\()[]{}@?!%&*+<>=")
_NAMES = {"\t": "tab", " ": "blank"}
_QUOTED = re.compile(r"""(?s)^(["']).*\1$|\\["']""")
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?")
_POINT = re.compile(
    r"[+-]?(\d+\.(\d{1,2}|\d{4,})|\d*\.\d+[eE].*|0\.\d+|\d{4,}\.\d+|\d{1,3}(,\d{3})+\.\d*|\d{1,3}(,\d{3}){2,})"
)
_COMMA = re.compile(
    r"[+-]?(\d+,(\d{1,2}|\d{4,})|0,\d+|\d{4,},\d+|\d{1,3}([. '\u00a0\u202f]\d{3})+,\d*|\d{1,3}(\.\d{3}){2,})"
)
_EITHER = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


@dataclass(frozen=True)
class TextOptions:
    """What the user says of a text file; what is left out is found.

    Attributes:
        encoding: a codec by its usual name.
        delimiter: one character between two cells, or `tab`.
        decimal: the decimal sign of numbers.
    """

    encoding: str | None = None
    delimiter: str | None = None
    decimal: DecimalSign | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.encoding is not None:
            try:
                "".encode(self.encoding)
            except (LookupError, UnicodeError):
                raise ConfigurationError(
                    f"no encoding {self.encoding!r}; expected a name such as utf-8 or cp1252",
                    where="--encoding",
                ) from None
        if self.decimal not in (None, ".", ","):
            raise ConfigurationError("expected . or ,", where="--decimal")
        if self.delimiter is not None and not _is_one_byte(self.character):
            raise ConfigurationError("expected one character, or tab", where="--delimiter")

    def idle(self, path: Path) -> tuple[str, ...]:
        """Return what is to be said where a file is not CSV: nothing unless something was named."""
        if self == TextOptions():
            return ()
        return (f"{path}: is no CSV, so --encoding, --delimiter and --decimal change nothing",)

    @property
    def character(self) -> str | None:
        """The delimiter itself."""
        return "\t" if self.delimiter in ("tab", "\\t") else self.delimiter


def _is_one_byte(character: str | None) -> bool:
    return character is not None and len(character) == 1 and character.isascii() and character not in "\0\r\n"


FOUND = TextOptions()


class Quoting(NamedTuple):
    """What surrounds a cell that holds a delimiter, and what goes before a quote within it."""

    quote: str = '"'
    escape: str | None = None


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written.

    Attributes:
        encoding: of its text.
        delimiter: the character between two cells.
        quoting: see Quoting.
        decimal: decimal sign of numbers; None where no number has one.
        before: lines that stand before the heading.
        header: its columns.
    """

    encoding: Encoding
    delimiter: str
    quoting: Quoting
    decimal: DecimalSign | None
    before: int
    header: Header

    def said(self) -> str:
        """Return what was found, for people."""
        delimiter = _NAMES.get(self.delimiter, repr(self.delimiter))
        quote = "" if self.quoting.quote == '"' else f", quote {self.quoting.quote}"
        sign = "comma" if self.decimal == "," else "point"
        return f"read as {self.encoding.codec}, delimiter {delimiter}{quote}, decimal {sign}"

    def rows(self, path: Path) -> Iterator[tuple[int, list[str]]]:
        """Read the rows below the heading, each with the line that it begins in; blank ones are left out."""
        with open_bytes(path) as file:
            text = io.TextIOWrapper(file, self.encoding.codec, errors="replace", newline="")
            for _ in range(self.before):
                text.readline()
            reader = _reader(text, self.delimiter, self.quoting)
            line, heading = 0, True
            for cells in reader:
                if _is_filled(cells):
                    if not heading:
                        yield line + self.before + 1, cells
                    heading = False
                line = reader.line_num

    def never_closed(self, path: Path) -> int | None:
        """Return the line of the row in which a quote is opened that nothing closes, None without one."""
        with open_bytes(path) as file:
            text = io.TextIOWrapper(file, self.encoding.codec, errors="replace", newline="")
            for _ in range(self.before):
                text.readline()
            reader, line = _reader(text, self.delimiter, self.quoting, strict=True), 0
            while True:
                try:
                    next(reader)
                except StopIteration:
                    return None
                except csv.Error as fault:  # others say that quotes are within a cell, which does no harm
                    if "end of data" in str(fault):
                        return line + self.before + 1
                line = reader.line_num


def dialect_of(
    path: Path, given: TextOptions, wanted: Sequence[str] = (), numbers: Sequence[str] = ()
) -> Dialect:
    """Find out how a CSV file is written.

    Args:
        path: the file.
        given: what need not be found.
        wanted: columns that are expected; a delimiter that separates them is the right one.
        numbers: columns of numbers, which tell the decimal sign; by default all that look like numbers.

    Raises:
        ConfigurationError: it cannot be read, or its numbers could mean two things and no option says which.
    """
    try:
        encoding = encoding_of(path, given.encoding)
        text = _sample(path, encoding.codec)
    except OSError as fault:
        raise ConfigurationError(f"cannot be read: {fault}", where=str(path)) from fault
    before, text, separator = _without_preamble(text)
    best = _best(text, given.character or separator, wanted)
    header = Header.of(best.rows[0] if best.rows else ())
    decimal = given.decimal or _decimal(path, header, best.rows[1:], numbers)
    return Dialect(encoding, best.delimiter, best.quoting, decimal, before, header)


class _Reading(NamedTuple):
    """The sample under one delimiter and quoting."""

    delimiter: str
    quoting: Quoting
    rows: list[list[str]]

    def merit(self, wanted: Sequence[str]) -> tuple[float, ...]:
        header = self.rows[0] if self.rows else []
        usual = self.delimiter in _USUAL
        found = len(set(wanted) & {*Header.of(header).unique, *(each.strip() for each in header)})
        regular = sum(len(row) == len(header) for row in self.rows) / max(len(self.rows), 1)
        return found, len(header) > 1, round(regular, 1), -self._quoted, usual, regular, len(header)

    @property
    def _quoted(self) -> float:
        """The share of cells that still have quotes around them, or an escape before one."""
        cells = [each for row in self.rows for each in row]
        return round(sum(_QUOTED.search(each) is not None for each in cells) / max(len(cells), 1), 2)


def _sample(path: Path, encoding: str) -> str:
    with open_bytes(path) as file:
        raw = file.read(_SAMPLE_BYTES)
    # A character, and a row, may be cut at the end.
    text = raw.decode(encoding, errors="replace").removeprefix("\ufeff")
    return text if len(raw) < _SAMPLE_BYTES else text[: text.rfind("\n") + 1] or text


def _without_preamble(text: str) -> tuple[int, str, str | None]:
    """Pass over blank lines and the line by which spreadsheets name the delimiter."""
    before = 0
    separator = None
    while text:
        line = text[: text.find("\n") + 1 or len(text)]
        named = _SEPARATOR_LINE.fullmatch(line) if separator is None else None
        if line.strip() and named is None:
            break
        separator = separator or (named[1] if named else None)
        before, text = before + 1, text[len(line) :]
    return before, text, separator


def _best(text: str, delimiter: str | None, wanted: Sequence[str]) -> _Reading:
    delimiters = (delimiter,) if delimiter else (*_USUAL, *_unusual(text))
    quotings = [Quoting()]
    quotings += [Quoting("'")] if "'" in text else []
    quotings += [Quoting('"', "\\")] if '\\"' in text else []
    readings = [_read(text, each, quoting) for each in delimiters for quoting in quotings]
    return max(readings, key=lambda reading: reading.merit(wanted))


def _unusual(text: str) -> list[str]:
    head = text.partition("\n")[0].rstrip("\r")
    return sorted(
        {each for each in head if each.isascii() and not each.isalnum() and each not in _NEVER | {*_USUAL}}
    )


def _read(text: str, delimiter: str, quoting: Quoting) -> _Reading:
    reader = _filled(_reader(io.StringIO(text, newline=""), delimiter, quoting))
    rows: list[list[str]] = []
    try:
        for row in reader:
            rows.append(row)
            if len(rows) == _SAMPLE_ROWS:
                break
    except csv.Error:  # a cell longer than any should be
        rows = rows[:1]
    return _Reading(delimiter, quoting, rows)


def _reader(lines: Iterable[str], delimiter: str, quoting: Quoting, *, strict: bool = False) -> _csv.Reader:
    return csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=quoting.quote,
        escapechar=quoting.escape,
        doublequote=quoting.escape is None,
        strict=strict,
    )


def _filled(rows: Iterable[list[str]]) -> Iterator[list[str]]:
    return (row for row in rows if _is_filled(row))


def _is_filled(row: list[str]) -> bool:
    return len(row) > 1 or any(cell.strip() for cell in row)


def _decimal(
    path: Path, header: Header, rows: Sequence[list[str]], numbers: Sequence[str]
) -> DecimalSign | None:
    places = [place for place, name in enumerate(header.unique) if name in numbers or not numbers]
    cells = [row[place].strip() for row in rows for place in places if place < len(row)]
    point, comma = (sum(each.fullmatch(cell) is not None for cell in cells) for each in (_POINT, _COMMA))
    if point or comma:
        return "." if point >= comma else ","
    doubtful = next((cell for cell in cells if _EITHER.fullmatch(cell)), None)
    if doubtful is not None and numbers:
        problem = f"{doubtful} could be a fraction or thousands: name the decimal sign with --decimal"
        raise ConfigurationError(problem, where=str(path))
    return None
