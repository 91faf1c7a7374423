"""The alerts as they were at some moment: chosen by a filter, counted, and shown page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.instants import moment_of
from streaming.arrays.compilation import Ints
from streaming.inbox.alert_rows import AlertRows
from streaming.inbox.columns import Chosen, Numbers, WordColumn
from streaming.inbox.cursor import ORDERS, Cursor, Order
from streaming.inbox.fields import InboxField, InboxFields, number_of, rank_of
from streaming.inbox.filter_language import EveryPart, FieldAmong, FieldCompared, Filter, NoPart

_JOINED = " "  # rules have no spaces in their names
_NUMBERS: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}


@dataclass(frozen=True)
class InboxView:
    """Alerts, one row each at its newest revision, in the order in which they were raised.

    Attributes:
        next_outbox_seq: the `outbox_seq` after the last revision that is in it.
        places: int64[n], `outbox_seq` of each alert's first revision, ascending.
        newest: int64[n], `outbox_seq` of the newest.
        numbers: field → values.
        words: field → values.
        texts: field → values.
        rows_by_id: where alerts stand, later ones too.
    """

    fields: InboxFields
    next_outbox_seq: int
    places: Numbers
    newest: Numbers
    numbers: Mapping[str, Numbers]
    words: Mapping[str, WordColumn]
    texts: Mapping[str, pa.ChunkedArray]
    rows_by_id: AlertRows

    @property
    def rows(self) -> int:
        """How many alerts there are."""
        return len(self.places)

    def chosen(self, wanted: Filter, now: datetime) -> Chosen:
        """Say which alerts a filter chooses.

        Args:
            now: what times such as `-2h` count from.

        Raises:
            ConfigurationError: a field, an operator or a value cannot be used.
        """
        if isinstance(wanted, FieldCompared):
            return self._compared(wanted, now)
        if isinstance(wanted, FieldAmong):
            return self._among(wanted, now)
        if isinstance(wanted, NoPart):
            return ~self.chosen(wanted.part, now)
        joined = np.logical_and if isinstance(wanted, EveryPart) else np.logical_or
        found = np.full(self.rows, isinstance(wanted, EveryPart))
        for part in wanted.parts:
            joined(found, self.chosen(part, now), out=found)
        return found

    def counts(self, chosen: Chosen, facets: Sequence[str]) -> dict[str, dict[str, int]]:
        """Return how often each value of some fields stands in chosen alerts, the most frequent first."""
        rows = None if chosen.all() else cast("Ints", np.flatnonzero(chosen))
        return {name: self._counts(name, rows) for name in facets}

    def page(self, chosen: Chosen, order: Order, after: Cursor | None, limit: int) -> Ints:
        """Return the rows of the next page.

        What is appended meanwhile changes no later page: a page goes on by the last alert's own values.

        Args:
            after: where the page before has ended, None for the first.
        """
        keys = self._keys(order)
        if after is not None:
            ahead = keys < after.key
            ahead |= (keys == after.key) & (self.places < after.place)
            chosen = chosen & ahead
        rows = np.flatnonzero(chosen)
        return rows[_largest(keys[rows], limit)]

    def cursor(self, order: Order, row: int) -> Cursor:
        """Return where a page that ends with a row goes on."""
        return Cursor(order, float(self._keys(order)[row]), int(self.places[row]))

    def find(self, field: str, text: str) -> Ints:
        """Return the rows whose text is this one."""
        return np.flatnonzero(_as_array(pc.equal(self.texts[field], text)))

    def row_of(self, alert_id: str) -> int | None:
        """Return the row of an alert, None of one that is not there."""
        row = self.rows_by_id.find(alert_id)
        if row is None or row >= self.rows or self.texts["alert"][row].as_py() != alert_id:
            return None
        return row

    def texts_of(self, field: str, rows: Ints) -> list[str | None]:
        """Return the texts of some rows: one by one, as Arrow would put all chunks together to take a few."""
        column = self.texts[field]
        return [column[row].as_py() for row in rows.tolist()]

    def alerts(self, rows: Ints) -> list[dict[str, Any]]:
        """Return some alerts as plain values, for lists."""
        texts = {name: self.texts_of(name, rows) for name in self.texts}
        return [
            self._alert(int(row), {name: each[at] for name, each in texts.items()})
            for at, row in enumerate(rows)
        ]

    def _alert(self, row: int, texts: Mapping[str, str | None]) -> dict[str, Any]:
        words = {name: column.words[column.codes[row]] for name, column in self.words.items()}
        entities = {kind: texts[name] for name, kind in self.fields.entities.items()}
        return {
            "alert_id": texts["alert"],
            "transaction_id": texts["transaction"],
            "time": moment_of(int(self.numbers["time"][row])),
            "created": moment_of(int(self.numbers["created"][row])),
            "amount": float(self.numbers["amount"][row]),
            "score": float(self.numbers["score"][row]),
            "sequence": int(self.numbers["sequence"][row]),
            "revision": int(self.numbers["revision"][row]),
            "outbox_seq": int(self.newest[row]),
            **{name: word for name, word in words.items() if name != "rule"},
            "rules": (words["rule"] or "").split(),
            "entities": {kind: each for kind, each in entities.items() if each is not None},
        }

    def _compared(self, wanted: FieldCompared, now: datetime) -> Chosen:
        field = self.fields.named(wanted.name, wanted.operator)
        if field.kind in ("word", "text"):
            found = self._holding(field, wanted.value, contains=wanted.operator == "~")
            return ~found if wanted.operator == "!=" else found
        value = number_of(field, wanted.value, now)
        if field.kind == "rank":
            compare = _NUMBERS[wanted.operator]
            return self.words[field.name].chosen(lambda word: bool(compare(rank_of(word), value)))
        return cast("Chosen", _NUMBERS[wanted.operator](self.numbers[field.name], value))

    def _among(self, wanted: FieldAmong, now: datetime) -> Chosen:
        field = self.fields.named(wanted.name)
        if field.kind in ("word", "rank"):
            values = frozenset(wanted.values)
            return self.words[field.name].chosen(lambda word: not values.isdisjoint(_held(field, word)))
        if field.kind == "text":
            values_of = pa.array(wanted.values, pa.large_string())
            return _as_array(pc.is_in(self.texts[field.name], values_of))
        self.fields.named(wanted.name, "=")
        numbers = [number_of(field, each, now) for each in wanted.values]
        return np.isin(self.numbers[field.name], numbers)

    def _holding(self, field: InboxField, value: str, *, contains: bool) -> Chosen:
        if field.kind == "text":
            find = pc.match_substring if contains else pc.equal
            return _as_array(find(self.texts[field.name], value))
        if contains:
            return self.words[field.name].chosen(
                lambda word: any(value in each for each in _held(field, word))
            )
        return self.words[field.name].chosen(lambda word: value in _held(field, word))

    def _counts(self, name: str, rows: Ints | None) -> dict[str, int]:
        counts = self.words[name].counts(rows)
        if name != "rule":
            return counts
        found: dict[str, int] = {}
        for joined, count in counts.items():
            for rule in joined.split(_JOINED):
                found[rule] = found.get(rule, 0) + count
        return dict(sorted(found.items(), key=lambda each: (-each[1], each[0])))

    def _keys(self, order: Order) -> Numbers:
        field = ORDERS[order]
        if field == "place":
            return self.places if order == "newest" else -self.places
        if field == "severity":
            column = self.words[field]
            return np.fromiter(map(rank_of, column.words), np.int64, len(column.words))[column.codes]
        return self.numbers[field]


def _held(field: InboxField, word: str | None) -> tuple[str, ...]:
    """Return what a row holds by its word: a combination each of its rules, none the empty text."""
    if word is None:
        return ("",)
    return tuple(word.split(_JOINED)) if field.name == "rule" else (word,)


def _largest(keys: Numbers, limit: int) -> Ints:
    """Return the places of the largest keys, the largest first; of equal ones the last comes first."""
    if len(keys) > limit:
        least = np.partition(keys, len(keys) - limit)[len(keys) - limit]
        above, equal = np.flatnonzero(keys > least), np.flatnonzero(keys == least)
        places = np.concatenate([above, equal[len(equal) - (limit - len(above)) :]])
        places.sort()
    else:
        places = np.arange(len(keys))
    order = np.argsort(keys[places], kind="stable")[::-1]
    return cast("Ints", places[order])


def _as_array(found: Any) -> Chosen:
    """Nothing compares with what is not there."""
    return cast(
        "Chosen", found.combine_chunks().fill_null(False).to_numpy(zero_copy_only=False).astype(np.bool_)
    )
