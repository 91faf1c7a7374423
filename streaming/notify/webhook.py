"""Signed requests to one address: to the machine that was meant, once per attempt, within a bounded time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import httpx2

from agent.model.guarded_http import Reach, guarded_client
from streaming.notify.notices import Notice
from streaming.notify.outcomes import DELIVERED, DeliveryOutcome, retry_after_of
from streaming.notify.signing import HEADERS, signed_headers

_SUCCESS = range(200, 300)
# What a receiver says of this message. All else it says of the address, the key or itself, which are mended.
_OF_THE_MESSAGE = frozenset({400, 413, 415, 422})


class Webhook:
    """An address that takes notices as signed requests; see streaming.notify.outcomes.Receiver.

    A redirect is not followed, and the body of an answer not read.

    Args:
        url: that is posted to.
        keys: the live secrets, the newest first.
        reach: whether the name may lead to a private network.
        seconds: that an attempt may take.
        key: of the configuration that names the address, for errors.
        now: seconds since 1970.

    Raises:
        ConfigurationError: nothing can be sent to such an address.
    """

    def __init__(
        self,
        url: str,
        keys: Sequence[bytes],
        reach: Reach,
        seconds: float,
        key: str = "webhook.url",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._url, self._keys, self._reach, self._seconds = url, keys, reach, seconds
        self._key, self._now = key, now
        self._client: httpx2.AsyncClient | None = self._made()
        self._runner: asyncio.Runner | None = None

    def close(self) -> None:
        """See Receiver."""
        runner, client = self._runner, self._client
        self._runner = self._client = None
        if runner is not None and client is not None:
            with runner:
                runner.run(client.aclose())

    def deliver(self, notice: Notice) -> DeliveryOutcome:
        """See Receiver."""
        try:
            client = self._client = self._client or self._made()
            runner = self._runner = self._runner or asyncio.Runner()
            return runner.run(self._post(client, notice))
        except TimeoutError:
            return DeliveryOutcome("failed", f"no answer within {self._seconds:g} s")
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as fault:
            return DeliveryOutcome("failed", _said(fault))

    async def _post(self, client: httpx2.AsyncClient, notice: Notice) -> DeliveryOutcome:
        body = notice.body
        headers = signed_headers(self._keys, notice.message_id, int(self._now()), body)
        async with asyncio.timeout(self._seconds):
            answer = await client.post(
                self._url,
                content=body,
                headers={**headers, "content-type": "application/json", "user-agent": "flagstream"},
            )
        return self._outcome(answer)

    def _made(self) -> httpx2.AsyncClient:
        """Return a client for all attempts: reading the machine's certificates takes longer than one."""
        client = guarded_client(self._url, self._reach, headers=HEADERS, status_alone=True, key=self._key)
        client.timeout = httpx2.Timeout(self._seconds)
        return client

    def _outcome(self, answer: httpx2.Response) -> DeliveryOutcome:
        status = answer.status_code
        if status in _SUCCESS:
            return DELIVERED
        if status in _OF_THE_MESSAGE:
            return DeliveryOutcome("refused", f"answered {status}")
        asked = retry_after_of(answer.headers.get("retry-after"), self._now())
        return DeliveryOutcome("failed", f"answered {status}", asked)


def _said(fault: Exception) -> str:
    """Return the kind of a fault, with its words where they are ours: others may quote the address."""
    known = ("the name leads to a private network", "the name cannot be resolved", "no address")
    return str(fault) if str(fault) in known else type(fault).__name__
