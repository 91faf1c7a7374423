"""What an agent runs in: folders, broker, models, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streaming.batch.late_answers import LateStep
from streaming.batch.observer import UNOBSERVED, BatchObserver
from streaming.batch.steps import BatchStep
from streaming.home.settings import Settings
from streaming.kafka.outbox_record import OutboxRecord
from streaming.kafka.publish import Publisher
from streaming.profiles.entity_buckets import BucketPlace
from streaming.service.health import Health
from streaming.service.last_read import LastRead
from streaming.store.owner import TAKEOVER_SECONDS
from streaming.versions.clients import Clients


@dataclass(frozen=True)
class Hooks:
    """Seams for tests: called after each step, and before a publishing transaction commits.

    `publisher` makes what publishes, where that is not to be a broker's. `takeover_seconds` is how long the
    counter of another run has to stand still.
    """

    reached: Callable[[BatchStep], None] = lambda _: None
    before_commit: Callable[[Sequence[OutboxRecord]], None] = lambda _: None
    late_reached: Callable[[LateStep], None] = lambda _: None
    publisher: Callable[..., Publisher] | None = None
    takeover_seconds: float = TAKEOVER_SECONDS


@dataclass(frozen=True)
class Surroundings:
    """What an agent runs in.

    Attributes:
        bootstrap: address of the broker.
        clients: know whom its versions ask.
        health: what its parts say they suffer from.
        observer: learns of its batches.
        last_read: what the run has read of files that may have been broken since.
        buckets: where entities of versions that decide the stream are held, None for this process.
    """

    settings: Settings
    bootstrap: str
    clients: Clients
    hooks: Hooks
    health: Health
    observer: BatchObserver = UNOBSERVED
    last_read: LastRead = field(default_factory=LastRead)
    buckets: BucketPlace | None = None

    def reached(self, step: BatchStep) -> None:
        """Tell that a step of a batch is done."""
        self.observer.stepped()
        self.hooks.reached(step)
