"""Begins what a run takes longest to start, before anything else is imported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from schemas.errors import ConfigurationError
from streaming.home.platform import is_on_platform
from streaming.home.settings import Settings
from streaming.jvm.launching import Jvm
from streaming.kafka.broker import EmbeddedBroker
from streaming.setup.process import prepare_process
from streaming.setup.spark_jvm import launch_ahead


@contextmanager
def launched_ahead(settings: Settings) -> Iterator[Jvm | None]:
    """Make this process fit for a run and yield Spark's JVM on its way up; ended if nobody has used it.

    None where a platform brings one.

    Raises:
        MachineError: what a run needs of the machine is not there.
    """
    prepare_process(settings.home)
    if is_on_platform():
        yield None
        return
    jvm = launch_ahead(settings)
    try:
        yield jvm
    finally:
        if not jvm.is_used:
            jvm.end()


def demo_settings(settings: Settings) -> Settings:
    """Return the settings of the demo, whose own folder below `home` is emptied.

    Raises:
        ConfigurationError: the demo was to use somebody's broker.
    """
    if ":" in settings.kafka:
        raise ConfigurationError(
            "the demo brings its own broker and would mix its payments into yours: unset it, or use `run`",
            where="FLAGSTREAM_KAFKA",
        )
    # Whatever store and anchor the environment names is somebody's own.
    own = replace(settings, home=settings.home / "demo", store=None, audit_anchor=None, anchor_access=None)
    EmbeddedBroker.of(own).stop()  # one left running there would hold deleted files
    shutil.rmtree(own.home, ignore_errors=True)
    return own
