"""The case book: all that people see of cases, and do to them.

An action says which version of a case its author has seen; where the case has changed since, nothing is
written. What happens to alerts and rules is no matter of it: it reads what the agent has written.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl

from schemas.errors import RetryableError
from schemas.instants import Clock, utc_now
from streaming.cases.actions import NoSuchCaseError
from streaming.cases.alert_intake import AlertIntake
from streaming.cases.case_store import CaseStore
from streaming.cases.case_writer import CaseAuthor, CaseWriter, MassUpdate
from streaming.cases.changes import changes_of
from streaming.cases.choosing import LIVE_CASES, CaseFilter, CaseState, facets_of, page_of
from streaming.cases.closing_labels import ClosingLabels
from streaming.cases.orders import Order
from streaming.cases.refunds import RefundAlerts
from streaming.cases.timeline import timeline_of
from streaming.delta.lake_reader import HasLake, LakeReader
from streaming.labels.book import LabelBook

_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class CasePage:
    """Some cases of those that are meant.

    Attributes:
        cases: most urgent first.
        total: how many are meant in all.
        after: where the next page begins, None at the end.
        facets: how many of all that are meant there are by status, severity, assignee, kind and reason.
    """

    cases: tuple[CaseState, ...]
    total: int
    after: str | None
    facets: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Undone:
    """What became of an action that was taken back.

    Attributes:
        case: the case as it is now.
        cases: the ids of all that it was done to.
    """

    case: CaseState
    cases: tuple[str, ...]


class CaseBook:
    """The cases of one agent. Safe to use from several threads, and beside other processes.

    Each method raises RetryableError where another thread is at it for long: a store that does not answer
    keeps no thread but the first.

    Args:
        agent: its spec says how alerts become cases.
        clock: current time in UTC; leases and deadlines go by it.
    """

    def __init__(self, agent: HasLake, clock: Clock = utc_now) -> None:
        reader, kept = LakeReader.of(agent), agent.spec.replay_horizon
        labels = reader.place("labels")
        self._clock, self._lock = clock, threading.RLock()
        self._store = CaseStore(reader.place("case_events"), kept, RefundAlerts(reader).places)
        self._intake = AlertIntake(reader, agent.spec, self._store)
        self._writer = CaseWriter(self._store, agent.spec.cases, clock)
        self._labels = ClosingLabels(
            self._store, lambda: LabelBook(labels, retention=kept, clock=clock), clock
        )

    def refresh(self) -> int:
        """See what others have done since; return the number of the event to come, which grows with each."""
        with self._held():
            self._store.refresh()
            return self._store.memory.next_number

    def group(self) -> int:
        """Bring cases up to the alerts there are, and labels up to closed cases; return how many alerts.

        Whoever shows cases calls it now and then. Of several processes at once one groups an alert.

        Raises:
            FlagstreamError: the lake cannot be read or written.
        """
        with self._held():
            self._store.refresh()
            count = self._intake.group(self._clock())
            self._labels.write()
            return count

    def page(self, wanted: CaseFilter = LIVE_CASES, limit: int = 50, after: str | None = None) -> CasePage:
        """Return the cases that are meant as they are now, as of the last refresh.

        Raises:
            ConfigurationError: `after` is nothing that an earlier page of this filter has given.
        """
        with self._held():
            found = wanted.of(self._writer.now())
        some, following = page_of(found, wanted, limit, after)
        states = tuple(CaseState.of(row) for row in some.iter_rows(named=True))
        return CasePage(states, found.height, following, facets_of(found))

    def case(self, case_id: str) -> CaseState:
        """Return one case.

        Args:
            case_id: its id, or the first characters of it where no other begins so.

        Raises:
            NoSuchCaseError: there is none, or several.
        """
        with self._held():
            name = self._named(case_id)
            now = self._writer.now()
        return CaseState.of(now.row(by_predicate=pl.col("case_id") == name, named=True))

    def changes(
        self, first: int, wanted: Collection[str], most: int = 64, case_id: str | None = None
    ) -> list[dict[str, Any]]:
        """Return changes of cases from a number on, oldest first, as of the last refresh; see changes_of."""
        with self._held():
            return changes_of(self._store.memory, first, wanted, most, case_id)

    def timeline(self, case_id: str) -> list[dict[str, Any]]:
        """Return what has happened to a case and those merged into it, oldest first; see timeline_of.

        Raises:
            NoSuchCaseError: see case.
        """
        with self._held():
            events = self._store.memory.of(self._named(case_id))
        return timeline_of(*events)

    def alerts_of(self, case_id: str) -> pl.DataFrame:
        """Return the alerts of a case, each as its newest revision has it, by outbox_seq.

        Raises:
            NoSuchCaseError: see case.

        Returns:
            The columns of case_frames.MEMBERS.
        """
        with self._held():
            return self._store.memory.alerts_in(self._named(case_id))

    def cases_of_alerts(self, alert_ids: Sequence[str]) -> dict[str, str | None]:
        """Return the case that each of some alerts belongs to now, None where it was not grouped yet."""
        with self._held():
            self._store.refresh()
            found = self._store.memory.homes_of_alerts(alert_ids)
        return {each: found.get(each) for each in alert_ids}

    def attachment(self, case_id: str, digest: str) -> bytes:
        """Return the content of a file that is kept with a case.

        Raises:
            NoSuchCaseError: no such file is kept with the case, or an erasure has removed it.
        """
        with self._held():
            moves, _ = self._store.memory.of(self._named(case_id))
            kept = moves.filter((pl.col("event") == "attached") & (pl.col("digest") == digest))
            content = self._store.content(int(kept["number"][0])) if kept.height else None
        if content is None:
            raise NoSuchCaseError("no such file is kept with the case", where=case_id)
        return content

    def act(
        self, case_id: str, order: Order, who: str, seen: int | None = None, key: str | None = None
    ) -> CaseState:
        """Carry out an order on one case and return what has become of it.

        Args:
            case_id: its id, or the first characters of it.
            order: what is to be done.
            who: does it.
            seen: the version that `who` has seen, None for whichever; see CaseState.
            key: an action under it is done once (an Idempotency-Key).

        Raises:
            NoSuchCaseError: there is no such case.
            CaseChangedError: it has changed since.
            CaseRefusedError: it is in no state for that; says why.
            ConfigurationError: the order cannot be used.
            RetryableError: the lake cannot be written now.
        """
        with self._held():
            name = self._named(case_id)
            self._writer.act(name, order, CaseAuthor(who, seen, key))
            self._labels.write()
            return self.case(name)

    def claim_next(
        self, who: str, wanted: CaseFilter = LIVE_CASES, key: str | None = None
    ) -> CaseState | None:
        """Take the most urgent case that nobody has, and return it; None where there is none.

        Raises:
            ConfigurationError: `who` is no name.
            RetryableError: the lake cannot be written now.
        """
        with self._held():
            taken = self._writer.claim_next(wanted, CaseAuthor(who, key=key))
            return None if taken is None else self.case(taken)

    def undo(self, case_id: str, who: str, seen: int | None = None, key: str | None = None) -> Undone:
        """Take back the last action on a case, on all cases that it was done to.

        Raises:
            CaseRefusedError: it cannot be taken back, or something was done to one of these cases since.
            FlagstreamError: see act.
        """
        with self._held():
            name = self._named(case_id)
            cases = self._writer.undo(name, CaseAuthor(who, seen, key))
            return Undone(self.case(name), cases)

    def mass(
        self,
        wanted: CaseFilter,
        order: Order,
        who: str,
        *,
        dry_run: bool,
        expected: int | None = None,
        key: str | None = None,
    ) -> MassUpdate:
        """Carry out an order on all cases that are meant, in one commit; those that it is refused for stay.

        Args:
            wanted: which cases are meant.
            order: what is to be done to each.
            who: does it.
            dry_run: only say what it would come to.
            expected: how many cases are to be changed, as a dry run has said.
            key: see act.

        Raises:
            ConflictError: other than `expected` would be changed.
            FlagstreamError: see act.
        """
        with self._held():
            done = self._writer.mass(
                wanted, order, CaseAuthor(who, key=key), dry_run=dry_run, expected=expected
            )
            if not dry_run:
                self._labels.write()
            return done

    @contextmanager
    def _held(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=_WAIT_SECONDS):
            raise RetryableError("cases are still being read or written: ask again soon")
        try:
            yield
        finally:
            self._lock.release()

    def _named(self, case_id: str) -> str:
        self._store.refresh()
        return self._writer.whole(case_id)
