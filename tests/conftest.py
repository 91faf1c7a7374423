"""What tests share: one broker and one Spark session per run, and topics of their own."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as properties
from pyspark.sql import SparkSession

from streaming.home.settings import Settings
from streaming.kafka.broker import bootstrap_for
from streaming.output import redaction
from streaming.setup.downloads import jar_paths
from streaming.setup.session import start_session

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


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a test take real payments instead of simulated ones."""
    parser.addoption("--transactions", help="Parquet file of the Fraud Detection Handbook's payments")


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
    known = set(redaction._known)
    yield
    redaction._known.intersection_update(known)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a home of their own."""
    return Settings.load(tmp_path / "home", os.environ)


@pytest.fixture
def topic() -> Callable[[str], str]:
    """Name a topic that no other test uses."""
    marker = uuid.uuid4().hex[:8]
    return lambda name: f"{name}-{marker}"


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
