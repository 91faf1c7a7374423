"""Tells those who follow the live feed that something is new; whoever has read it is in another thread."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager


class LiveChanges:
    """What followers wait for. `notify` and `close` may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[asyncio.Event, asyncio.AbstractEventLoop] = {}
        self._closed = False
        self._feeds: Counter[str] = Counter()

    def feeds_of(self, key: str) -> int:
        """Return how many feeds somebody follows now."""
        return self._feeds[key]

    @contextmanager
    def feed_of(self, key: str) -> Iterator[None]:
        """Count a feed of somebody for the length of a block."""
        self._feeds[key] += 1
        try:
            yield
        finally:
            self._feeds[key] -= 1
            self._feeds += Counter()  # without those that follow none any more

    def notify(self) -> None:
        """Wake all followers."""
        with self._lock:
            followers = list(self._followers.items())
        for event, loop in followers:
            loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """Have all followers come to their end, and those that come later."""
        self._closed = True
        self.notify()

    async def rounds(self, seconds: float) -> AsyncIterator[bool]:
        """Yield at once, and again whenever something is new, or `seconds` have passed: then False."""
        event = asyncio.Event()
        with self._lock:
            self._followers[event] = asyncio.get_running_loop()
        try:
            is_new = True
            while not self._closed:
                yield is_new
                is_new = await _set_within(event, seconds)
                event.clear()
        finally:
            with self._lock:
                self._followers.pop(event, None)


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True
