"""What tests share: one broker and one Spark session per run, and topics of their own."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import typer.testing
from hypothesis import HealthCheck
from hypothesis import settings as properties
from pyspark.sql import SparkSession

from streaming.arrays import kernel_folder
from streaming.arrays.collector import spare_what_is_loaded
from streaming.home.settings import Settings
from streaming.kafka.broker import bootstrap_for
from streaming.kafka.topic_admin import ensure_topic
from streaming.output import redaction
from streaming.setup.downloads import jar_paths
from streaming.setup.session import start_session
from streaming.store import spool
from streaming.testing.spoiled_store import SpoiledStore, spoiled_store
from streaming.testing.stores import STORES, RunningStore, surroundings
from tests.notifiers import Notifiers
from tests.unit.streaming.notify.receivers import Desk, desk

# What tests must not depend on, and what they get instead, children included.
# Threads of OpenMP that wait give way: two test runners share the cores.
_ENVIRONMENT = {"TERM": "xterm", "TZ": "UTC", "LC_ALL": "C.UTF-8", "OMP_WAIT_POLICY": "PASSIVE"}
_ABSENT = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE")


def pytest_configure() -> None:
    """Pin what the terminal, the locale and the time zone of whoever runs the tests would decide.

    Before anything is collected: some modules read the environment when they are imported.
    """
    os.environ.update(_ENVIRONMENT)
    for name in _ABSENT:
        os.environ.pop(name, None)
    time.tzset()
    # How long an example takes says something of the machine alone. Whoever runs the tests gets the same
    # examples as everybody; `--hypothesis-profile random` looks for others.
    for name, same in (("tests", True), ("random", False)):
        properties.register_profile(
            name, deadline=None, derandomize=same, suppress_health_check=[HealthCheck.too_slow]
        )
    properties.load_profile("tests")
    # Each call through a CliRunner would build the whole command line again.
    typer.testing._get_command = cache(typer.main.get_command)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests take real payments instead of simulated ones, and do what takes long for longer."""
    parser.addoption("--transactions", help="Parquet file of the Fraud Detection Handbook's payments")
    parser.addoption("--store-away", default="60", help="seconds for which a running agent's store is away")
    parser.addoption("--whole-chain", action="store_true", help="on every store a driver dies at every step")


def pytest_collection_finish() -> None:
    """Leave ten thousand tests and their modules out of each search for cycles that a test asks for.

    A supervisor asks for one after each fault; with them in it, hundreds of faults take minutes.
    """
    spare_what_is_loaded()


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The broker of the run: embedded, or whatever FLAGSTREAM_KAFKA names."""
    settings = Settings.load(tmp_path_factory.mktemp("broker"), os.environ)
    with bootstrap_for(settings) as address:
        yield address


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """The one Spark session of the run."""
    folder = tmp_path_factory.mktemp("spark")
    settings = Settings.load(folder, os.environ)
    session = start_session(jar_paths(settings.jars_spark), work_dir=folder, driver_memory="2g")
    yield session
    session.stop()


@pytest.fixture(autouse=True)
def _secrets_of_its_own() -> Iterator[None]:
    """No test hides what is a secret in another one."""
    known = dict(redaction._known)
    yield
    redaction._known.clear()
    redaction._known.update(known)


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """No test decides for others how the process logs, and where it keeps what."""
    with process_kept():
        yield


@contextmanager
def process_kept() -> Iterator[None]:
    """Take back, at the end of a block, what commands set for the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("flagstream")
    spooled, kernels = spool._SPOOL.root, list(kernel_folder._named)
    handlers, level = root.handlers[:], ours.level
    try:
        yield
    finally:
        spool._SPOOL.root, kernel_folder._named[:], root.handlers[:] = spooled, kernels, handlers
        ours.setLevel(level)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of their own."""
    return Settings.load(tmp_path / "home", os.environ)


@pytest.fixture
def topic() -> Callable[[str], str]:
    """Name a topic that no other test uses."""
    marker = uuid.uuid4().hex[:8]
    return lambda name: f"{name}-{marker}"


@pytest.fixture
def receiver() -> Iterator[Desk]:
    """A receiver of alerts on loopback."""
    with desk() as found:
        yield found


@pytest.fixture
def notifiers(tmp_path: Path, bootstrap: str, topic: Callable[[str], str]) -> Iterator[Notifiers]:
    """Processes of `flagstream notify` over a topic of their own."""
    name = topic("alerts")
    ensure_topic(bootstrap, name, partitions=2)
    found = Notifiers(tmp_path / "home", name, bootstrap)
    yield found
    found.end()


@pytest.fixture(scope="session")
def store_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], RunningStore]]:
    """Start an object store by its name, at most once in a run."""
    cache = Settings.load(tmp_path_factory.mktemp("stores"), os.environ).cache
    running: dict[str, RunningStore] = {}
    with ExitStack() as ended:

        def server(name: str) -> RunningStore:
            if name not in running:
                folder = tmp_path_factory.mktemp(name)
                running[name] = ended.enter_context(STORES[name](cache, folder))
            return running[name]

        yield server


@pytest.fixture(params=["azurite", "gofakes3", "versitygw"])
def store(
    request: pytest.FixtureRequest, store_server: Callable[[str], RunningStore]
) -> Iterator[RunningStore]:
    """An empty prefix of each object store in turn, which the environment says how to reach.

    `@pytest.mark.parametrize("store", ["gofakes3"], indirect=True)` takes one of them.
    """
    own = store_server(request.param).elsewhere()
    with surroundings(own):
        yield own


@pytest.fixture
def spoiled(store: RunningStore) -> Iterator[SpoiledStore]:
    """The proxy in front of `store`, by way of which the environment says it is reached."""
    with spoiled_store(store.endpoint) as proxy, surroundings(store.by_way_of(proxy.address)):
        yield proxy


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, dict[str, Any] | None, Any]:
    """Let reports hold any text: a worker's lone surrogate in what was logged would end the run."""
    return encodable((yield))


def encodable(data: Any) -> Any:
    """Return the same data with text that UTF-8 has."""
    if isinstance(data, str):
        return data.encode("utf-8", "backslashreplace").decode()
    if isinstance(data, dict):
        return {encodable(key): encodable(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return type(data)([encodable(each) for each in data])
    return data
