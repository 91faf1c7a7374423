"""The broker that a command works with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import ConfigurationError
from streaming.home.settings import Settings
from streaming.kafka.broker import bootstrap_for


@contextmanager
def broker_of(settings: Settings) -> Iterator[str]:
    """Yield the broker's address; an embedded one runs for as long as a command needs it.

    Raises:
        ConfigurationError: the broker would end with the command.
    """
    if settings.kafka == "docker":
        raise ConfigurationError(
            "a container lives as long as one command, so only the demo and the tests can use one; "
            "give the address of a broker that stays",
            where="FLAGSTREAM_KAFKA",
        )
    with bootstrap_for(settings) as bootstrap:
        yield bootstrap
