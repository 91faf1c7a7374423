"""How far the topics of a stream go now."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import FlagstreamError
from schemas.subscription import Subscription
from streaming.home.settings import Settings
from streaming.kafka.broker import EmbeddedBroker
from streaming.kafka.open_transactions import OpenTransaction, OpenTransactions
from streaming.kafka.topic_facts import Bounds, TopicFacts

_CALL_SECONDS = 5.0


@dataclass(frozen=True)
class InputNow:
    """How far the topics of a stream go now.

    Attributes:
        bounds: by topic and partition, the first offset and the one after the last that may be read.
        open_transactions: what keeps further records from being read.
    """

    bounds: Bounds
    open_transactions: tuple[OpenTransaction, ...] = ()


def read_input(settings: Settings, reads: Subscription) -> InputNow | None:
    """Return how far the topics of a stream go, None when no broker answers.

    A broker is asked only where one runs; none is started for it.
    """
    address = EmbeddedBroker.of(settings).status() if settings.kafka == "embedded" else settings.kafka
    if address is None or address == "docker":
        return None
    facts = TopicFacts(address, reads, _CALL_SECONDS)
    try:
        bounds = facts.bounds()
        return InputNow(bounds, OpenTransactions(address, facts, _CALL_SECONDS).now(bounds))
    except FlagstreamError:
        return None
