"""One route at work: takes alerts in order, has each delivered, and only then moves on."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from agent.model.circuit_breaker import CircuitBreaker
from schemas.instants import Clock, utc_now
from streaming.consume.received import PassedRecord, Received
from streaming.consume.revisions import NewestRevisions
from streaming.notify.case_changes import CASES, CaseRecord
from streaming.notify.notices import Notice, is_whole
from streaming.notify.opening import OpenRoute
from streaming.notify.outcomes import DeliveryOutcome
from streaming.notify.state import RouteState, SetAside, StateFile
from streaming.output.log import log
from streaming.service.worker import pause_after

_LONGEST_PAUSE = 30.0
_CHECK_SECONDS = 0.2  # at most, before a lane sees that it is to close, or that its rest is over


Delivered = Received | CaseRecord
Record = Delivered | PassedRecord


class AlertSource(Protocol):
    """Where a lane takes alerts from, or changes of cases; see PlacedReader and CaseChangeReader."""

    def ends(self) -> dict[int, int]:
        """Return where each partition ends now."""

    def begin(self, places: Mapping[int, int]) -> dict[int, int]:
        """Read on from these places; return where reading begins."""

    def fetch(self) -> Sequence[Record]:
        """Return what has come; alerts of other agents are passed over."""

    def has_grown(self) -> bool:
        """Say whether there are partitions that are not read."""

    def close(self) -> None:
        """Let go of the broker."""


class RouteLane:
    """The alerts of one route on their way, one after the other.

    Args:
        opened: the route and its receiver.
        agent: whose alerts they are, for what is logged.
        topic: that they are read from.
        state: of the route.
        source: opens the topic; called again after a fault.
        closing: whether no further delivery should begin.
        clock: seconds of a clock that never goes back.
        now: the current time in UTC.
    """

    def __init__(
        self,
        opened: OpenRoute,
        agent: str,
        topic: str,
        state: StateFile,
        source: Callable[[], AlertSource],
        closing: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
        now: Clock = utc_now,
    ) -> None:
        self._route, self._receiver = opened.route, opened.receiver
        self._agent, self._topic, self._file, self._open = agent, topic, state, source
        self._closing, self._clock, self._now = closing, clock, now
        self._source: AlertSource | None = None
        self._state = RouteState(topic)
        self._waiting: deque[tuple[Record, bool]] = deque()
        self._newest = NewestRevisions()
        self._circuit = CircuitBreaker(clock=clock)
        self._failures, self._not_before = 0, 0.0

    @property
    def state(self) -> RouteState:
        """How far it has come."""
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether it reads alerts."""
        return self._source is not None

    def begin(self) -> None:
        """Open the topic where the route was; a new one begins as its configuration says.

        Raises:
            FlagstreamError: broker or store do not answer, or the state cannot be used.
        """
        self._let_go()
        source = self._source = self._open()
        self._state = self._known(source)
        self._newest = NewestRevisions()
        self._read_on(source)

    def _known(self, source: AlertSource) -> RouteState:
        """Return the state on record; one that is new, or was changed, is recorded before all else.

        How long a receiver has failed is counted anew: while nobody asked it, it may have worked.
        """
        known = self._file.read()
        if known is not None and known.topic == self._topic:
            begun = known.begun_anew()
        elif known is not None and CASES not in (known.topic, self._topic):
            begun = replace(known.begun_anew(), topic=self._topic, places={})
        else:  # new, or of another kind: what was before is not what it was made for
            first = source.ends() if self._route.begins == "newest" else {}
            begun = replace(known or RouteState(""), topic=self._topic, places=first).begun_anew()
        if begun != known:
            self._file.write(begun)
        return begun

    def round(self) -> float:
        """Deliver what waits or has come; return the seconds until the next round.

        Raises:
            FencedError: another process delivers for this route.
            RetryableError: broker or store do not answer.
        """
        source = self._source
        assert source is not None, "begin comes first"
        if not self._waiting:
            self._take(source)
        before = self._state
        while self._waiting and not self._closing():
            pause = self._rest() or self._handle(*self._waiting[0])
            if pause:
                self._keep(before)
                return pause
            self._waiting.popleft()
        self._keep(before)
        return 0.0

    def close(self) -> None:
        """Let go of broker and receiver; what has not arrived is read again next time."""
        self._let_go()
        self._receiver.close()

    def _let_go(self) -> None:
        self._waiting.clear()
        if self._source is not None:
            self._source.close()
            self._source = None

    def _read_on(self, source: AlertSource) -> None:
        begins = source.begin(self._state.places)
        back = {each: at for each, at in begins.items() if at < self._state.places.get(each, at)}
        if back:  # what was read was set back; on record before more comes, which would hide that
            self._state = replace(self._state, places={**self._state.places, **back})
            self._file.write(self._state)
        gone = [each for each, place in self._state.places.items() if begins.get(each, place) > place]
        for each in gone:
            log(
                "alerts_gone", "the topic has lost alerts before they were delivered", level=logging.WARNING,
                agent=self._agent, route=self._route.name, partition=each,
                records=begins[each] - self._state.places[each],
            )  # fmt: skip

    def _take(self, source: AlertSource) -> None:
        fetched = source.fetch()
        self._waiting.extend(zip(fetched, self._newest.among(fetched), strict=True))
        if not fetched and source.has_grown():
            self._read_on(source)

    def _handle(self, record: Record, is_newest: bool) -> float:
        """Have one record done; return the seconds to wait where it is not."""
        if isinstance(record, PassedRecord):
            self._pass_over(record, unread=record.no_alert)
            return 0.0
        notice = _notice_of(record)
        # A route of first revisions takes those that have been replaced: it takes no others.
        stands = is_newest or isinstance(record, CaseRecord) or self._route.when.revisions == "first"
        if notice is None or not stands or not notice.is_wanted(self._route.when):
            self._pass_over(record, unread=notice is None)
            return 0.0
        return self._sent(record, replace(notice, had=self._state.had.get(notice.message_id, ())))

    def _pass_over(self, record: Record, *, unread: bool) -> None:
        if unread and isinstance(record, Received):
            log(
                "alert_unread", "an alert that lacks fields which a notice needs is passed over",
                level=logging.WARNING, agent=self._agent, route=self._route.name,
                record=f"{self._topic}/{record.partition}/{record.offset}",
            )  # fmt: skip
        done = self._state.over_unread if unread else self._state.past
        self._state = done(record.partition, record.offset)

    def _sent(self, received: Delivered, notice: Notice) -> float:
        outcome = self._receiver.deliver(notice)
        if outcome.became == "delivered":
            return self._delivered(received, notice)
        if outcome.became == "failed":
            return self._failed(received, notice, outcome)
        self._recovered(self._without(received, notice, outcome.said, None))
        return 0.0

    def _delivered(self, received: Delivered, notice: Notice) -> float:
        if self._state.failing_since is not None:
            log("route_works", "a receiver takes alerts again", agent=self._agent, route=self._route.name)
        self._recovered(self._state.arrived(notice.message_id, received.partition, received.offset))
        return 0.0

    def _without(
        self, received: Delivered, notice: Notice, said: str, failing_since: str | None
    ) -> RouteState:
        """Return the state with an alert set aside, and say so."""
        at = self._now().isoformat(timespec="seconds")
        lost = SetAside(notice.message_id, received.partition, received.offset, said, at)
        log(
            "alert_set_aside", f"an alert will not be delivered: {said}", level=logging.WARNING,
            agent=self._agent, route=self._route.name, message_id=notice.message_id,
        )  # fmt: skip
        return self._state.without(lost, failing_since)

    def _recovered(self, state: RouteState) -> None:
        self._file.write(state)
        self._state, self._failures = state, 0
        self._circuit.note(healthy=True)

    def _failed(self, received: Delivered, notice: Notice, outcome: DeliveryOutcome) -> float:
        if self._state.failing_since is None or self._state.said != outcome.said:
            log(
                "route_fails", f"a receiver does not take alerts: {outcome.said}", level=logging.WARNING,
                agent=self._agent, route=self._route.name,
            )  # fmt: skip
        failing = self._state.failing(outcome.said, self._now()).reached(notice.message_id, outcome.had)
        self._failures += 1
        self._circuit.note(healthy=False)
        rest = max(pause_after(self._failures, _LONGEST_PAUSE), outcome.retry_after)
        self._not_before = self._clock() + rest
        if given_up := self._is_given_up(notice, failing):
            failing = self._without(received, notice, outcome.said, failing.failing_since)
        if failing != self._state:
            self._file.write(failing)
            self._state = failing
        return 0.0 if given_up else self._rest()

    def _is_given_up(self, notice: Notice, failing: RouteState) -> bool:
        """Say whether an alert is too old, counted from when its receiver began to fail at the earliest."""
        assert failing.failing_since is not None, "it fails"
        since = max(notice.made_at, datetime.fromisoformat(failing.failing_since))
        return self._now() - since >= self._route.give_up_after

    def _rest(self) -> float:
        """Return for how long nothing is sent, in steps that can be ended; 0 where something may be."""
        left = self._not_before - self._clock()
        if left > 0:
            return min(left, _CHECK_SECONDS)
        return 0.0 if self._circuit.closed or self._circuit.trial_due else _CHECK_SECONDS

    def _keep(self, before: RouteState) -> None:
        """Put on record what was passed over; what was delivered is already."""
        if self._state.places != before.places and self._file.written != self._state:
            self._file.write(self._state)


def _notice_of(record: Delivered) -> Notice | None:
    """Return what a record makes; None of an alert that lacks something."""
    if isinstance(record, CaseRecord):
        return record.notice
    return Notice.of(record) if is_whole(record.alert) else None
