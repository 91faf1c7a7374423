"""What whoever watches a run gets to know of it; `streaming.observe` does, where metrics or traces are on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Protocol

from agent.model.call_watch import CallWatch, unwatched
from schemas.spec import AgentSpec
from streaming.batch.observer import UNOBSERVED, BatchObserver
from streaming.batch.stream_settings import Offsets
from streaming.run.executors import ClusterFacts
from streaming.run.opening import Agent
from streaming.service.health import Health

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

Breakers = Callable[[], dict[str, bool]]


class RunObserver(Protocol):
    """Watches a run, from before its agent is opened to after it is closed.

    Attributes:
        batches: watches its batches.
        calls: learns of each request to a model.
    """

    batches: BatchObserver
    calls: CallWatch

    def begins(self, health: Health, breakers: Breakers) -> None:
        """The run begins; its agent is not claimed yet.

        Args:
            health: what its parts say they suffer from.
            breakers: says of each model whether it is left alone just now.
        """

    def working(self, agent: Agent, spec: AgentSpec) -> AbstractContextManager[None]:
        """The agent is claimed, and its query runs until the block is left."""

    def looped(self) -> None:
        """The run's own thread has done another round."""

    def unread(self, lag: Offsets) -> None:
        """So many records are unread, by topic and partition."""

    def on_cluster(self, session: SparkSession, holds: ClusterFacts) -> None:
        """Executors of this session's cluster do part of the work from now on.

        Args:
            session: of the cluster.
            holds: which buckets they hold, kept up to date.
        """

    def executors(self, count: int) -> None:
        """So many executors work for the agent."""


class UnobservedRun:
    """Nobody watches."""

    batches: BatchObserver = UNOBSERVED
    calls: CallWatch = staticmethod(unwatched)

    def begins(self, health: Health, breakers: Breakers) -> None:
        """See RunObserver."""

    def working(self, *_: object, **__: object) -> AbstractContextManager[None]:
        """See RunObserver."""
        return nullcontext()

    def looped(self) -> None:
        """See RunObserver."""

    def unread(self, lag: Offsets) -> None:
        """See RunObserver."""

    def on_cluster(self, *_: object) -> None:
        """See RunObserver."""

    def executors(self, count: int) -> None:
        """See RunObserver."""


UNOBSERVED_RUN = UnobservedRun()
