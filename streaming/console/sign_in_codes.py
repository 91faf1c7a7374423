"""One-use codes: whoever holds a bearer token draws one, and a browser exchanges it for a session."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice, takewhile

from streaming.output.redaction import forget_secret, keep_secret
from streaming.tokens.bearer import digest_of

CODE_SECONDS = 60.0
_CODE_BYTES = 32
_MOST_CODES = 1_000


@dataclass(frozen=True)
class Holder:
    """The bearer token that a code or a session stands for.

    Attributes:
        token_id: its id.
        digest: its SHA-256; its text is kept nowhere.
    """

    token_id: str
    digest: str


@dataclass(frozen=True)
class _Drawn:
    holder: Holder
    at: float
    code: str = field(repr=False)


class SignInCodes:
    """The codes that were drawn and not used yet. Safe to use from several threads.

    Args:
        seconds: monotonic seconds.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        # By the SHA-256 of a code.
        self._drawn: OrderedDict[str, _Drawn] = OrderedDict()

    def draw(self, holder: Holder) -> str:
        """Draw a code; it is hidden wherever this process prints or logs, for as long as it is good."""
        code = secrets.token_urlsafe(_CODE_BYTES)
        keep_secret(code)
        with self._lock:
            self._drawn[digest_of(code)] = _Drawn(holder, self._seconds(), code)
            for each in self._over():
                self._forget(each)
        return code

    def take(self, code: str) -> Holder | None:
        """Use a code up; return whom it stands for, None where it is none, was used, or is too old."""
        with self._lock:
            found = self._forget(digest_of(code))
        if found is None or self._seconds() - found.at >= CODE_SECONDS:
            return None
        return found.holder

    def _over(self) -> list[str]:
        """Return the codes that are too old, and the oldest of too many: they are in order of age."""
        now = self._seconds()
        old = takewhile(lambda each: now - each[1].at >= CODE_SECONDS, self._drawn.items())
        many = islice(self._drawn, max(0, len(self._drawn) - _MOST_CODES))
        return [*dict.fromkeys([*(digest for digest, _ in old), *many])]

    def _forget(self, digest: str) -> _Drawn | None:
        ended = self._drawn.pop(digest, None)
        if ended is not None:
            forget_secret(ended.code)
        return ended
