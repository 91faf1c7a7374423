"""`flagstream demo`: the whole job on simulated payments, and what it caught."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from agent import SPECS
from schemas.alert import ALERTS
from schemas.counts import count_of
from schemas.errors import ConfigurationError, RetryableError
from schemas.spec import AgentSpec, load_spec
from streaming.batch.runner import StreamSettings, TopicWatch
from streaming.delta.lake_reader import LakeReader
from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker, bootstrap_for, ensure_topic
from streaming.kafka.feeds import Simulated, simulate_to_topic
from streaming.output.tables import show_table, show_text
from streaming.output.terminal import Terminal, print_json
from streaming.run.driver import PATIENCE_SECONDS, drive
from streaming.run.status import read_status

_DAYS_SHOWN_PER_RUN = 3.0
_SECONDS_PER_DAY = 86_400.0
_TOP = 10
_POLL_SECONDS = 0.2
_MODEL_SECONDS = 120.0  # some thirty groups, of which the local model answers one in about 3 s


@dataclass(frozen=True)
class DemoSettings:
    """How long and how fast payments are streamed, the seed of the stream, and who classifies."""

    seconds: float
    rate: float
    seed: int
    llm: str


@dataclass(frozen=True)
class DemoResult:
    """What the demo did.

    Attributes:
        frauds: planted frauds among the events.
        caught: planted frauds that have an alert.
        llm_alerts: alerts whose classification is the model's.
        first_alert_s: seconds from the start of the demo to the first alert on Kafka, None without one.
    """

    events: int
    frauds: int
    caught: int
    alerts: int
    llm_alerts: int
    first_alert_s: float | None


class _Feed:
    """Streams payments once the agent reads, and stops the agent when it has read them all."""

    def __init__(self, bootstrap: str, spec: AgentSpec, settings: Settings, demo: DemoSettings) -> None:
        self._bootstrap, self._spec, self._demo = bootstrap, spec, demo
        self._topic = spec.data_sources.transactions.topic
        self._checkpoint, self._lake = settings.checkpoint(spec.name), settings.lake(spec.name)
        # No worker: it runs once, and `sent` raises what it raised.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="demo-feed")
        self._feeding: Future[Simulated] | None = None
        self.stop = threading.Event()

    def start(self) -> None:
        self._feeding = self._thread.submit(self._run)

    @property
    def sent(self) -> Simulated | None:
        """What was sent, None if the agent never came so far."""
        return None if self._feeding is None else self._feeding.result()

    def close(self) -> None:
        self.stop.set()
        self._thread.shutdown()

    def _run(self) -> Simulated:
        demo = self._demo
        try:
            sent = simulate_to_topic(
                self._bootstrap,
                self._topic,
                rate=demo.rate,
                seconds=demo.seconds,
                seed=demo.seed,
                compress=_DAYS_SHOWN_PER_RUN * _SECONDS_PER_DAY / demo.seconds,
                stop=self.stop,
            )
            self._wait_until_read()
            if demo.llm != "none":
                self._wait_for_the_model()
            return sent
        finally:
            self.stop.set()

    def _wait_until_read(self) -> None:
        watch = TopicWatch(StreamSettings(self._bootstrap, self._topic, self._checkpoint, 1, 1, "earliest"))
        read = False
        while not read and not self.stop.wait(_POLL_SECONDS):
            with suppress(RetryableError):  # the agent says that the broker is away, and gives up in time
                read = watch.unread() == 0
        watch.close()

    def _wait_for_the_model(self) -> None:
        latest = time.monotonic() + _MODEL_SECONDS
        while time.monotonic() < latest and read_status(self._lake, self._spec, None).late["pending"]:
            self.stop.wait(_POLL_SECONDS)


def run_demo(settings: Settings, demo: DemoSettings, *, as_json: bool) -> DemoResult:
    """Run the main job below `home`/demo, which is emptied first, and print what was caught.

    Raises:
        FlagstreamError: whatever stopped it.
    """
    if ":" in settings.kafka:
        raise ConfigurationError(
            "the demo brings its own broker and would mix its payments into yours: unset it, or use `run`",
            where="FLAGSTREAM_KAFKA",
        )
    begun = time.time()
    settings = dataclasses.replace(settings, home=settings.home / "demo")
    _empty(settings)
    spec = load_spec(SPECS / "card-fraud.yaml")
    with bootstrap_for(settings) as bootstrap:
        sent = _driven(settings, spec, bootstrap, demo, as_json=as_json)
    reader = LakeReader(settings.lake(spec.name), spec.tables)
    alerts, first = _alerts(reader), _first_published(reader)
    result = _result(alerts, sent, None if first is None else round(first - begun, 1))
    _show(alerts, result, settings, as_json=as_json)
    return result


def _driven(
    settings: Settings, spec: AgentSpec, bootstrap: str, demo: DemoSettings, *, as_json: bool
) -> Simulated | None:
    """Run the agent until it has read what the feed sends, and return that."""
    ensure_topic(bootstrap, spec.data_sources.transactions.topic)
    feed = _Feed(bootstrap, spec, settings, demo)
    try:
        drive(
            settings,
            spec,
            bootstrap,
            llm=demo.llm,
            stop=feed.stop,
            as_json=as_json,
            started=feed.start,
            patience=PATIENCE_SECONDS,
        )
    finally:
        feed.close()
    return feed.sent


def _empty(settings: Settings) -> None:
    """The demo's own folder; a broker left running there would hold deleted files."""
    EmbeddedBroker.of(settings).stop()
    shutil.rmtree(settings.home, ignore_errors=True)


def _alerts(reader: LakeReader) -> pl.DataFrame:
    """The newest revision of each alert, highest score first."""
    frame = reader.frame("alerts", [name for name in ALERTS.names if name != "entities"])
    newest = frame.sort("revision").unique("alert_id", keep="last")
    return newest.sort("score", "outbox_seq", descending=[True, False])


def _first_published(reader: LakeReader) -> float | None:
    """When the first batch with alerts was closed, which is after they were published; seconds since 1970."""
    rows = reader.rows("batches", ["alerts", "closed_at"])
    moments = [row["closed_at"].timestamp() for row in rows.to_pylist() if row["alerts"] > 0]
    return min(moments, default=None)


def _result(alerts: pl.DataFrame, sent: Simulated | None, first_alert_s: float | None) -> DemoResult:
    frauds = None if sent is None else sent.truth.filter(sent.truth["is_fraud"])
    truth = set() if frauds is None else set(frauds["transaction_id"].to_pylist())
    return DemoResult(
        events=0 if sent is None else sent.events,
        frauds=len(truth),
        caught=len(truth & set(alerts["transaction_id"].to_list())),
        alerts=alerts.height,
        llm_alerts=alerts.filter(pl.col("classification_source") == "llm").height,
        first_alert_s=first_alert_s,
    )


def _show(alerts: pl.DataFrame, result: DemoResult, settings: Settings, *, as_json: bool) -> None:
    top = alerts.head(_TOP).to_dicts()
    if as_json:
        print_json({"demo": asdict(result), "top": [_summary(alert) for alert in top]})
        return
    _show_result(top, result, settings.home)


def _show_result(top: list[dict[str, Any]], result: DemoResult, home: Path) -> None:
    console = Terminal()
    headings = ("score", "severity", "classification", "by", "amount", "why")
    rows = (tuple(_summary(alert).values()) for alert in top)
    show_table(console, headings, rows, f"Top {count_of(len(top), 'alert')}")
    console.print()
    show_text(
        console,
        f"{count_of(result.events, 'payment')}, {count_of(result.frauds, 'planted fraud')}, "
        f"{result.caught} caught; "
        f"{count_of(result.alerts, 'alert')}, {result.llm_alerts} classified by the model; "
        f"first alert after {result.first_alert_s} s.",
    )
    console.print(
        "Keep going:\n"
        f"  flagstream alerts --home {home}           every alert as a consumer sees it\n"
        f"  flagstream status --home {home}           counts, quarantine, lag, seconds per step\n"
        f"  flagstream reconcile --home {home}        transactions, Delta and Kafka compared\n"
        f"  flagstream run --spec card-fraud --home {home}\n"
        f"  flagstream simulate --home {home}         more payments for it, from another terminal",
        soft_wrap=True,
    )


def _summary(alert: dict[str, Any]) -> dict[str, Any]:
    return {
        "score": f"{alert['score']:.5f}",
        "severity": alert["severity"],
        "classification": alert["classification"],
        "by": alert["classification_source"],
        "amount": f"{alert['amount']:.2f} {alert['currency']}",
        "why": "; ".join(reason["text"] for reason in alert["reasons"][:2]),
    }
