"""What the demo streams, and how long it waits: for the agent to read it, then for the model's answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from schemas.counts import count_of
from schemas.errors import RetryableError
from streaming.batch.stream_settings import StreamSettings
from streaming.batch.topic_watch import TopicWatch
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.feeds import Simulated, simulate_to_topic
from streaming.run.progress import Activity, Progress, Totals

DEMO_SPEC = "card-fraud"
ENOUGH = 0.9  # of the alerts have the model's classification
_DAYS_SHOWN_PER_RUN = 3.0
_SECONDS_PER_DAY = 86_400.0
_POLL_SECONDS = 0.2
_USUAL_SECONDS = 120.0  # some thirty groups, of which the local model answers one in about 3 s
_LONGEST_SECONDS = 600.0
_SILENT_SECONDS = 120.0


@dataclass(frozen=True)
class DemoSettings:
    """How long and how fast payments are streamed, the seed of the stream, who classifies, who looks."""

    seconds: float
    rate: float
    seed: int
    llm: str
    console: bool = False


def planted_labels(home: Path) -> Path:
    """Return the file of labels of what the demo sends, by the folder of the demo's own state."""
    return home / "labels" / "planted.parquet"


class ModelWait:
    """Says how long answers are waited for: to the last one, as long as they come.

    After two minutes nine in ten alerts are enough. A model that says nothing for two minutes, or has not
    come so far in ten, is not waited for.

    Args:
        clock: seconds of a clock that never goes back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = self._heard = clock()
        self._classified = 0

    def is_over(self, totals: Totals) -> bool:
        """Take in how far the model has come; return whether to wait no longer."""
        now, settled = self._clock(), totals.llm_alerts + totals.given_up
        if settled > self._classified:
            self._classified, self._heard = settled, now
        waited = now - self._began
        enough = waited >= _USUAL_SECONDS and totals.llm_alerts >= ENOUGH * totals.alerts
        late = waited >= _LONGEST_SECONDS or now - self._heard >= _SILENT_SECONDS
        return settled >= totals.alerts or enough or late


class Feed:
    """Streams payments once the agent reads, and stops the agent when it has read them all.

    Args:
        bootstrap: address of the broker.
        agent: reads the topic that is streamed to; the labels of what is sent go below its home.
        demo: what is streamed.
        display: shows what goes on.

    Attributes:
        is_through: whether it came to its end before the agent was stopped.
    """

    def __init__(self, bootstrap: str, agent: PlacedAgent, demo: DemoSettings, display: Progress) -> None:
        self._bootstrap, self._demo, self.display = bootstrap, demo, display
        self._reads = agent.spec.data_sources.transactions.subscription
        self._checkpoint = agent.settings.checkpoint(agent.name)
        self._labels = planted_labels(agent.settings.home)
        # No worker: it runs once, and `sent` raises what it raised.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="demo-feed")
        self._feeding: Future[Simulated] | None = None
        self.stop, self.is_through = threading.Event(), False

    @property
    def llm(self) -> str:
        """Who classifies."""
        return self._demo.llm

    def start(self) -> None:
        """Begin to send, from a thread of its own."""
        self._feeding = self._thread.submit(self._run)

    @property
    def sent(self) -> Simulated | None:
        """What was sent, None if the agent never came so far."""
        return None if self._feeding is None else self._feeding.result()

    def close(self) -> None:
        """Stop the agent, and wait for the end of what is being sent."""
        self.stop.set()
        self._thread.shutdown()

    def _run(self) -> Simulated:
        demo = self._demo
        try:
            sent = simulate_to_topic(
                self._bootstrap,
                self._reads.first,
                rate=demo.rate,
                seconds=demo.seconds,
                seed=demo.seed,
                compress=_DAYS_SHOWN_PER_RUN * _SECONDS_PER_DAY / demo.seconds,
                labels=self._labels,
                on_progress=self._show_sent,
                stop=self.stop,
            )
            self._wait_until_read()
            if demo.llm != "none":
                self._wait_for_the_model()
            self.is_through = not self.stop.is_set()
            return sent
        finally:
            self.stop.set()

    def _show_sent(self, records: int) -> None:
        done = records / self._demo.rate
        text = f"streaming payments: {done:.0f} of {self._demo.seconds:g} s"
        self.display.doing(Activity(text, done, self._demo.seconds))

    def _wait_until_read(self) -> None:
        watch = TopicWatch(StreamSettings(self._bootstrap, self._reads, self._checkpoint, 1, 1, "earliest"))
        read = False
        while not read and not self.stop.wait(_POLL_SECONDS):
            with suppress(RetryableError):  # the agent says that the broker is away, and gives up in time
                read = watch.unread() == 0

    def _wait_for_the_model(self) -> None:
        waiting, totals = ModelWait(), self.display.totals
        while not waiting.is_over(totals) and not self.stop.wait(_POLL_SECONDS):
            done, whole = totals.llm_alerts, totals.alerts
            text = f"the model's last answers: {done:,} of {count_of(whole, 'alert')} classified"
            self.display.doing(Activity(text, done, whole))
