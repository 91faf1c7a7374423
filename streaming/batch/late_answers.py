"""Asks the model about alerts that have already left, beside the stream; answers follow as revision 2.

Everything is derived from Delta: the windows (`late`), the alerts in them, the answers on record (`ledger`),
and which of these have become revisions (`alerts`). So a driver goes on where its predecessor ended, however
that was, and an answer takes the same lane as any alert: numbered, committed and published by the outbox.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pyarrow as pa
import pyarrow.compute as pc

from agent.late import Asked, Unanswered
from agent.triage import Triage, TriageResult
from streaming.batch.alerting import tell_faults
from streaming.batch.late_windows import (
    LateJournal,
    Window,
    answered_since,
    deferred,
    flagged_rows,
    next_window,
    revised,
    texts_of,
)
from streaming.batch.outbox import Outbox
from streaming.delta.lake import Lake, Stamp
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker

_ROUND_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0


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
        patience: how long an alert waits before it keeps its label.
        texts: free-text fields of transactions that the model may see.
    """

    patience: timedelta
    texts: tuple[str, ...]


@dataclass(frozen=True)
class _InHand:
    window: Window
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
        told: called after each round of questions with what came of them.
        clock: current time.
        spent_at: when tokens are spent, by the clock of the budget; `clock` unless given.
        reached: called after each step; crash tests inject a kill here.
        health: told when the work cannot go on.
    """

    def __init__(
        self,
        agent: str,
        lake: Lake,
        outbox: Outbox,
        abandon: Callable[[], None],
        settings: LateSettings,
        *,
        told: Callable[[TriageResult], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        spent_at: Callable[[], datetime] | None = None,
        reached: Callable[[LateStep], None] = lambda _: None,
        health: Health | None = None,
    ) -> None:
        self._lake, self._outbox, self._abandon = lake, outbox, abandon
        self._settings, self._told, self._clock, self._reached = settings, told, clock, reached
        self._app_id = f"{agent}/late"
        self._journal = LateJournal(lake.late, agent, spent_at or clock)
        self._in_hand: _InHand | None = None
        self._next, self._pause = 0, _ROUND_SECONDS
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
        """Stop without waiting for an answer; the next driver takes up what is pending."""
        self._worker.ask_to_end()
        self._abandon()
        self._worker.close()

    def _forget(self) -> None:
        """What a round that failed has left half-done is found again in Delta."""
        self._resumed, self._in_hand = False, None

    def _work(self) -> float:
        if self._anybody() is None:
            return _ROUND_SECONDS
        if not self._resumed:
            self._resume()
            self._resumed = True
        return self._round()

    def _resume(self) -> None:
        window, closed = self._journal.newest()
        self._next = window.end if closed else window.first
        if not closed:
            self._take(window, answered_since(self._lake.alerts, window.first))

    def _round(self) -> float:
        """Work for one round; return the seconds to wait before the next."""
        work = self._in_hand
        if work is None:
            return self._look()
        if self._clock() > work.until:
            work.unanswered.give_up()
        answered = work.unanswered.waiting == 0 or self._ask(work)
        if not self._worker.is_closing:
            self._close_if_settled(work)
        self._pause = 0.0 if answered else min(max(2 * self._pause, _ROUND_SECONDS), _LONGEST_PAUSE_SECONDS)
        return self._pause

    def _look(self) -> float:
        below = self._outbox.next_seq
        if self._next >= below:
            return _ROUND_SECONDS
        window = next_window(self._lake.alerts, self._next, below, frozenset(self._others))
        self._next = window.first
        if window.first < window.end:
            self._journal.opened(window, self._take(window, frozenset()))
        return 0.0

    def _take(self, window: Window, answered: frozenset[str]) -> int:
        alerts = deferred(self._lake.alerts.read("outbox_seq", window.first, window.end))
        texts = texts_of(self._lake.transactions, alerts, self._settings.texts)
        # A group is answered as a whole: without those that were, the others still make the same questions.
        rows = [row for row in flagged_rows(alerts, texts) if row.alert_id not in answered]
        until = pc.max(alerts["created_at"]).as_py() + self._settings.patience
        self._in_hand = _InHand(window, alerts, Unanswered(rows, self._asked_about(alerts)), until)
        return len(alerts)

    def _asked_about(self, alerts: pa.Table) -> Triage:
        """A window holds alerts of one version of these, or of none."""
        anybody = self._anybody()
        assert anybody is not None, "nothing is taken in hand before"
        return self._others.get(alerts["spec_version"][0].as_py(), anybody)

    def _anybody(self) -> Triage | None:
        return self._triage or next(iter(self._others.values()), None)

    def _ask(self, work: _InHand) -> bool:
        """Ask once; return whether answers came, which are then on Kafka."""
        asked = work.unanswered.ask()
        tell_faults(self._health, [asked.result])
        if asked.result.calls:
            self._journal.asked(work.window, asked.result)
            self._told(asked.result)
        self._count(asked)
        if asked.answers and not self._worker.is_closing:
            self._reached(LateStep.ANSWERED)
            self._hand_over(work, asked)
        return bool(asked.answers)

    def _hand_over(self, work: _InHand, asked: Asked) -> None:
        number = self._lake.alerts.last_batch(self._app_id) + 1
        self._outbox.append(revised(work.alerts, asked.answers, self._clock()), Stamp(self._app_id, number))
        self._reached(LateStep.REVISED)
        self._outbox.publish()
        self._reached(LateStep.SENT)

    def _close_if_settled(self, work: _InHand) -> None:
        if work.unanswered.waiting:
            return
        given_up = work.unanswered.given_up
        self._journal.closed(work.window, given_up)
        self._totals = replace(self._totals, given_up=self._totals.given_up + given_up)
        self._next, self._in_hand = work.window.end, None

    def _count(self, asked: Asked) -> None:
        totals, took = self._totals, asked.result
        self._totals = replace(
            totals,
            answered=totals.answered + len(asked.answers),
            calls=totals.calls + took.calls,
            tokens=totals.tokens + took.input_tokens + took.output_tokens,
        )
