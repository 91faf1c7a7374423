"""Carries orders out: each is decided on all that was written before it, and is one commit.

Of two people at once one is decided first, and the other on what that has left. An action under a `key` has
the same id whenever it is asked for, and is done once.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from schemas.cases import CaseSettings
from schemas.errors import ConflictError
from schemas.instants import Clock
from streaming.cases.actions import (
    Actor,
    CaseAction,
    CaseChangedError,
    CaseRefusedError,
    NoSuchCaseError,
    irrevocable,
    undo,
)
from streaming.cases.case_store import NOTHING, CaseStore
from streaming.cases.choosing import CaseFilter, as_of, most_urgent_first
from streaming.cases.orders import Order

_ACTION_BYTES, _SHORTEST_ID = 12, 4


@dataclass(frozen=True)
class CaseAuthor:
    """Who asks for an action.

    Attributes:
        who: their name.
        seen: the version of the case that they have seen, None for whichever.
        key: under which the action is done once, None to do it each time.
    """

    who: str
    seen: int | None = None
    key: str | None = None

    def action_id(self) -> str:
        """Return the id of the action: the same for the same author and key, else a new one."""
        if self.key is None:
            return secrets.token_hex(_ACTION_BYTES)
        return hashlib.sha256(f"{self.who}\n{self.key}".encode()).hexdigest()[: 2 * _ACTION_BYTES]


@dataclass(frozen=True)
class MassUpdate:
    """What an order has come to, or would come to, over many cases.

    Attributes:
        meant: how many cases the filter fits.
        changed: how many of them were changed, or would be.
        refused: why the others were not → how many, the commonest first.
        cases: the ids of those that were changed; none of those that only would be.
    """

    meant: int
    changed: int
    refused: Mapping[str, int] = field(default_factory=dict)
    cases: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseWriter:
    """Writes what people do to cases.

    Attributes:
        store: the events so far.
        settings: the spec's.
        clock: current time in UTC.
    """

    store: CaseStore
    settings: CaseSettings
    clock: Clock

    def now(self, moment: datetime | None = None) -> pl.DataFrame:
        """Return all cases as they are now; see choosing.as_of."""
        return as_of(self.store.memory.cases, self.settings.deadlines, moment or self.clock())

    def whole(self, case_id: str) -> str:
        """Return the whole id of a case that is named by its first characters.

        Raises:
            NoSuchCaseError: none begins so, or several do.
        """
        ids = self.store.memory.cases["case_id"]
        found = ids.filter(ids == case_id)
        if len(found) == 0 and len(case_id) >= _SHORTEST_ID:
            found = ids.filter(ids.str.starts_with(case_id))
        if len(found) != 1:
            raise NoSuchCaseError(
                "several cases begin so" if len(found) else "there is no such case", where=case_id
            )
        return str(found[0])

    def act(self, case_id: str, order: Order, author: CaseAuthor) -> None:
        """Carry out an order on one case; see book.CaseBook.act."""
        self.store.refresh()
        into = self.whole(order.into) if order.what == "merge" else None
        self._write([case_id], lambda by: order.within(into).action(by, self.settings), author, into)

    def undo(self, case_id: str, author: CaseAuthor) -> tuple[str, ...]:
        """Take back the last action on a case; return those it was done to. See book.CaseBook.undo."""
        self.store.refresh()
        memory = self.store.memory
        last = memory.cases.filter(pl.col("case_id") == case_id)["last_action"][0] or ""
        names = dict.fromkeys([case_id, *memory.moves.filter(pl.col("action") == last)["case_id"]])
        self._write(list(names), lambda _: undo(last, irrevocable()), author)
        done_before = self._done(author.action_id()) if author.key else ()
        return tuple(done_before or names)

    def claim_next(self, wanted: CaseFilter, author: CaseAuthor) -> str | None:
        """Take the most urgent case that nobody has; see book.CaseBook.claim_next."""
        taken: list[str] = []

        def decide() -> pl.DataFrame:
            by, action_id = Actor(author.who, self.clock()), author.action_id()
            taken[:] = self._done(action_id)
            free = wanted.of(self.now(by.now)).filter(
                pl.col("assignee").is_null(), pl.col("status") == "open"
            )
            first = most_urgent_first(free).head(0 if taken else 1)
            taken.extend(first["case_id"])
            return rows_of(first, Order("claim").action(by, self.settings), action_id, by)

        self.store.write(decide)
        return taken[0] if taken else None

    def mass(
        self, wanted: CaseFilter, order: Order, author: CaseAuthor, *, dry_run: bool, expected: int | None
    ) -> MassUpdate:
        """Carry out an order on all cases that are meant; see book.CaseBook.mass."""
        self.store.refresh()
        into = self.whole(order.into) if order.what == "merge" else None
        outcome: list[MassUpdate] = []

        def decide() -> pl.DataFrame:
            by, action_id = Actor(author.who, self.clock()), author.action_id()
            known = self._done(action_id)
            if known:
                outcome[:] = [MassUpdate(len(known), len(known), cases=tuple(known))]
                return NOTHING
            action = order.within(into).action(by, self.settings)
            judged = wanted.of(self.now(by.now)).with_columns(action.refused.alias("refusal"))
            fits = judged.filter(pl.col("refusal").is_null())
            changed = () if dry_run else tuple(fits["case_id"])
            outcome[:] = [MassUpdate(judged.height, fits.height, _counted(judged["refusal"]), changed)]
            if expected is not None and fits.height != expected:
                raise ConflictError(f"{fits.height:,} cases would be changed now, not {expected:,}")
            return rows_of(fits, action, action_id, by, self._target(into))

        decide() if dry_run else self.store.write(decide)
        return outcome[0]

    def _write(
        self,
        names: list[str],
        action_of: Callable[[Actor], CaseAction],
        author: CaseAuthor,
        into: str | None = None,
    ) -> None:
        """Do something to all of some cases, or to none; `seen` is about the first."""

        def decide() -> pl.DataFrame:
            by, action_id = Actor(author.who, self.clock()), author.action_id()
            if self._done(action_id):
                return NOTHING
            action = action_of(by)
            meant = self.now(by.now).filter(pl.col("case_id").is_in(names))
            judged = meant.with_columns(action.refused.alias("refusal"))
            self._check_seen(judged, names[0], author.seen)
            for case_id, refusal in judged.select("case_id", "refusal").drop_nulls().iter_rows():
                raise CaseRefusedError(f"case {case_id}: {refusal}")
            return rows_of(judged, action, action_id, by, self._target(into))

        self.store.write(decide)

    def _check_seen(self, judged: pl.DataFrame, case_id: str, seen: int | None) -> None:
        found = judged.filter(pl.col("case_id") == case_id)["version"]
        if len(found) == 0:
            raise NoSuchCaseError("there is no such case", where=case_id)
        if seen is not None and found[0] != seen:
            said = f"case {case_id} has changed since: it is at version {found[0]}, not {seen}"
            raise CaseChangedError(said)

    def _target(self, into: str | None) -> pl.DataFrame | None:
        """Return the case that others are merged into.

        Raises:
            CaseRefusedError: it takes none.
        """
        if into is None:
            return None
        found = self.store.memory.cases.filter(pl.col("case_id") == into)
        if found["status"].to_list() not in (["open"], ["closing"]):
            raise CaseRefusedError(f"case {into}: it is {', '.join(found['status'])}")
        return found

    def _done(self, action_id: str) -> list[str]:
        """Return the cases that an action was done to already."""
        moves = self.store.memory.moves
        return moves.filter(pl.col("action") == action_id)["case_id"].to_list()


def rows_of(
    cases: pl.DataFrame, action: CaseAction, action_id: str, by: Actor, into: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Return what an action writes for some cases, and for the case that they are merged into."""
    given = {
        "event": action.event,
        "action": pl.lit(action_id),
        "at": pl.lit(by.now),
        "who": pl.lit(by.who),
        **action.values,
    }
    own = cases.select("case_id", "entity", "entity_id", *(each.alias(name) for name, each in given.items()))
    if into is None or own.height == 0:
        return own
    target = into.select("case_id", "entity", "entity_id")
    sources = own.select("event", "action", "at", "who", pl.col("case_id").alias("other"))
    return pl.concat(
        [own, target.join(sources.with_columns(event=pl.lit("absorbed")), how="cross")], how="diagonal"
    )


def _counted(refusals: pl.Series) -> dict[str, int]:
    return dict(refusals.drop_nulls().value_counts(sort=True).iter_rows())
