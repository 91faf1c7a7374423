"""What runs beside a running agent: one thread reports on it, one revives what has died."""

from __future__ import annotations

from collections.abc import Callable

from schemas.errors import RetryableError
from streaming.batch.late_answers import LateAnswers
from streaming.batch.topic_watch import TopicWatch
from streaming.kafka.open_transactions import waiting_for
from streaming.run.observer import UNOBSERVED_RUN, RunObserver
from streaming.run.progress import Progress
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker, cause_of

_REPORT_SECONDS = 1.0


class RunReporter:
    """Tells once a second how far behind the stream is, and what late answers have come.

    Args:
        settle: called as often.
        trouble: says what keeps models from answering, None where nothing does.
        check: called as often, to see what a quiet topic would hide.
        observer: learns how far behind the stream is.
    """

    def __init__(
        self,
        watch: TopicWatch,
        late: LateAnswers | None,
        display: Progress,
        health: Health,
        settle: Callable[[], None],
        trouble: Callable[[], str | None],
        check: Callable[[], None] = lambda: None,
        observer: RunObserver = UNOBSERVED_RUN,
    ) -> None:
        self._observer = observer
        self._watch, self._late, self._display, self._health = watch, late, display, health
        self._settle, self._trouble, self._check = settle, trouble, check

    def round(self) -> float:
        """Tell once; return the seconds until the next time."""
        self._settle()
        self._show_late()
        self._check()
        self._health.update(Condition.MODEL_FAILING, self._trouble())
        try:
            unread, held = self._watch.unread_by_partition(), self._watch.open_transactions()
        except RetryableError as fault:
            self._health.begins(Condition.BROKER_AWAY, cause_of(fault))
        else:
            self._health.ends(Condition.BROKER_AWAY)
            self._observer.unread(unread)
            self._display.lag(sum(count for within in unread.values() for count in within.values()))
            self._health.update(Condition.TRANSACTION_OPEN, waiting_for(held))
        return _REPORT_SECONDS

    def close(self) -> None:
        """Tell a last time what late answers have come."""
        self._show_late()

    def _show_late(self) -> None:
        if self._late is not None:
            self._display.late(self._late.totals)


class RunWorkers:
    """The two threads beside a running agent: one reports, one revives what has died."""

    def __init__(self, report: RunReporter, revive: Callable[[], float], health: Health) -> None:
        self._report = report
        self._workers = (
            Worker("progress", report.round, Condition.PROGRESS_FAILING, health, fatal=()),
            Worker("services", revive, Condition.MODEL_AWAY, health, fatal=()),
        )

    def __enter__(self) -> RunWorkers:
        """Start both."""
        for each in self._workers:
            each.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End both, and report a last time."""
        for each in self._workers:
            each.ask_to_end()
        for each in self._workers:
            each.close()
        self._report.close()
