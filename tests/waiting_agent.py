"""An agent in a process of its own that goes on through outages: what it says, and what must hold then."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from schemas.errors import StoreError
from schemas.spec import AgentSpec, load_spec
from streaming.history.reconcile import reconcile
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.run.status import read_status
from streaming.service.health import Condition, read_health
from streaming.store.place import Place
from streaming.testing.drivers import DRIVER_SECONDS, Child, Drivers, wait_until
from streaming.testing.streams import Stream, stored, write_spec

AGENT = "tester"
SAID_WITHIN_SECONDS = 30.0  # Spark's source alone would take three minutes
_HOUR = timedelta(hours=1)


class WaitingAgent:
    """Drivers of one agent, which tests start, wait for and end.

    Args:
        settings: name its home, and its store where it has one.
        folder: for its spec.
        topic: names its topics.
        bootstrap: of the broker that it uses.
    """

    def __init__(self, settings: Settings, folder: Path, topic: Callable[[str], str], bootstrap: str) -> None:
        self.settings, self.bootstrap = settings, bootstrap
        self.spec_file = write_spec(folder, topic)
        self.spec: AgentSpec = load_spec(self.spec_file)
        self.drivers = Drivers(settings, self.bootstrap)
        ensure_topic(self.bootstrap, self.spec.data_sources.transactions.topic, 2)
        self.stream = Stream(self.bootstrap, self.spec.data_sources.transactions.topic)

    @property
    def lake(self) -> Place:
        return self.settings.lake(AGENT)

    def start(self, **order: object) -> Child:
        return self.drivers.start(self.spec_file, endless=True, **order)

    def conditions(self) -> set[Condition]:
        return {each.condition for each in read_health(self.settings.health(AGENT))}

    def says(self, condition: Condition, seconds: float = SAID_WITHIN_SECONDS) -> None:
        """Wait until the agent says that a condition holds."""
        wait_until(lambda: condition in self.conditions(), seconds, condition)

    def stored_payments(self) -> int:
        """Return how many payments are stored.

        Raises:
            StoreError: the store does not answer.
        """
        return int(read_status(self, None).totals["stored"])

    def has_stored(self) -> bool:
        """Say whether everything sent is stored; of a store that does not answer that is not known yet."""
        try:
            return self.stored_payments() == len(self.stream.sent_ids)
        except StoreError:
            return False

    def catches_up(self, driver: Child, seconds: float = 2 * DRIVER_SECONDS) -> None:
        """Wait until everything sent is stored and nothing is suffered from, by the same process."""

        def settled() -> bool:
            assert driver.poll() is None, driver.communicate()[0]
            return self.has_stored() and not self.conditions()

        wait_until(settled, seconds, "the agent to go on by itself")

    def ends(self, driver: Child, with_signal: int = signal.SIGINT) -> float:
        """Ask the agent to end; return the seconds it took."""
        begun = time.monotonic()
        driver.send_signal(with_signal)
        assert self.drivers.outcome(driver) == 0, self.drivers.outputs[-1]
        return time.monotonic() - begun

    def nothing_lost_or_doubled(self) -> None:
        transactions = stored(self.lake, "transactions", "sequence")
        assert Counter(transactions["transaction_id"].to_pylist()) == Counter(self.stream.sent_ids)
        alerts = stored(self.lake, "alerts", "outbox_seq")
        assert len(set(alerts["alert_id"].to_pylist())) == alerts.num_rows > 0
        found = reconcile(self, self.bootstrap, _HOUR)
        assert found.differences == 0, found
