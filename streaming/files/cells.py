"""Cells of tables brought to JSON: each column becomes the text of its JSON values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from schemas.contract import EventContract
from schemas.documents import clipped
from schemas.errors import ConfigurationError
from schemas.event_columns import Column
from schemas.event_conditions import AllOf, AnyOf, Compared, Condition, Not, OneOf
from streaming.arrays.iso_times import iso_text
from streaming.files.dialect import DecimalSign
from streaming.files.event_text import Quoted

_NO_VALUES = ["", "NULL", "null", "NaN", "nan", "NA", "N/A", "None", "\\N"]
_PLAIN = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_WHOLE = r"^-?(0|[1-9][0-9]*)$"
_NEEDS_ESCAPE = r'["\\\x00-\x1f]'
_SPACE, _QUOTE, _BACKSLASH = 32, 34, 92
_GROUPS = (
    r"[+-]?(\d+|\d{{1,3}}([{group} '\u2019\u00a0\u202f])\d{{3}}(\2\d{{3}})*)?(\{sign}\d*)?([eE][+-]?\d+)?"
)
_NUMBERS: dict[DecimalSign | None, re.Pattern[str]] = {
    None: re.compile(r"[+-]?(\d+()())?(\.\d*)?([eE][+-]?\d+)?", re.ASCII),
    ".": re.compile(_GROUPS.format(group=",", sign="."), re.ASCII),
    ",": re.compile(_GROUPS.format(group=".", sign=","), re.ASCII),
}
_YES = ("true", "t", "1", "yes", "y")
_NO = ("false", "f", "0", "no", "n")
_WHOLE_FLOATS = 2**53


class CellError(Exception):
    """A cell that does not hold what it should.

    Args:
        row: its place in the batch.
        problem: what it holds and what was expected.
    """

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row, self.problem = row, problem


class CellReader(NamedTuple):
    """Brings cells to JSON.

    Attributes:
        time_format: the contract's, for columns of timestamps.
        decimal: the decimal sign of numbers that are written as text; where none is known, they have a point
            and thousands are not set apart.
        judged: JSON type that a condition expects, by field.
        strict: refuse a cell of text that does not hold what it should; it stays text otherwise.
        local: the zone of times whose format says none.
    """

    time_format: str
    decimal: DecimalSign | None = None
    judged: Mapping[str, str] = {}
    strict: bool = True
    local: str | None = None

    @classmethod
    def of(
        cls, contract: EventContract, decimal: DecimalSign | None = None, *, strict: bool = True
    ) -> CellReader:
        """Return the reader of what a contract describes."""
        kinds = {} if contract.wanted is None else _kinds(contract.wanted)
        # What `where` leaves out may hold anything.
        strict, time = strict and contract.where is None, contract.event_time
        return cls(time.format, decimal, kinds, strict, time.zone if time.is_local else None)

    def read(self, values: pa.Array, name: str, column: Column | None) -> pa.Array | Quoted:
        """Return the JSON text of each value, `null` for none; or texts that need quotes alone.

        Args:
            values: what a file holds.
            name: the event's field, for errors.
            column: what the contract makes of it; None where it only passes through.

        Raises:
            CellError: a cell does not hold what it should.
            ConfigurationError: the whole column is of a type that no field of an event can be.
        """
        if column is not None and column.role == "event time" and column.more and _is_part(values.type):
            return strings(values.cast(pa.string()))
        values = _decoded(values)
        if pa.types.is_timestamp(values.type):
            return self._times(values, column)
        if _is_text(values.type):
            return self._from_text(_as_text(values), column.json_type if column else self.judged.get(name))
        if not (_is_number(values.type) or pa.types.is_boolean(values.type) or pa.types.is_null(values.type)):
            raise ConfigurationError(f"column {name!r} holds {values.type}, which no event field can be")
        return self._typed(values, column)

    def _times(self, values: pa.Array, column: Column | None) -> pa.Array | Quoted:
        form = self.time_format if column is not None and column.role == "event time" else "iso8601"
        if form == "epoch":
            raise ConfigurationError(
                "the file holds timestamps, the contract wants numbers", key="event_time"
            )
        if form == self.time_format and self.local is not None and values.type.tz is not None:
            values = pc.local_timestamp(values.cast(pa.timestamp(values.type.unit, self.local)))
        return strings(time_text(values, form))

    def _from_text(self, texts: pa.Array, json_type: str | None) -> pa.Array | Quoted:
        if json_type is None or json_type == "string":
            return strings(texts)
        return _TOKENS[json_type](texts, self.decimal, strict=self.strict)

    def _typed(self, values: pa.Array, column: Column | None) -> pa.Array | Quoted:
        if column is not None and column.json_type in ("string", "integer"):
            values = whole_numbers(values)
        if pa.types.is_floating(values.type):
            values = pc.if_else(pc.is_finite(values), values, None)
        texts = values.cast(pa.string())
        # Amounts that are mostly text may be numbers, too.
        wants_text = column is not None and column.json_type == "string" and column.role != "amount"
        if wants_text and not pa.types.is_boolean(values.type):
            return strings(texts)
        return pc.fill_null(texts, "null")


def time_text(times: pa.Array, form: str) -> pa.Array:
    """Return timestamps as text: `iso8601`, or by a strptime pattern."""
    if form == "iso8601":
        return iso_text(times)
    # Polars counts %f in nanoseconds where the contract's pattern, like Python's, means microseconds.
    written = pl.Series(pl.from_arrow(times)).dt.strftime(form.replace("%f", "%6f"))
    return written.to_arrow().cast(pa.string())


def strings(texts: pa.Array) -> pa.Array | Quoted:
    """Return texts as JSON strings; without joining them where quotes around each are all that they need."""
    return quoted(texts) if texts.null_count or _holds_what_is_escaped(texts) else Quoted(texts)


def _holds_what_is_escaped(texts: pa.Array) -> bool:
    """Whether any of the bytes is one that JSON escapes: cheaper than to ask text by text."""
    _, offsets, data = texts.buffers()
    if data is None or not len(texts):
        return False
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    held = np.frombuffer(data, np.uint8)[bounds[0] : bounds[-1]]
    return bool(((held < _SPACE) | (held == _QUOTE) | (held == _BACKSLASH)).any())


def quoted(texts: pa.Array) -> pa.Array:
    """Return texts as JSON strings, `null` for none."""
    plain = pc.binary_join_element_wise('"', texts, '"', "")
    odd = pc.fill_null(pc.match_substring_regex(texts, _NEEDS_ESCAPE), fill_value=False)
    if odd.true_count:
        escaped = [orjson.dumps(text).decode() for text in texts.filter(odd).to_pylist()]
        plain = pc.replace_with_mask(plain, odd, pa.array(escaped, pa.string()))
    return pc.fill_null(plain, "null")


def _decoded(values: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_date(values.type):
        values = values.cast(pa.timestamp("us"))
    return values


def _is_part(kind: pa.DataType) -> bool:
    """Whether it is a day or a time of day, which only with others make a time."""
    return bool(pa.types.is_date(kind) or pa.types.is_time(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _as_text(values: pa.Array) -> pa.Array:
    return values.cast(pa.string())


def whole_numbers(values: pa.Array) -> pa.Array:
    """Return floats that are all whole as whole numbers: tables with gaps often hold ids so."""
    if not pa.types.is_floating(values.type):
        return values
    known = values.drop_null().cast(pa.float64())
    small = pc.less_equal(pc.abs(known), _WHOLE_FLOATS)
    is_whole = pc.and_(small, pc.equal(known, pc.floor(known)))
    return values.cast(pa.int64()) if pc.all(is_whole).as_py() in (True, None) else values


def text_cells(values: pa.Array) -> pa.Array:
    """Return cells of bytes as text.

    Raises:
        CellError: one is no UTF-8.
    """
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        for row, cell in enumerate(values.to_pylist()):
            if cell is not None and not _is_utf8(cell):
                raise CellError(
                    row, "holds broken characters; --encoding names how the file is written"
                ) from None
        raise


def _is_utf8(cell: bytes) -> bool:
    try:
        cell.decode()
    except UnicodeDecodeError:
        return False
    return True


def _trimmed(texts: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.is_in(trimmed, pa.array(_NO_VALUES)), None, trimmed)


def _numbers(texts: pa.Array, decimal: DecimalSign | None, *, strict: bool) -> pa.Array:
    plain = _WHOLE if decimal == "," else _PLAIN
    expected = _number_expected(decimal)
    return _tokens(texts, plain, lambda text: number_token(text, decimal), expected if strict else None)


def _number_expected(decimal: DecimalSign | None) -> str:
    return f"expected a number with a decimal {'comma' if decimal == ',' else 'point'}"


def number_token(text: str, decimal: DecimalSign | None) -> str | None:
    """Return a number as JSON writes it, digit by digit, None for what is no number.

    Where the decimal sign is known, thousands may be set apart by the other one, a blank or an apostrophe.
    """
    found = _NUMBERS[decimal].fullmatch(text)
    whole, fraction = (found[1] or "", (found[4] or "")[1:]) if found else ("", "")
    if found is None or not whole + fraction:
        return None
    digits = re.sub(r"\D", "", whole).lstrip("0") or "0"
    sign = "-" if text.startswith("-") else ""
    return f"{sign}{digits}{'.' if fraction else ''}{fraction}{found[5] or ''}"


def _integers(texts: pa.Array, decimal: DecimalSign | None, *, strict: bool) -> pa.Array:
    expected = "expected a whole number" if strict else None
    return _tokens(texts, _WHOLE, lambda text: _integer_token(text, decimal), expected)


def _integer_token(text: str, decimal: DecimalSign | None) -> str | None:
    token = number_token(text, decimal)
    if token is None or "e" in token.lower():
        return None
    whole, _, fraction = token.partition(".")
    return None if fraction.strip("0") else whole


def _booleans(texts: pa.Array, _: DecimalSign | None, *, strict: bool) -> pa.Array:
    expected = "expected true or false" if strict else None
    return _tokens(texts, "^(true|false)$", _boolean_token, expected)


def _boolean_token(text: str) -> str | None:
    word = text.lower()
    return "true" if word in _YES else "false" if word in _NO else None


def _tokens(
    texts: pa.Array, plain: str, token: Callable[[str], str | None], expected: str | None
) -> pa.Array:
    """Return trimmed cells as they are where they are plain JSON, else what `token` makes of them.

    Where it makes nothing of one, that is an error if something was expected, and text otherwise.
    """
    texts = _trimmed(texts)
    odd = pc.fill_null(pc.invert(pc.match_substring_regex(texts, plain)), fill_value=False)
    if odd.true_count:
        made = [token(text) for text in texts.filter(odd).to_pylist()]
        if None in made and expected is None:
            written = quoted(texts.filter(odd)).to_pylist()
            made = [text if given is None else given for text, given in zip(written, made, strict=True)]
        elif None in made:
            row = pc.indices_nonzero(odd)[made.index(None)].as_py()
            raise CellError(row, f"is {clipped(texts[row].as_py())!r}; {expected}")
        texts = pc.replace_with_mask(texts, odd, pa.array(made, pa.string()))
    return pc.fill_null(texts, "null")


def _kinds(condition: Condition) -> dict[str, str]:
    """Return the JSON type that a condition expects of each field that it compares."""
    if isinstance(condition, Compared | OneOf):
        return {condition.field: _JSON[condition.kind]}
    if isinstance(condition, Not):
        return _kinds(condition.inner)
    parts = condition.parts if isinstance(condition, AllOf | AnyOf) else ()
    return {name: kind for part in parts for name, kind in _kinds(part).items()}


class _Tokens(Protocol):
    def __call__(self, texts: pa.Array, decimal: DecimalSign | None, /, *, strict: bool) -> pa.Array: ...


_JSON = {"text": "string", "number": "number", "truth": "boolean"}
_TOKENS: Mapping[str, _Tokens] = {
    "number": _numbers,
    "integer": _integers,
    "boolean": _booleans,
}
