"""What becomes of rows: tokens in the place of ids, and nothing of the texts and bytes of those erased.

One change serves all tables, and rows that are remembered elsewhere: a column is known by its name. What a
contract calls an entity or a text may be the name of a column of ours in another table, so rows of events are
told apart. Amounts, times, numbers and counts stay, so that whatever follows from the rows still does.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import TRANSACTIONS
from streaming.erasure.columns import Marks, deep, differences, emptied, mapped, marked, may_hold
from streaming.erasure.naming import TRANSACTION
from streaming.erasure.questions import QUESTION, TEXTS, about
from streaming.erasure.records import RecordSearch
from streaming.erasure.renaming import Renaming

_ENTITIES, _SOURCE = "entities", "classification_source"
_RECORD = ("key", "value", "headers", "detail")
_RATIONALE = "rationale"
_SAID = (_RATIONALE, "evidence")
_ATTACHED = "content"
# They name topics, rules, models, reasons, places and the like: nothing of what an event says. A number in a
# reason, or a word of one, may look like an id, and a replay writes it as it was.
_OURS = frozenset({
    "topic", "currency", "query_id", "kind", "agent", "reason", "status", "model", "prompt_id", "event",
    "request", "spec", "pins", "versions", "offsets", "durations", "contract", "digest", "hash", "previous",
    "alert_id", "classification", "severity", "classification_source", "fallback_reason", "spec_version",
    "rules_version", "rules", "rule_texts", "reasons", "direction", "clipped", "rejected", "refused",
    "topic_id", "topic_ids", "lost", "lane", "filtered_by_reason", "rejected_by_reason", "faults",
    "finding_id", "run_id", "policy", "plan_digest", "stage", "version", "places", "case_id", "action",
    "other", "fingerprints",
})  # fmt: skip
# All other columns of an event are the contract's, whatever they are called.
_OURS_OF_EVENTS = frozenset(TRANSACTIONS.names) - {TRANSACTION}


class RowChange:
    """Changes rows; gives back the very same table where nothing is to change.

    Args:
        renaming: what becomes of ids and texts.
        search: knows which raw records are somebody's.
        keys: under which a ledger holds something of somebody.
        of_events: whether the rows are transactions, whose columns are those of a contract.

    Attributes:
        changed: how many rows so far.
    """

    def __init__(
        self,
        renaming: Renaming,
        search: RecordSearch,
        keys: Collection[str] = (),
        *,
        of_events: bool = False,
    ) -> None:
        self._renaming, self._search, self._keys, self._of_events = renaming, search, keys, of_events
        self.changed = 0

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return rows as they are to be."""
        if self._of_events:
            own, after = self._named(rows)
        elif QUESTION in rows.column_names:
            own = about(rows, self._keys)
            after = emptied(rows, TEXTS, own) if own.any() else rows
        elif set(_RECORD) <= set(rows.column_names):
            own = self._search.of_somebody(rows)
            after = emptied(rows, _RECORD, own) if own.any() else rows
        else:
            own, after = self._named(rows)
            gone = self._files_that_go(rows, own)
            after, own = emptied(after, [_ATTACHED], gone) if gone.any() else after, own | gone
        self.changed += int(own.sum())
        return after

    def _named(self, rows: pa.Table) -> tuple[Marks, pa.Table]:
        """Return which rows change, and what they become; those of somebody lose their texts."""
        own = self._own(rows)
        after, renamed = self._renamed(rows)
        return own | renamed, self._without_texts(after, own) if own.any() else after

    @property
    def _ours(self) -> frozenset[str]:
        return _OURS_OF_EVENTS if self._of_events else _OURS

    def _own(self, rows: pa.Table) -> Marks:
        """Return which rows name somebody who is erased, bool[n]."""
        naming, needles = self._renaming.naming, self._renaming.needles
        own: Marks = np.zeros(rows.num_rows, np.bool_)
        for name in sorted(naming.entities.intersection(rows.column_names) - self._ours):
            if may_hold(rows[name], needles):
                own |= marked(rows[name], self._is_named(name))
        if not self._of_events and _ENTITIES in rows.column_names and may_hold(rows[_ENTITIES], needles):
            named = [dict(each or ()) for each in rows[_ENTITIES].to_pylist()]
            found = [any(self._renaming.is_named(*pair) for pair in each.items()) for each in named]
            own |= np.array(found, np.bool_)
        return own

    def _is_named(self, column: str) -> Callable[[str], bool]:
        return lambda text: self._renaming.is_named(column, text)

    def _renamed(self, rows: pa.Table) -> tuple[pa.Table, Marks]:
        changed: Marks = np.zeros(rows.num_rows, np.bool_)
        for place, field in enumerate(rows.schema):
            column = rows[field.name]
            if field.name in self._ours or not may_hold(column, self._renaming.needles):
                continue
            after = mapped(column, self._rename_of(field.name))
            if field.name == _RATIONALE and not self._of_events and _SOURCE in rows.column_names:
                after = pc.if_else(pa.array(_by_model(rows)), after, column)
            differing = differences(column, after)
            if differing.any():
                rows = rows.set_column(place, field, after)
                changed |= differing
        return rows, changed

    def _rename_of(self, name: str) -> Callable[[Any], Any]:
        renaming = self._renaming
        if name == TRANSACTION or name in renaming.naming.entities:
            return lambda text: renaming.id(name, text)
        if self._of_events:
            return lambda each: deep(each, renaming.text)
        if name == _ENTITIES:
            return lambda pairs: [(kind, renaming.id(kind, text)) for kind, text in pairs]
        if name == "alerted":
            return lambda each: deep(each, lambda text: renaming.id(TRANSACTION, text))
        return lambda each: deep(each, renaming.text)

    def _files_that_go(self, rows: pa.Table, own: Marks) -> Marks:
        """Files of somebody's case go, and those that mention somebody: nothing in them can be renamed."""
        if _ATTACHED not in rows.column_names:
            return np.zeros(rows.num_rows, np.bool_)
        contents = zip(rows[_ATTACHED].to_pylist(), own.tolist(), strict=True)
        return np.array(
            [each is not None and (mine or self._mentions(each)) for each, mine in contents], np.bool_
        )

    def _mentions(self, content: bytes) -> bool:
        return self._renaming.is_mentioned(content.decode("utf-8", "replace"))

    def _without_texts(self, rows: pa.Table, own: Marks) -> pa.Table:
        if self._of_events:
            texts = [name for name in rows.column_names if name in self._renaming.naming.texts]
            return emptied(rows, texts, own)
        if _SOURCE not in rows.column_names:
            return rows
        said = [name for name in _SAID if name in rows.column_names]
        return emptied(rows, said, own & _by_model(rows))


def _by_model(rows: pa.Table) -> Marks:
    """Return what a model has classified, bool[n]; what rules say follows from reasons."""
    return marked(rows[_SOURCE], lambda text: text == "llm")
