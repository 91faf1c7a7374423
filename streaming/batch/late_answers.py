"""Asks the model about alerts that have already left, beside the stream; answers follow as revision 2.

Everything is derived from Delta: the windows (`late`), the alerts in them, the answers on record (`ledger`),
and which of these have become revisions (`alerts`). So a driver goes on where its predecessor ended, however
that was, and an answer takes the same lane as any alert: numbered, committed and published by the outbox.

Requests are under way side by side, each as long as the model needs. The next window is opened once nothing
of the open ones could be asked, and what is being asked takes longer than usual: like alerts of a busy time
are asked about together, and no group keeps others waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from agent.model.call_watch import asking_about
from agent.triage.inquiries import Collected
from agent.triage.late import Unanswered
from agent.triage.ledger import RecordedAnswer
from agent.triage.outcomes import Classification
from agent.triage.triage import Triage, TriageResult
from schemas.batch_key import BatchKey
from schemas.instants import Clock, later, utc_now
from streaming.batch.alerting import report_faults
from streaming.batch.late_windows import (
    LateJournal,
    LateWindow,
    answered_since,
    deferred,
    flagged_rows,
    next_window,
    revised,
    texts_of,
)
from streaming.batch.outbox import Outbox
from streaming.delta.lake import Lake
from streaming.delta.lake_table import Stamp
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker

_ROUND_SECONDS = 0.5
_MOST_WAITING = 20_000


class LateStep(StrEnum):
    """How far a late answer has come: on record, in `alerts`, or on Kafka."""

    ANSWERED = "answered"
    REVISED = "revised"
    SENT = "sent"


@dataclass(frozen=True)
class LateTotals:
    """What this driver's late questions brought and took."""

    answered: int = 0
    given_up: int = 0
    calls: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class LateSettings:
    """How late answers are sought.

    Attributes:
        patience: how long an alert waits before it keeps the classification by rules.
        texts: free-text fields of transactions that the model may see.
        max_bytes: of an alert on the topic.
    """

    patience: timedelta
    texts: tuple[str, ...]
    max_bytes: int


@dataclass(frozen=True)
class _OpenWindow:
    window: LateWindow
    alerts: pa.Table
    unanswered: Unanswered
    until: datetime


class LateAnswers:
    """One thread that works off the alerts that wait for the model, in outbox order.

    Args:
        agent: the agent's name.
        lake: the tables, claimed by this driver.
        outbox: the alerts lane, open before `start`.
        abandon: makes a question that is being asked come back at once.
        settings: how.
        on_answers: called after each round with what came of its questions, and with the keys in the ledger
            of those that are still being asked.
        clock: current time.
        spent_at: when tokens are spent, by the clock of the budget; `clock` unless given.
        reached: called after each step; crash tests inject a kill here.
        health: notified when the work cannot go on.
    """

    def __init__(
        self,
        agent: str,
        lake: Lake,
        outbox: Outbox,
        abandon: Callable[[], None],
        settings: LateSettings,
        *,
        on_answers: Callable[[Sequence[TriageResult], frozenset[str]], None] = lambda *_: None,
        clock: Clock = utc_now,
        spent_at: Clock | None = None,
        reached: Callable[[LateStep], None] = lambda _: None,
        health: Health | None = None,
    ) -> None:
        self._lake, self._outbox, self._abandon = lake, outbox, abandon
        self._settings, self._on_answers, self._clock, self._reached = settings, on_answers, clock, reached
        self._app_id = f"{agent}/late"
        self._journal = LateJournal(lake.late, agent, spent_at or clock)
        self._windows: list[_OpenWindow] = []
        self._asked: dict[int, Triage] = {}
        self._known: dict[str, RecordedAnswer] = {}
        self._next = 0
        self._totals = LateTotals()
        self._triage: Triage | None = None
        self._others: Mapping[str, Triage] = {}
        self._resumed, self._health = False, health or Health()
        self._worker = Worker(
            "late-answers",
            self._work,
            Condition.LATE_ANSWERS_FAILING,
            self._health,
            begin=self._forget,
        )

    @property
    def totals(self) -> LateTotals:
        """What has come of it so far."""
        return self._totals

    @property
    def waiting(self) -> int:
        """How many alerts have no answer yet: those of open windows, and all that no window holds yet."""
        return self._in_windows + max(self._outbox.next_seq - self._next, 0)

    @property
    def _in_windows(self) -> int:
        return sum(work.unanswered.waiting for work in tuple(self._windows))

    def ask_with(self, triage: Triage | None, beside: Mapping[str, Triage]) -> None:
        """Say who is asked from the next window on; until somebody is, alerts wait.

        Args:
            triage: None to go on with the one before.
            beside: who is asked instead about the alerts of single versions of the spec.
        """
        self._triage, self._others = triage or self._triage, beside

    def start(self) -> None:
        """Begin where the last driver ended."""
        self._worker.start()

    def check(self) -> None:
        """Raise what has ended the work for good.

        Raises:
            FlagstreamError: it has.
        """
        self._worker.check()

    def close(self) -> None:
        """Stop without waiting for an answer; the next driver takes up what is pending.

        What has come meanwhile is put on record first.
        """
        self._worker.ask_to_end()
        self._abandon()
        self._worker.close()
        with suppress(Exception):  # a table that takes nothing more: the next driver asks again
            for triage in self._asked.values():
                triage.inquiries.collect(0.0)

    def _forget(self) -> None:
        """What a round that failed has left half-done is found again in Delta."""
        self._resumed, self._windows, self._known = False, [], {}

    def _work(self) -> float:
        if self._anybody() is None:
            return _ROUND_SECONDS
        if not self._resumed:
            self._resume()
            self._resumed = True
        return self._round()

    def _resume(self) -> None:
        windows, self._next = self._journal.resume()
        if windows:
            answered = answered_since(self._lake.alerts, windows[0].first)
            for window in windows:
                self._take(window, answered)

    def _round(self) -> float:
        """Work for one round; return the seconds to wait before the next."""
        self._take_in(self._collected())
        if self._worker.is_closing:
            return 0.0
        for work in self._windows:
            if self._clock() > work.until:
                work.unanswered.give_up()
        self._close_settled()
        begun = self._begin()
        opened = self._has_room and self._open_next()
        return 0.0 if begun or opened or self._known or self._is_asking else _ROUND_SECONDS

    @property
    def _is_asking(self) -> bool:
        return any(triage.inquiries.keys for triage in self._asked.values())

    @property
    def _has_room(self) -> bool:
        """Whether more alerts may be opened: nobody else is kept waiting, and nothing grows without bound."""
        asked = [triage.inquiries for triage in self._asked.values()]
        free = not asked or any(each.room > 0 for each in asked)
        return free and not any(each.is_waited_for for each in asked) and self._in_windows < _MOST_WAITING

    def _collected(self) -> list[tuple[Triage, Collected]]:
        """Return what has come back, waiting for it for a moment where something is under way."""
        asked = list(self._asked.values())
        return [(each, each.inquiries.collect(_ROUND_SECONDS / len(asked))) for each in asked]

    def _take_in(self, collected: Sequence[tuple[Triage, Collected]]) -> None:
        """Put on record what requests took, and hand over what they brought."""
        self._note([each for triage, found in collected for each in self._results(triage, found)])
        given_up = frozenset(key for _, found in collected for key in found.given_up)
        answers = dict(self._known)
        for _, found in collected:
            answers.update(found.answers)
        if self._worker.is_closing or not (answers or given_up):
            return
        self._known = {}
        given = {work.window: work.unanswered.settle(answers, given_up) for work in self._windows}
        for work in self._windows:
            self._report_faults(work.unanswered)
        self._hand_over(given)

    def _report_faults(self, unanswered: Unanswered) -> None:
        groups = len(unanswered.cases)
        report_faults(self._health, [TriageResult((), faults=unanswered.faults, groups=groups)])

    def _results(self, triage: Triage, found: Collected) -> Iterator[tuple[LateWindow, TriageResult]]:
        """Yield what came of the questions of each window."""
        for window in dict.fromkeys(window for window, _ in found.outcomes):
            result = triage.result_of([outcome for owner, outcome in found.outcomes if owner == window])
            report_faults(self._health, [replace(result, faults=found.faults, groups=len(result.made))])
            yield window, result

    def _note(self, results: Sequence[tuple[LateWindow, TriageResult]]) -> None:
        """Put on record what each took; the audit log hears of all, though the journal take nothing more.

        Outcomes are collected once: what were lost here would stand in the audit log as never answered.
        """
        try:
            for window, result in results:
                self._count(window, result)
        finally:
            if results:
                asked = [each.inquiries.questions for each in self._asked.values()]
                self._on_answers([result for _, result in results], frozenset().union(*asked))

    def _count(self, window: LateWindow, result: TriageResult) -> None:
        if result.calls:
            self._journal.asked(window, result)
        self._totals = replace(
            self._totals,
            calls=self._totals.calls + result.calls,
            tokens=self._totals.tokens + result.input_tokens + result.output_tokens,
        )

    def _begin(self) -> int:
        """Begin what can be asked, the oldest window first; return the number of requests."""
        begun = 0
        for work in self._windows:
            triage = work.unanswered.triage
            busy = frozenset().union(*(each.inquiries.keys for each in self._asked.values()))
            self._asked[id(triage)] = triage
            with asking_about(_batches_of(work.alerts)):
                begun += triage.inquiries.begin(work.unanswered.cases, work.window, busy)
        return begun

    def _open_next(self) -> bool:
        """Open the next window, if there is one."""
        below = self._outbox.next_seq
        if self._next >= below:
            return False
        window = next_window(self._lake.alerts, self._next, below, frozenset(self._others))
        self._next = window.end
        if window.first < window.end:
            self._journal.opened(window, self._take(window, frozenset()))
        return True

    def _take(self, window: LateWindow, answered: frozenset[str]) -> int:
        alerts = deferred(self._lake.alerts.read("outbox_seq", window.first, window.end))
        texts = texts_of(self._lake.transactions, alerts, self._settings.texts)
        # A group is answered as a whole: without those that were, the others still make the same questions.
        rows = [row for row in flagged_rows(alerts, texts) if row.alert_id not in answered]
        until = later(pc.max(alerts["created_at"]).as_py(), self._settings.patience)
        unanswered = Unanswered(rows, self._asked_about(alerts))
        self._report_faults(unanswered)
        self._known.update(unanswered.recorded())
        self._windows.append(_OpenWindow(window, alerts, unanswered, until))
        return len(alerts)

    def _asked_about(self, alerts: pa.Table) -> Triage:
        """A window holds alerts of one version of these, or of none."""
        anybody = self._anybody()
        assert anybody is not None, "nothing is opened before"
        return self._others.get(alerts["spec_version"][0].as_py(), anybody)

    def _anybody(self) -> Triage | None:
        return self._triage or next(iter(self._others.values()), None)

    def _hand_over(self, given: Mapping[LateWindow, Mapping[str, Classification]]) -> None:
        """Publish what was answered, as one commit."""
        parts = [
            revised(work.alerts, given[work.window], self._clock(), self._settings.max_bytes)
            for work in self._windows
            if given.get(work.window)
        ]
        if not parts:
            return
        self._reached(LateStep.ANSWERED)
        number = self._lake.alerts.last_batch(self._app_id) + 1
        self._outbox.append(pa.concat_tables(parts), Stamp(self._app_id, number))
        self._reached(LateStep.REVISED)
        self._outbox.publish()
        self._reached(LateStep.SENT)
        count = sum(map(len, given.values()))
        self._totals = replace(self._totals, answered=self._totals.answered + count)

    def _close_settled(self) -> None:
        for work in self._windows:
            if work.unanswered.waiting == 0:
                self._journal.closed(work.window, work.unanswered.given_up)
                given_up = self._totals.given_up + work.unanswered.given_up
                self._totals = replace(self._totals, given_up=given_up)
        self._windows = [work for work in self._windows if work.unanswered.waiting]
        wanted = {id(work.unanswered.triage) for work in self._windows}
        self._asked = {
            name: each for name, each in self._asked.items() if name in wanted or each.inquiries.keys
        }


def _batches_of(alerts: pa.Table) -> Iterator[BatchKey]:
    """Yield the batches of alerts, each once."""
    pairs = zip(alerts["query_id"].to_pylist(), alerts["batch_id"].to_pylist(), strict=True)
    return (BatchKey(*each) for each in dict.fromkeys(pairs))
