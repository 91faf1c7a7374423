"""What files and topics say about transactions, brought to labels; what makes no sense becomes a reject."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import polars as pl
import pyarrow as pa

from schemas.documents import clipped
from schemas.errors import ConfigurationError
from schemas.event_paths import Steps, look_up, steps_of
from schemas.label import GIVEN, LABEL_FIELDS
from streaming.labels.recorded import rejects_table

UNKNOWN_DECIDER = "unknown"
# One reading for files, topics, evaluate and drafts.
FRAUD_WORDS = (
    *("1", "1.0", "true", "t", "yes", "y", "fraud", "fraudulent"),
    *("ja", "j", "oui", "o", "si", "sí", "s", "sim", "sì", "tak"),
)
GENUINE_WORDS = (
    *("0", "0.0", "false", "f", "no", "n", "genuine", "legitimate", "legit"),
    *("nein", "nee", "non", "não", "nao", "nie"),
)

_REQUIRED = tuple(each.name for each in LABEL_FIELDS if each.required)
_OPTIONAL = tuple(each.name for each in LABEL_FIELDS if each.sent and not each.required)
_SAID = (*_REQUIRED, *_OPTIONAL)
_FRAUD_BY_WORD = {**dict.fromkeys(FRAUD_WORDS, True), **dict.fromkeys(GENUINE_WORDS, False)}
_MOMENT = pl.Datetime("us", "UTC")
_ISO = "%Y-%m-%dT%H:%M:%S%.f%#z"
_LATEST_SECONDS = 4_102_444_800  # 2100-01-01
_WHOLE_FLOATS = 2**53
_SHOWN_CHARACTERS = 40
EXPECTED = {
    "transaction_id": "text or an integer",
    "is_fraud": "0 or 1, true or false, yes or no (ja, nein, oui, non, sí, sim, não, nee, tak, nie), fraud "
    "or genuine",
    "decided_at": "an ISO 8601 time or seconds since 1970 UTC",
    "kind": "text",
    "decided_by": "text",
}


def parse_labels(said: pl.DataFrame, by: str) -> tuple[pa.Table, pa.Table]:
    """Turn columns as a file or a topic has them into labels.

    Ids may be text or whole numbers, labels numbers or words of `FRAUD_WORDS` and `GENUINE_WORDS` in any
    case, times timestamps, ISO 8601 text or seconds since 1970 UTC. A time without an offset is UTC, an empty
    one leaves the label undated.

    Args:
        said: `source_position`, `transaction_id`, `is_fraud` and, where said, the other fields sent.
        by: who decided where `decided_by` does not say.

    Returns:
        Labels of schema `GIVEN` and rejects of schema `LABEL_REJECTS`, both in the order given.

    Raises:
        ConfigurationError: a column is of a type that cannot mean this.
    """
    raw = said.with_columns(pl.lit(None, pl.String).alias(name) for name in _SAID if name not in said.columns)
    parsed = pl.DataFrame(
        {
            "transaction_id": _ids(raw["transaction_id"]),
            "is_fraud": _frauds(raw["is_fraud"]),
            "kind": _words(raw["kind"]),
            "decided_at": _moments(raw["decided_at"]),
            "decided_by": _words(raw["decided_by"]),
            "source_position": raw["source_position"].cast(pl.Int64),
        }
    )
    bad = _bad(raw, parsed)
    good = (parsed.filter(~bad) if bad.any() else parsed).with_columns(pl.col("decided_by").fill_null(by))
    rejects = rejects_table(_explained(raw.filter(bad), parsed.filter(bad)))
    return good.select(GIVEN.names).to_arrow().cast(GIVEN), rejects


def json_columns(
    values: Iterable[bytes | None], positions: Sequence[int], fields: dict[str, str]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take labels' fields out of JSON objects.

    Args:
        values: one object each.
        positions: their rows or offsets.
        fields: path in the object by name in the label; unknown fields of the object are passed over.

    Returns:
        Columns for `parse_labels`, all text, and positions with reasons of the values that hold no label.
    """
    paths = [(name, path, steps_of(path)) for name, path in fields.items()]
    kept: list[tuple[Any, ...]] = []
    rejected: list[tuple[int, str]] = []
    for position, value in zip(positions, values, strict=True):
        try:
            kept.append((position, *_cells(value, paths)))
        except ValueError as fault:
            rejected.append((position, str(fault)))
    schema = {"source_position": pl.Int64, **dict.fromkeys(fields, pl.String)}
    return (
        pl.DataFrame(kept, schema, orient="row"),
        pl.DataFrame(rejected, {"source_position": pl.Int64, "reason": pl.String}, orient="row"),
    )


def _cells(value: bytes | None, paths: Sequence[tuple[str, str, Steps]]) -> list[str | None]:
    if value is None:
        raise ValueError("no value")
    try:
        label = orjson.loads(value)
    except orjson.JSONDecodeError as fault:
        raise ValueError(f"not JSON: {fault}") from None
    if not isinstance(label, dict):
        raise ValueError("expected a JSON object")
    return [_cell(look_up(label, path, steps), name, path) for name, path, steps in paths]


def _cell(value: Any, name: str, field: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        if name != "transaction_id":
            return str(value).lower()
    elif isinstance(value, int | float):
        return repr(value)
    raise ValueError(f"{field} is {_shown(value)}; expected {EXPECTED[name]}")


def _shown(value: Any) -> str:
    try:
        return clipped(orjson.dumps(value).decode(), _SHOWN_CHARACTERS)
    except orjson.JSONEncodeError:  # it reads what is nested deeper than it writes
        return "nested too deep"


def _ids(values: pl.Series) -> pl.Series:
    if values.dtype.is_float():
        whole = values.is_finite() & (values == values.floor()) & (values.abs() <= _WHOLE_FLOATS)
        values = values.set(~whole.fill_null(False), None).cast(pl.Int64)
    return _words(values) if values.dtype.is_integer() else _words(_text(values))


def _frauds(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Boolean:
        return values
    words = (values.cast(pl.String) if values.dtype.is_numeric() else _text(values)).str.strip_chars()
    return words.str.to_lowercase().replace_strict(_FRAUD_BY_WORD, default=None, return_dtype=pl.Boolean)


def _moments(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Date:
        values = values.cast(pl.Datetime("us"))
    if isinstance(values.dtype, pl.Datetime):
        return (values if values.dtype.time_zone else values.dt.replace_time_zone("UTC")).cast(_MOMENT)
    if values.dtype.is_numeric():
        return _from_seconds(values.cast(pl.Float64))
    texts = _text(values).str.strip_chars()
    return _from_iso(texts).fill_null(_from_seconds(texts.cast(pl.Float64, strict=False)))


def _from_seconds(seconds: pl.Series) -> pl.Series:
    known = (seconds >= 0) & (seconds < _LATEST_SECONDS)
    return (seconds.set(~known.fill_null(False), None) * 1e6).round().cast(pl.Int64).cast(_MOMENT)


def _from_iso(texts: pl.Series) -> pl.Series:
    complete = (
        texts.str.replace(r"^(\d{4}-\d\d-\d\d)$", "${1}T00:00:00")
        .str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
        .str.replace(r"^(.{10}T\d\d:\d\d)($|[Zz+-])", "${1}:00${2}")
        .str.replace(r"^(.{10}T\d\d:\d\d:\d\d(?:\.\d+)?)[Zz]?$", "${1}+00:00")
    )
    return complete.str.to_datetime(_ISO, strict=False, time_unit="us", time_zone="UTC")


def _words(values: pl.Series) -> pl.Series:
    """Return text with empty text as null."""
    texts = values.cast(pl.String) if values.dtype.is_numeric() else _text(values)
    return texts.set(texts == "", None)


def _text(values: pl.Series) -> pl.Series:
    kind = values.dtype
    if kind == pl.Binary:
        return _decoded(values)
    if kind in (pl.String, pl.Null, pl.Categorical) or isinstance(kind, pl.Enum):
        return values.cast(pl.String)
    raise ConfigurationError(f"column {values.name!r} holds {kind}; expected {EXPECTED[values.name]}")


def _decoded(values: pl.Series) -> pl.Series:
    try:
        return values.cast(pl.String)
    except pl.exceptions.ComputeError:
        return pl.Series(values.name, [_utf8(value) for value in values], pl.String)


def _utf8(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _bad(raw: pl.DataFrame, parsed: pl.DataFrame) -> pl.Series:
    bad = pl.repeat(False, raw.height, dtype=pl.Boolean, eager=True)
    for name in _SAID:
        bad |= _wrong(name, raw[name], parsed[name])
    return bad


def _wrong(name: str, said: pl.Series, meant: pl.Series) -> pl.Series:
    return meant.is_null() if name in _REQUIRED else meant.is_null() & _filled(said)


def _filled(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Binary:
        return (values.bin.size() > 0).fill_null(False)
    if values.dtype == pl.String:
        return (values.str.len_bytes() > 0).fill_null(False)
    return values.is_not_null()


def _explained(raw: pl.DataFrame, parsed: pl.DataFrame) -> pl.DataFrame:
    """Say of each bad row what its first wrong field holds, and what was expected."""
    # Flags alone are asked for: of a column of times not every value is one in Python.
    wrong = [_wrong(name, raw[name], parsed[name]).to_list() for name in _SAID]
    first = [_SAID[flags.index(True)] for flags in zip(*wrong, strict=True)]
    reasons = [_reason(name, raw[name], row) for row, name in enumerate(first)]
    return pl.DataFrame(
        {"source_position": raw["source_position"], "reason": pl.Series(reasons, dtype=pl.String)}
    )


def _reason(name: str, values: pl.Series, row: int) -> str:
    if not _filled(values)[row]:
        return f"no {name}"
    value = values[row]
    shown = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return f"{name} is {clipped(shown, _SHOWN_CHARACTERS)!r}; expected {EXPECTED[name]}"
