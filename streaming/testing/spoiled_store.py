"""A real object store behind a proxy on loopback that delays, refuses and drops by command, and counts."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class StoreRequest:
    """A request as it arrived.

    Attributes:
        verb: `GET`, `PUT`, `LIST` …; a listing is a GET of a container.
        path: of the object, with its container; without the query.
        query: what follows it.
        key: id of the key that it is signed with, `token_key` of its token; empty for a key of Azure's.
        spoilt: whether it was answered in another way than the store would have.
        arrived: its place among all arrivals and ends of delays.
        let_through: the place at which its delay was over, 0 before.
    """

    verb: str
    path: str
    query: str = ""
    key: str = ""
    spoilt: bool = False
    arrived: int = 0
    let_through: int = 0


@dataclass(frozen=True)
class Spoiling:
    """How a request is spoiled; made by the functions and constants below."""

    kind: str
    status: int = 0
    code: str = ""
    detail: str = ""
    seconds: float = 0.0


# The connection is closed; the store has never heard of the request.
dropped = Spoiling("dropped")
# The store does it, and the connection is closed in place of its answer.
lost_answer = Spoiling("lost_answer")
# The store does it, and is said to have been too busy.
refused_after_all = Spoiling("refused_after_all")
# The store writes as if no condition had been named, as servers do that know none.
unconditional = Spoiling("unconditional")


def token_key(token: str) -> str:
    """Return what stands for a token, which itself is in no list of requests."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def refused(status: int, code: str = "", detail: str = "") -> Spoiling:
    """Answer with a status in place of the store; why a login is refused, Azure says in a detail."""
    return Spoiling("refused", status=status, code=code, detail=detail)


def late(seconds: float) -> Spoiling:
    """Answer after a while: where that is beyond the client's patience, it is no answer."""
    return Spoiling("late", seconds=seconds)


def checked_beforehand(seconds: float) -> Spoiling:
    """Check whether an object is absent and then write, which is fine until two clients do so at once."""
    return Spoiling("checked_beforehand", seconds=seconds)


class SpoiledStore:
    """The running proxy, a process of its own.

    Args:
        endpoint: address of the store behind.
        delay: seconds that each request takes besides.

    What is spoiled is that of the newest command.
    """

    def __init__(self, endpoint: str, delay: float = 0.0) -> None:
        """Start it on a free loopback port."""
        command = [sys.executable, "-m", "streaming.testing.store_proxy", endpoint]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._lock = threading.Lock()
        self.address = str(self._answer())
        self._delay = 0.0
        self.delay = delay

    @property
    def delay(self) -> float:
        """Seconds that each request takes besides."""
        return self._delay

    @delay.setter
    def delay(self, seconds: float) -> None:
        self._delay = seconds
        self._order(delay=seconds)

    @property
    def requests(self) -> list[StoreRequest]:
        """All requests so far, in the order in which they arrived."""
        return self.since(0)

    @property
    def spoilt(self) -> int:
        """How many requests were spoilt so far."""
        return sum(each.spoilt for each in self.requests)

    def since(self, first: int) -> list[StoreRequest]:
        """Return the requests but for the first so many."""
        return [StoreRequest(**each) for each in self._order(since=first)]

    def counted(self, since: int = 0) -> Counter[str]:
        """Return how many requests of each kind there were.

        Args:
            since: how many of the first do not count.
        """
        return Counter(each.verb for each in self.since(since))

    def spoil(
        self, spoiling: Spoiling, *, verb: str = "", match: str = "", key: str = "", times: int = sys.maxsize
    ) -> None:
        """Spoil requests from now on.

        Args:
            spoiling: how.
            verb: of those alone, as in StoreRequest.
            match: those alone whose path or query holds it.
            key: those alone that are signed with the key of this id.
            times: how many of them; the others go through.
        """
        self._order(spoil={**asdict(spoiling), "verb": verb, "match": match, "key": key, "times": times})

    def mend(self) -> None:
        """Let everything through from now on."""
        self._order(spoil=None)

    def close(self) -> None:
        """End it, with whatever it has not answered."""
        self._child.kill()
        self._child.communicate()

    def _order(self, **order: Any) -> Any:
        with self._lock:
            assert self._child.stdin is not None
            self._child.stdin.write(f"{json.dumps(order)}\n")
            self._child.stdin.flush()
            return self._answer()

    def _answer(self) -> Any:
        assert self._child.stdout is not None
        return json.loads(self._child.stdout.readline())


@contextmanager
def spoiled_store(endpoint: str, delay: float = 0.0) -> Iterator[SpoiledStore]:
    """Run the proxy for the length of a block; see SpoiledStore."""
    proxy = SpoiledStore(endpoint, delay)
    try:
        yield proxy
    finally:
        proxy.close()
