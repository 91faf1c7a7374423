"""Sending records to Kafka: at a steady open-loop rate or at full speed, idempotently."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from schemas.counts import count_of
from schemas.errors import ConfigurationError, RetryableError
from streaming.home.brokers import compression_of, connection
from streaming.kafka.refusals import words_of

Report = Callable[[int], None]

_CHUNK = 5_000
_LONGEST_WAIT_S = 0.1
_SHORTEST_WAIT_S = 0.001
_DELIVERY_SECONDS = 60.0


class SendSchedule:
    """An open-loop schedule: record n is due n / rate seconds after the start, however late others were.

    Args:
        rate: records per second; None for as fast as it goes.
        clock: seconds, monotonic.
    """

    def __init__(self, rate: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        if rate is not None and not rate > 0:
            raise ConfigurationError("expected a rate above 0", key="rate")
        self._rate, self._clock, self._start = rate, clock, clock()

    def due(self, sent: int) -> int:
        """Return how many records should go out now, when `sent` have gone before."""
        if self._rate is None:
            return sys.maxsize
        return max(0, int((self._clock() - self._start) * self._rate) + 1 - sent)

    def wait_s(self, sent: int) -> float:
        """Return the seconds until the next record is due."""
        return 0.0 if self._rate is None else self._start + sent / self._rate - self._clock()


class Sender:
    """An idempotent producer under a pace; use as a context manager, which delivers all on the way out.

    Raises:
        RetryableError: records could not be delivered.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        pace: SendSchedule,
        *,
        on_progress: Report | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self._topic, self._pace = topic, pace
        self._on_progress, self._stop = on_progress or (lambda _: None), stop or threading.Event()
        self._producer = Producer(_producer_settings(bootstrap, self._note_failure))
        self._failed, self._fault = 0, ""
        self.sent = 0

    def __enter__(self) -> Sender:
        """Return the sender."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Deliver what is queued; drop it when an error is on its way."""
        if kind is not None:
            self._producer.purge()
            return
        # Flushing counts failures itself, so its result is added only after it has returned.
        unanswered = self._producer.flush(_DELIVERY_SECONDS + 1)
        self._failed += unanswered
        self._check()

    def send(self, keys: Sequence[bytes | None], values: Sequence[bytes]) -> int:
        """Queue the records when they are due; return how many were, fewer than given only when stopped."""
        done = 0
        while done < len(values) and not self._stop.is_set():
            due = min(self._pace.due(self.sent), _CHUNK, len(values) - done)
            if not due:
                wait = min(self._pace.wait_s(self.sent), _LONGEST_WAIT_S)
                self._producer.poll(max(wait, _SHORTEST_WAIT_S))
                continue
            self._queue(keys[done : done + due], values[done : done + due])
            done += due
        return done

    def _queue(self, keys: Sequence[bytes | None], values: Sequence[bytes]) -> None:
        produce, topic = self._producer.produce, self._topic
        for key, value in zip(keys, values, strict=True):
            try:
                produce(topic, value, key)
            except BufferError:
                self._produce_when_room(key, value)
            except KafkaException as fault:
                raise RetryableError(f"sending to {topic}: {words_of(fault)}") from fault
        self.sent += len(values)
        self._producer.poll(0)
        self._check()
        self._on_progress(self.sent)

    def _produce_when_room(self, key: bytes | None, value: bytes) -> None:
        while True:
            self._producer.poll(_LONGEST_WAIT_S)
            try:
                return self._producer.produce(self._topic, value, key)
            except BufferError:
                self._check()

    def _note_failure(self, fault: KafkaError | None, _: Message) -> None:
        if fault is not None:
            self._failed, self._fault = self._failed + 1, str(fault)

    def _check(self) -> None:
        if self._failed:
            why = self._fault or "no answer from the broker"
            lost = f"{self._failed} of {count_of(self.sent, 'record')} not delivered"
            raise RetryableError(f"{lost} to {self._topic}: {why}")


def _producer_settings(
    bootstrap: str, on_delivery: Callable[[KafkaError | None, Message], None]
) -> dict[str, Any]:
    return {
        **connection(bootstrap),
        "enable.idempotence": True,
        "compression.type": compression_of(bootstrap),
        "linger.ms": 5,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": 262_144,
        "partitioner": "murmur2_random",
        "message.timeout.ms": int(_DELIVERY_SECONDS * 1000),
        # Successes need no callback per record, which would cost more than the sending.
        "delivery.report.only.error": True,
        "on_delivery": on_delivery,
    }
