"""The table of case events, and what follows from it, kept at hand and brought up to date by what is new."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta

import polars as pl

from schemas.tables import CASE_EVENTS
from streaming.cases.case_frames import (
    ALERTED,
    FRAME,
    LIGHT,
    MEMBERS,
    MOVES,
    frame_of,
    members_of,
    moves_of,
    table_of,
)
from streaming.cases.folding import CASES, fold, homes_of, newest_revisions, together, without_undone
from streaming.cases.refunds import NO_REFUNDS
from streaming.cases.text_rows import TextRows
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.delta.table_versions import open_for_reading
from streaming.store.place import Place

_STREAM, _GROUPED = "cases", "cases/grouped"
_MOST_CHUNKS = 64
NOTHING = pl.DataFrame(schema=FRAME)


class CaseMemory:
    """All events so far and the cases that they make.

    Attributes:
        moves: MOVES.
        members: MEMBERS.
        cases: CASES.
        refunds: `outbox_seq` of the alerts about refunds, of those among the members at least.
        next_number: of the event to come.
    """

    def __init__(self) -> None:
        self.moves, self.members = pl.DataFrame(schema=MOVES), pl.DataFrame(schema=MEMBERS)
        self.cases, self.refunds, self.next_number = pl.DataFrame(schema=CASES), NO_REFUNDS, 0
        self._moves_of, self._members_of, self._by_alert = TextRows(), TextRows(), TextRows()
        self._homes: tuple[int, Mapping[str, str]] = (0, {})

    def take(self, rows: pl.DataFrame, refunds: pl.Series | None = None) -> None:
        """Add events; those that are known already change nothing.

        Args:
            rows: FRAME.
            refunds: as they are now; None where no more have come.
        """
        self.refunds = self.refunds if refunds is None else refunds
        rows = rows.filter(pl.col("number") >= self.next_number)
        if rows.height == 0:
            return
        self.moves = _appended(self.moves, moves_of(rows))
        self.members = _appended(self.members, members_of(rows))
        self.next_number = 1 + int(rows["number"].max())  # type: ignore[arg-type]  # an integer
        touched = together(rows["case_id"].drop_nulls().unique(), self.moves)
        if len(touched) * 2 > self.cases.height:
            self.cases = fold(self.moves, self.members, self.refunds)
            return
        changed = fold(*self._about(touched), self.refunds)
        others = self.cases.filter(~pl.col("case_id").is_in(list(touched)))
        self.cases = pl.concat([others, changed]).sort("opened_number")

    def of(self, case_id: str) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return all events of a case and of those merged with it, as moves and members."""
        return self._about(together([case_id], self.moves))

    def alerts_in(self, case_id: str) -> pl.DataFrame:
        """Return the alerts that belong to a case now, MEMBERS, each as its newest revision has it."""
        moves, members = self.of(case_id)
        homes = homes_of(without_undone(moves))
        found = members.with_columns(pl.col("case_id").replace(homes)).filter(pl.col("case_id") == case_id)
        return newest_revisions(found.sort("number")).sort("outbox_seq")

    def homes_of_alerts(self, alert_ids: Sequence[str]) -> dict[str, str]:
        """Return the case that each of some alerts belongs to now, without those that belong to none."""
        rows = self._by_alert.of(self.members["alert_id"], alert_ids)
        known = self.members.select("alert_id", "case_id")[rows]
        first_of, homes = dict(known.reverse().iter_rows()), self._where_merged()
        return {alert: homes.get(first, first) for alert, first in first_of.items()}

    def _about(self, cases: Iterable[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return all events of some cases, as moves and members."""
        names = list(cases)
        moves = self._moves_of.of(self.moves["case_id"], names)
        members = self._members_of.of(self.members["case_id"], names)
        return self.moves[moves], self.members[members]

    def _where_merged(self) -> Mapping[str, str]:
        """Return where the alerts of merged cases belong now, found out once for each state."""
        if self._homes[0] != self.next_number:
            self._homes = self.next_number, homes_of(without_undone(self.moves))
        return self._homes[1]


class CaseStore:
    """Case events as several processes write them side by side.

    Args:
        place: where the table lies; it is created when somebody first writes.
        retention: how long versions of it stay readable.
        refunds: gives the `outbox_seq` of all alerts about refunds.
    """

    def __init__(
        self, place: Place, retention: timedelta, refunds: Callable[[], pl.Series] = lambda: NO_REFUNDS
    ) -> None:
        self.place, self._retention, self._refunds = place, retention, refunds
        self._table: SharedTable | None = None
        self._rewritten = -1
        self.memory = CaseMemory()

    @property
    def grouped_through(self) -> int:
        """The `outbox_seq` of the last alert that belongs to a case, -1 before the first."""
        return -1 if self._table is None else self._table.last_batch(_GROUPED)

    def refresh(self) -> None:
        """See what others have written since.

        Raises:
            FlagstreamError: the table cannot be read.
        """
        if self._table is None:
            if open_for_reading(self.place) is None:
                return
            self._table = self._opened()
        self._table.refresh()
        self._read_on(self._table)

    def write(self, decide: Callable[[], pl.DataFrame], grouped_through: int | None = None) -> int:
        """Append the rows that `decide` makes of all events so far; of two writers one is asked again.

        Args:
            decide: gives columns of FRAME but for `number`; no rows for nothing to be done.
            grouped_through: as is on record from now on.

        Returns:
            How many rows were written.
        """
        if self._table is None and open_for_reading(self.place) is None and decide().height == 0:
            return 0
        table = self._table = self._table or self._opened()

        def attempt() -> int:
            table.refresh()
            self._read_on(table)
            rows = decide()
            if rows.height == 0:
                return 0
            first = max(self.memory.next_number, table.next_number("number"))
            numbered = rows.with_columns(
                pl.int_range(first, first + rows.height, dtype=pl.Int64).alias("number")
            )
            also = [] if grouped_through is None else [Stamp(_GROUPED, grouped_through)]
            table.append(table_of(numbered), Stamp(_STREAM, table.last_batch(_STREAM) + 1), also=also)
            self._take(completed(numbered))
            return rows.height

        written = table.by_turns(attempt)
        table.tidy()
        return written

    def content(self, number: int) -> bytes | None:
        """Return the content of the attachment that an event has brought; None where it was removed."""
        if self._table is None:
            return None
        found = self._table.read("number", number, number + 1, ["content"])["content"].to_pylist()
        return found[0] if found else None

    def _opened(self) -> SharedTable:
        return SharedTable(self.place, CASE_EVENTS, self._retention)

    def _read_on(self, table: SharedTable) -> None:
        """An erasure, or retention, has made other rows of those that are known."""
        if table.rewritten_at != self._rewritten:
            self.memory, self._rewritten = CaseMemory(), table.rewritten_at
        known = self.memory.next_number
        if table.next_number("number") > known:
            self._take(frame_of(table.read("number", known, columns=LIGHT)))

    def _take(self, rows: pl.DataFrame) -> None:
        """An alert is in its table before it belongs to a case."""
        has_alerts = (rows["event"] == ALERTED).any()
        self.memory.take(rows, self._refunds() if has_alerts else None)


def completed(rows: pl.DataFrame) -> pl.DataFrame:
    """Return rows with all columns of FRAME; those that are missing hold nothing."""
    return rows.select(
        pl.col(name).cast(kind) if name in rows.columns else pl.lit(None, kind).alias(name)
        for name, kind in FRAME.items()
    )


def _appended(frame: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    both = pl.concat([frame, rows])
    return both.rechunk() if both.n_chunks() > _MOST_CHUNKS else both
