"""`flagstream demo`: the whole job on simulated payments, and what it caught."""

from __future__ import annotations

import time
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
from streaming.kafka.broker import bootstrap_for, ensure_topic
from streaming.kafka.feeds import Simulated
from streaming.observe.watching import observing
from streaming.run.display import progress_display
from streaming.run.driver import PATIENCE_SECONDS, drive
from streaming.run.observer import RunObserver
from streaming.run.progress import Activity, Progress

_STARTING = Activity("starting: Kafka, Spark and the local model, some 20 seconds")


def run_demo(settings: Settings, demo: DemoSettings, jvm: Jvm | None, *, as_json: bool) -> DemoResult:
    """Run the main job and print what was caught.

    Args:
        settings: the demo's own, see streaming.commands.launching.
        jvm: Spark's, launched ahead.

    Raises:
        FlagstreamError: whatever stopped it.
    """
    begun = psutil.Process().create_time()
    spec = load_spec(SPECS / f"{DEMO_SPEC}.yaml")
    with progress_display(spec.name, as_json=as_json) as display:
        display.doing(_STARTING)
        with bootstrap_for(settings) as bootstrap:
            settings = _metrics_on_a_free_port(settings)
            with observing(settings, spec.name) as observer:
                sent = _driven(PlacedAgent(settings, spec), bootstrap, demo, jvm, display, observer)
    ended = time.time()
    alerts = with_kinds(alerts_of(LakeReader(settings.lake(spec.name), spec.tables)), sent)
    result = result_of(PlacedAgent(settings, spec), alerts, sent, begun, ended)
    from streaming.commands.demo_page import page  # noqa: PLC0415 -- matplotlib is loaded only to draw

    report_of(settings.home).write_text(page(alerts, result, spec, settings.home), encoding="utf-8")
    show_demo(alerts, result, spec, settings.home, as_json=as_json)
    return result


def _metrics_on_a_free_port(settings: Settings) -> Settings:
    """Return the settings with another port for metrics where theirs is taken: no demo stops for that."""
    wanted = settings.metrics
    if wanted is None or is_free(wanted):
        return settings
    return replace(settings, metrics=replace(wanted, port=0))


def _driven(
    agent: PlacedAgent,
    bootstrap: str,
    demo: DemoSettings,
    jvm: Jvm | None,
    display: Progress,
    observer: RunObserver,
) -> Simulated | None:
    """Run the agent until it has read what the feed sends, and return that."""
    ensure_topic(bootstrap, agent.spec.data_sources.transactions.subscription.first)
    feed = Feed(bootstrap, agent.spec, agent.settings, demo, display)
    try:
        drive(
            agent,
            bootstrap,
            llm=demo.llm,
            stop=feed.stop,
            started=feed.start,
            patience=PATIENCE_SECONDS,
            display=display,
            jvm=jvm,
            observer=observer,
        )
    finally:
        feed.close()
    return feed.sent
