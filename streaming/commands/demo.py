"""`flagstream demo`: the whole job on simulated payments, and what it caught."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import psutil

from agent import SPECS
from schemas.spec import load_spec
from streaming.commands.demo_feed import DEMO_SPEC, DemoSettings, Feed
from streaming.commands.demo_result import DemoResult, alerts_of, result_of, with_kinds
from streaming.commands.demo_view import report_of, show_demo
from streaming.delta.lake_reader import LakeReader
from streaming.home.listen import is_free
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.jvm.launching import Jvm
from streaming.kafka.broker import bootstrap_for
from streaming.kafka.topic_admin import ensure_topic
from streaming.observe.watching import observing
from streaming.run.display import progress_display
from streaming.run.driver import PATIENCE_SECONDS, drive
from streaming.run.observer import RunObserver
from streaming.run.progress import Activity

_STARTING = Activity("starting: Kafka, Spark and the local model, some 20 seconds")


def run_demo(settings: Settings, demo: DemoSettings, jvm: Jvm | None, *, as_json: bool) -> DemoResult:
    """Run the main job and print what was caught.

    Args:
        settings: the demo's own, see streaming.commands.launching.
        jvm: Spark's, launched ahead.

    Raises:
        FlagstreamError: whatever stopped it.
    """
    agent = PlacedAgent(settings, load_spec(SPECS / f"{DEMO_SPEC}.yaml"))
    if not demo.console:
        return _run(agent, demo, jvm, lambda: None, as_json=as_json)[0]
    from streaming.commands.demo_console import DemoConsole  # noqa: PLC0415 -- a second that few need

    console = DemoConsole(agent, as_json=as_json)
    try:
        result, is_through = _run(agent, demo, jvm, console.start, as_json=as_json)
        if is_through:
            console.stay()
        return result
    finally:
        console.close()


def _run(
    agent: PlacedAgent,
    demo: DemoSettings,
    jvm: Jvm | None,
    once_reading: Callable[[], None],
    *,
    as_json: bool,
) -> tuple[DemoResult, bool]:
    """Run it and print its result; return that, and whether nobody has stopped it.

    Args:
        once_reading: called when the agent begins to read.
    """
    begun, spec = psutil.Process().create_time(), agent.spec
    with progress_display(spec.name, as_json=as_json) as display:
        display.doing(_STARTING)
        with bootstrap_for(agent.settings) as bootstrap:
            agent = agent.with_settings(_metrics_on_a_free_port(agent.settings))
            with observing(agent.settings, spec.name) as observer:
                feed = Feed(bootstrap, agent, demo, display)
                _drive(agent, bootstrap, jvm, feed, once_reading, observer)
    sent, ended = feed.sent, time.time()
    alerts = with_kinds(alerts_of(LakeReader.of(agent)), sent)
    result, home = result_of(agent, alerts, sent, begun, ended), agent.settings.home
    from streaming.commands.demo_page import page  # noqa: PLC0415 -- matplotlib is loaded only to draw

    report_of(home).write_text(page(alerts, result, spec, home), encoding="utf-8")
    show_demo(alerts, result, spec, home, as_json=as_json)
    return result, feed.is_through


def _metrics_on_a_free_port(settings: Settings) -> Settings:
    """Return the settings with another port for metrics where theirs is taken: no demo stops for that."""
    wanted = settings.metrics
    if wanted is None or is_free(wanted):
        return settings
    return replace(settings, metrics=replace(wanted, port=0))


def _drive(
    agent: PlacedAgent,
    bootstrap: str,
    jvm: Jvm | None,
    feed: Feed,
    once_reading: Callable[[], None],
    observer: RunObserver,
) -> None:
    """Run the agent until it has read what the feed sends."""

    def started() -> None:
        feed.start()
        once_reading()

    ensure_topic(bootstrap, agent.spec.data_sources.transactions.subscription.first)
    try:
        drive(
            agent,
            bootstrap,
            llm=feed.llm,
            stop=feed.stop,
            started=started,
            patience=PATIENCE_SECONDS,
            display=feed.display,
            jvm=jvm,
            observer=observer,
        )
    finally:
        feed.close()
