"""What is done to each table: which of its rows are somebody's, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from streaming.delta.forgetting import forget_versions
from streaming.delta.lake_reader import LakeReader
from streaming.delta.rewriting import RewriteNotes, maintained_alone, newest_facts, rewrite
from streaming.delta.stored import open_version
from streaming.erasure.columns import may_hold
from streaming.erasure.decided import DecidedUnder
from streaming.erasure.naming import Subject
from streaming.erasure.places import KEPT, ErasablePlaces
from streaming.erasure.questions import KEY, TEXTS, AskedAbout
from streaming.erasure.records import RecordSearch
from streaming.erasure.renaming import Renaming
from streaming.erasure.rows import RowChange
from streaming.erasure.states import StateChange
from streaming.store.place import Place

_FACTS = ("event_time", "amount", "score")


@dataclass(frozen=True)
class TableWork:
    """Changes tables and states.

    Attributes:
        renaming: what becomes of ids and texts.
        search: knows which raw records are somebody's.
        asked_about: knows which questions are about somebody.
        transactions: what the table is called whose columns are the contract's.
    """

    renaming: Renaming
    search: RecordSearch
    asked_about: AskedAbout
    transactions: str

    @classmethod
    def of(cls, decided: DecidedUnder, places: ErasablePlaces, subjects: Sequence[Subject]) -> TableWork:
        """Look what there is of somebody, by the id or, where an interruption has left it, the token."""
        renaming = Renaming(subjects, decided.naming, decided.aliases(places.agent.settings, subjects))
        search = RecordSearch(subjects, renaming, decided.contracts)
        names = {name for each in subjects for name in (each.id, each.token)}
        alerts = _parts(places.reader.place("alerts"), ["entities", *_FACTS])
        asked_about = AskedAbout(renaming, (_of(names, part) for part in alerts))
        return cls(renaming, search, asked_about, places.reader.place("transactions").name)

    @property
    def states(self) -> StateChange:
        """Changes what is remembered."""
        return StateChange(self.renaming, RowChange(self.renaming, self.search, of_events=True))

    def table(self, place: Place, *, shared: bool) -> tuple[int, int]:
        """Change a table and make its earlier versions unreadable; return rows changed and files left.

        Args:
            shared: others may write to it meanwhile.
        """
        with maintained_alone(place):
            change, notes = self._change(place), _keeping_facts(place, shared=shared)
            while rewrite(place, change, lambda _, __: notes).files and shared:
                continue
            return change.changed, forget_versions(place, shared=shared)

    def count(self, place: Place) -> int:
        """Return how many rows of a table would be changed."""
        change = self._change(place)
        for rows in _parts(place):
            change(rows)
        return change.changed

    def mentions(self, reader: LakeReader) -> dict[str, int]:
        """Return how many rows name somebody in tables that stay as they are."""
        places = {name: reader.place(name) for name in KEPT}
        return {name: sum(map(self._naming, _parts(place))) for name, place in places.items()}

    def _naming(self, rows: pa.Table) -> int:
        if not any(may_hold(column, self.renaming.needles) for column in rows.columns):
            return 0
        texts = ([each for each in row.values() if isinstance(each, str)] for row in rows.to_pylist())
        return sum(any(map(self.renaming.is_mentioned, each)) for each in texts)

    def _change(self, place: Place) -> RowChange:
        found = (self.asked_about.keys(rows) for rows in _parts(place, [KEY, *TEXTS]))
        keys = {key for keys in found for key in keys}
        return RowChange(self.renaming, self.search, keys, of_events=place.name == self.transactions)


def _parts(place: Place, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read a table file by file; nothing where there is none, or none with these columns."""
    table = open_version(place)
    if table is None:
        return
    wanted = table.schema.names if columns is None else list(columns)
    if set(wanted) <= set(table.schema.names):
        yield from table.parts(wanted)


def _keeping_facts(place: Place, *, shared: bool) -> RewriteNotes:
    """A restart goes on by the facts of the newest batch, which stand in entries that are removed."""
    table = None if shared else open_version(place)
    return RewriteNotes() if table is None else RewriteNotes(facts=newest_facts(table), forgets=True)


def _of(names: set[str], alerts: pa.Table) -> pa.Table:
    entities = alerts["entities"].to_pylist()
    own = np.array([bool(names & set(dict(each or ()).values())) for each in entities], np.bool_)
    return alerts.filter(pa.array(own)).select(list(_FACTS))
