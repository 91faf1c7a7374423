"""Holds the record of who runs an agent, for the length of a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

from schemas.errors import RetryableError
from streaming.home.placed_agent import PlacedAgent
from streaming.service.health import Condition, Health
from streaming.service.supervisor import Need, Supervisor
from streaming.service.worker import Worker, cause_of
from streaming.store.files import Files
from streaming.store.opening import files_of
from streaming.store.owner import BEAT_SECONDS, TAKEOVER_SECONDS, Owner
from streaming.store.store_check import require_atomic

_PATIENCE_SECONDS = 60.0


class Ownership:
    """What one run does with the record: waits for it, keeps its counter moving, gives it up.

    Args:
        owner: this process.
        health: hears when the counter cannot be moved.
        files: where the record lies.
        taken: called once the record is this run's.
    """

    def __init__(
        self, owner: Owner, health: Health, files: Files, taken: Callable[[], None] = lambda: None
    ) -> None:
        self._owner, self._health, self._files, self._taken = owner, health, files, taken
        self._worker: Worker | None = None

    @classmethod
    def of(cls, agent: PlacedAgent, health: Health, takeover: float = TAKEOVER_SECONDS) -> Ownership:
        """Return that of an agent.

        Args:
            takeover: seconds for which the counter of another run has to stand still.
        """
        files = files_of(agent.settings.owners)
        owner = Owner(files, agent.name, agent.settings.owner_locks, takeover=takeover)
        return cls(owner, health, files, lambda: health.keep_in(agent.settings.health(agent.name)))

    def waits_for(self) -> str | None:
        """Take the record where that may be; else say who holds it, or why it cannot be read.

        Raises:
            ConfigurationError: nobody has kept a record there before, and the store lets several write at
                once where one may.
            FencedError: another run has taken it from this one.
        """
        self.check()
        try:
            self._try_new_store()
            cause = self._owner.waits_for()
        except (RetryableError, OSError) as fault:
            return cause_of(fault)
        if cause is None and self._worker is None:
            # A longer pause than a beat would let others take over as soon as the store is back.
            beat, failing = self._owner.beat, Condition.OWNER_FAILING
            self._worker = Worker("owner", beat, failing, self._health, longest_pause=BEAT_SECONDS)
            self._worker.start()
            self._taken()
        return cause

    def _try_new_store(self) -> None:
        if not (self._files.place.is_local or self._owner.holds or self._files.names()):
            require_atomic(self._files.place)

    def check(self) -> None:
        """Raise what has ended this run's hold on the agent.

        Raises:
            FencedError: another run has taken the record.
        """
        if self._worker is not None:
            self._worker.check()

    def close(self) -> None:
        """Give the record up."""
        if self._worker is not None:
            self._worker.close()
        self._owner.release()


@contextmanager
def owned(agent: PlacedAgent) -> Iterator[None]:
    """Hold the record for the length of a block.

    Raises:
        RetryableError: somebody else has held it for a minute, and still does.
    """
    health = Health()
    with closing(Ownership.of(agent, health)) as ownership:
        needs = [Need(Condition.ANOTHER_RUN, ownership.waits_for)]
        Supervisor(needs, health, threading.Event(), patience=_PATIENCE_SECONDS).run(lambda: None)
        yield
        ownership.check()
