"""`flagstream broker`, and the broker that other commands work with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from schemas.errors import ConfigurationError
from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker, bootstrap_for
from streaming.output.facts import show_facts


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


def start_broker(settings: Settings, *, as_json: bool) -> None:
    """Start the embedded broker, leave it running, and print its address."""
    show_facts({"bootstrap": EmbeddedBroker.of(settings).start()}, as_json=as_json)


def stop_broker(settings: Settings, *, as_json: bool) -> None:
    """Stop the embedded broker and print whether one ran."""
    show_facts({"stopped": EmbeddedBroker.of(settings).stop()}, as_json=as_json)


def show_broker(settings: Settings, *, as_json: bool) -> bool:
    """Print where the embedded broker runs; return whether it does."""
    found = EmbeddedBroker.of(settings).status()
    show_facts({"running": found is not None, "bootstrap": found}, as_json=as_json)
    return found is not None
