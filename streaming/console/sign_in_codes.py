"""One-use codes: whoever holds a bearer token draws one, and a browser exchanges it for a session."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from streaming.output.redaction import keep_secret
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


class SignInCodes:
    """The codes that were drawn and not used yet. Safe to use from several threads.

    Args:
        seconds: monotonic seconds.
    """

    def __init__(self, seconds: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        # SHA-256 of a code → whom it stands for, and when it was drawn.
        self._drawn: OrderedDict[str, tuple[Holder, float]] = OrderedDict()

    def draw(self, holder: Holder) -> str:
        """Draw a code; from now on it is hidden wherever this process prints or logs."""
        code = secrets.token_urlsafe(_CODE_BYTES)
        keep_secret(code)
        with self._lock:
            self._drawn[digest_of(code)] = (holder, self._seconds())
            if len(self._drawn) > _MOST_CODES:
                self._drawn.popitem(last=False)
        return code

    def take(self, code: str) -> Holder | None:
        """Use a code up; return whom it stands for, None where it is none, was used, or is too old."""
        with self._lock:
            found = self._drawn.pop(digest_of(code), None)
        if found is None or self._seconds() - found[1] >= CODE_SECONDS:
            return None
        return found[0]
