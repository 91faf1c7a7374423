"""`flagstream fetch`, and what it makes for later starts: archives of the JVMs' classes, compiled kernels.

What a start loads is found by a small run: payments are simulated, read, scored and alerted in a folder that
is thrown away.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agent import SPECS
from schemas.spec import load_spec
from streaming.batch.runner import StreamRunner
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker
from streaming.kafka.feeds import simulate_to_topic
from streaming.kafka.topic_admin import ensure_topic
from streaming.output.terminal import say_error, say_line
from streaming.run.opening import open_agent
from streaming.setup.downloads import fetch_jars, jar_paths
from streaming.setup.session import forget, session_on
from streaming.setup.spark_jvm import launch_spark, spark_archive
from streaming.versions.clients import Clients

_RATE, _SECONDS = 500.0, 2.0
_DUMP_SECONDS = 120.0


def fetch(agent: PlacedAgent) -> None:
    """Download the pinned jars, compile the kernels of a spec and archive the classes of the JVMs."""
    fetch_jars(agent.settings, say=say_line)
    fill_caches(agent, say_line)


def fetch_msk(settings: Settings) -> None:
    """Download the jar with which Spark logs in to Amazon MSK."""
    fetch_jars(settings, folders=[settings.jars_msk])


def fill_caches(agent: PlacedAgent, say: Callable[[str], None] = say_error) -> None:
    """Make the archives that are missing for this JDK, and compile the kernels of a spec.

    Args:
        agent: whose kernels are compiled; its settings say where jars and archives are.
        say: receives a line before something is made that takes a while.
    """
    say("compiling the kernels: half a minute, the first time")
    compile_kernels(AgentDefinition.of(agent.spec))
    jars = jar_paths(agent.settings.jars_spark)
    archives = (spark_archive(agent.settings, jars), EmbeddedBroker.of(agent.settings).archive)
    if all(each is None or each.is_there for each in archives):
        return
    say("archiving the classes that later starts load; about half a minute, once")
    agent.settings.classes.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="flagstream-warm-") as folder:
        _archive(replace(agent.settings, home=Path(folder), store=None, kafka="embedded"), jars)


def _archive(settings: Settings, jars: Sequence[Path]) -> None:
    """Run both JVMs, have them write down what they have loaded, and keep that."""
    broker = replace(EmbeddedBroker.of(settings), makes_archive=True)
    archive, spec = spark_archive(settings, jars), load_spec(SPECS / "card-fraud.yaml")
    bootstrap = broker.start()
    try:
        topic = spec.data_sources.transactions.topic
        assert topic is not None, "the shipped spec names one"
        simulate_to_topic(bootstrap, topic, rate=_RATE, seconds=_SECONDS, seed=7)
        ensure_topic(bootstrap, spec.alerts.topic, partitions=1)
        jvm = launch_spark(jars, settings.spark, options=archive.made())
        session = session_on(jvm, settings.spark)
        with open_agent(PlacedAgent(settings, spec), bootstrap, Clients(settings, "none")) as agent:
            StreamRunner(session, agent.pipeline, agent.stream).run(threading.Event(), until_idle=True)
        session.stop()
        forget(session)
        jvm.let_end(_DUMP_SECONDS)
    finally:
        broker.stop()
    archive.keep()
    if broker.archive is not None:
        broker.archive.keep()
