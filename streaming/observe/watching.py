"""Has a run watched where the settings ask for metrics or traces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from agent.audit.events import AuditLog
from agent.model.call_watch import CallWatch, unwatched
from schemas.batch_key import BatchKey
from streaming.batch.queries import newest_of_the_stream
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.run.observer import UNOBSERVED_RUN, RunObserver

if TYPE_CHECKING:
    from streaming.observe.traces import Traces


@contextmanager
def observing(settings: Settings, agent: str) -> Iterator[RunObserver]:
    """Yield who watches a run of an agent; nobody where the settings ask for nothing.

    Raises:
        MachineError: metrics cannot be served where the settings say.
    """
    if settings.metrics is None and settings.traces is None:
        yield UNOBSERVED_RUN
        return
    from streaming.observe.observation import observed  # noqa: PLC0415 -- loaded where it is asked for

    with observed(settings, agent) as observation:
        yield observation


class UntracedRun:
    """A planned run that nobody watches."""

    calls: CallWatch = staticmethod(unwatched)

    def audit(self, log: AuditLog) -> AuditLog:
        """Return the log in which its events are recorded."""
        return log


class TracedRun:
    """A planned run whose actions and requests are shown as a trace.

    Args:
        traces: where spans go.
        about: the newest batch when it began.
    """

    def __init__(self, traces: Traces, about: BatchKey | None) -> None:
        self._traces, self._about, self.calls = traces, about, traces.call

    def audit(self, log: AuditLog) -> AuditLog:
        """Return the log in which its events are recorded."""
        from streaming.observe.action_traces import TracedAudit  # noqa: PLC0415 -- as above

        return TracedAudit(log, self._traces, self._about)


@contextmanager
def watching_run(agent: PlacedAgent, run_id: str) -> Iterator[UntracedRun | TracedRun]:
    """Yield what watches one planned run of an agent; nothing does where the settings ask for no traces."""
    if agent.settings.traces is None:
        yield UntracedRun()
        return
    from streaming.observe.action_traces import traced_run  # noqa: PLC0415 -- as above
    from streaming.observe.traces import open_traces  # noqa: PLC0415 -- as above

    traces = open_traces(agent.settings.traces, agent.name)
    try:
        with traced_run(traces, agent.name, run_id):
            yield TracedRun(traces, _newest_batch(agent))
    finally:
        traces.close()


def _newest_batch(agent: PlacedAgent) -> BatchKey | None:
    table = LakeReader.of(agent).table("batches")
    newest = None if table is None else newest_of_the_stream(table)
    return None if not newest else BatchKey(newest["query_id"], newest["batch_id"])
