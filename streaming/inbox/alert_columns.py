"""Alerts in columns, folded: one row each at its newest revision, in the order in which they were raised."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from streaming.arrays.compilation import Ints
from streaming.inbox.alert_rows import AlertRows
from streaming.inbox.columns import GrowingArray, GrowingTexts, GrowingWords, Numbers
from streaming.inbox.fields import NO_LABEL, InboxFields
from streaming.inbox.view import InboxView

_FRAUD, _GENUINE = "fraud", "genuine"
_NUMBERS = {
    "amount": "amount", "score": "score", "sequence": "sequence", "revision": "revision",
    "time": "event_time", "created": "created_at",
}  # fmt: skip
_WORDS = {
    "severity": "severity", "classification": "classification", "source": "classification_source",
    "kind": "kind", "currency": "currency", "direction": "direction", "version": "spec_version",
    "fallback": "fallback_reason",
}  # fmt: skip
_TEXTS = {"alert": "alert_id", "transaction": "transaction_id"}
_FLOATS = ("amount", "score")
COLUMNS = [
    "outbox_seq", "entities", "rules", "reasons", *_NUMBERS.values(), *_WORDS.values(), *_TEXTS.values(),
]  # fmt: skip
# A later revision says these anew; all else is the first one's.
_REVISED_NUMBERS = ("revision", "score")
_REVISED_WORDS = ("severity", "classification", "source", "fallback", "rule", "reason")


class AlertColumns:
    """The columns as they grow.

    Args:
        fields: of the agent.
    """

    def __init__(self, fields: InboxFields) -> None:
        self._fields = fields
        self._places, self._newest = GrowingArray(np.int64), GrowingArray(np.int64)
        self._numbers = {name: GrowingArray(np.float64 if name in _FLOATS else np.int64) for name in _NUMBERS}
        self._words = {name: GrowingWords() for name in (*_WORDS, "label", "rule", "reason")}
        self._texts = {name: GrowingTexts() for name in (*_TEXTS, *fields.entities)}
        self._by_id = AlertRows()

    def view(self, next_outbox_seq: int) -> InboxView:
        """Return what is there now; it stays as it is.

        Args:
            next_outbox_seq: the `outbox_seq` after the last revision that was taken.
        """
        return InboxView(
            self._fields,
            next_outbox_seq,
            self._places.values,
            self._newest.values,
            {name: each.values for name, each in self._numbers.items()},
            {name: each.column for name, each in self._words.items()},
            {name: each.values for name, each in self._texts.items()},
            self._by_id,
        )

    def take(self, rows: pa.Table) -> None:
        """Take revisions in their order: an alert that is new goes behind all others, another is changed.

        Args:
            rows: with the columns `COLUMNS`.
        """
        known = self._by_id.of(rows["alert_id"])
        fresh = np.flatnonzero(known < 0)
        first_of = self._by_id.append(rows["alert_id"].take(pa.array(fresh)), self._places.rows)
        self._append(rows.take(pa.array(fresh[first_of])))
        again = np.setdiff1d(np.arange(rows.num_rows), fresh[first_of])
        if len(again):
            later = rows.take(pa.array(again))
            self._revise(later, self._by_id.of(later["alert_id"]))

    def label(self, found: pl.DataFrame) -> bool:
        """Give alerts the labels of their transactions; return whether any got one.

        Args:
            found: transaction_id and is_fraud, one row per transaction.
        """
        ids = found["transaction_id"].to_arrow().cast(pa.large_string())
        at = _places_in(self._texts["transaction"].values, ids)
        rows = np.flatnonzero(at >= 0)
        if len(rows):
            named = pc.if_else(found["is_fraud"].to_arrow(), _FRAUD, _GENUINE)
            self._words["label"].change(rows, named.take(pa.array(at[rows])))
        return len(rows) > 0

    def _append(self, rows: pa.Table) -> None:
        self._places.append(rows["outbox_seq"].to_numpy())
        self._newest.append(rows["outbox_seq"].to_numpy())
        for name, numbers in _numbers_of(rows).items():
            self._numbers[name].append(numbers)
        for name, words in _words_of(rows).items():
            self._words[name].append(words)
        self._words["label"].append(pa.repeat(NO_LABEL, rows.num_rows))
        for name, column in _TEXTS.items():
            self._texts[name].append(rows[column])
        for name, kind in self._fields.entities.items():
            self._texts[name].append(pc.map_lookup(rows["entities"], pa.scalar(kind), "first"))

    def _revise(self, rows: pa.Table, places: Ints) -> None:
        """Of several revisions of one alert the last counts: NumPy assigns in order."""
        numbers, words = _numbers_of(rows), _words_of(rows)
        self._newest.change(places, rows["outbox_seq"].to_numpy())
        for name in _REVISED_NUMBERS:
            self._numbers[name].change(places, numbers[name])
        for name in _REVISED_WORDS:
            self._words[name].change(places, words[name])


def _numbers_of(rows: pa.Table) -> Mapping[str, np.ndarray]:
    found = {}
    for name, column in _NUMBERS.items():
        values = rows[column]
        found[name] = (values.cast(pa.int64()) if pa.types.is_timestamp(values.type) else values).to_numpy()
    return found


def _words_of(rows: pa.Table) -> Mapping[str, pa.Array | pa.ChunkedArray]:
    words = {name: rows[column] for name, column in _WORDS.items()}
    rules = pc.binary_join(rows["rules"].combine_chunks(), " ")
    return {
        **words,
        "rule": pc.if_else(pc.equal(rules, ""), pa.scalar(None, pa.string()), rules),
        "reason": _first(rows["reasons"]),
    }


def _first(reasons: pa.ChunkedArray) -> pa.Array:
    """Return the name of the first reason of each list, null of an empty one."""
    whole = reasons.combine_chunks()
    lengths = pc.list_value_length(whole).fill_null(0).to_numpy(zero_copy_only=False)
    starts = whole.offsets.to_numpy()[:-1].astype(np.int64)
    places = pa.array(starts, mask=lengths == 0)
    return whole.values.field("name").take(places)


def _places_in(texts: pa.ChunkedArray, wanted: pa.Array) -> Numbers:
    """Return which of the wanted texts each one is, -1 for none."""
    found = pc.index_in(texts, value_set=wanted)
    return np.concatenate(
        [np.empty(0, np.int64), *(each.fill_null(-1).to_numpy(zero_copy_only=False) for each in found.chunks)]
    ).astype(np.int64)
