"""Sessions of browsers: a cookie says which, and its bearer token says who that is and what they may do."""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import islice, takewhile

from starlette.requests import HTTPConnection
from starlette.responses import Response

from streaming.console.sign_in_codes import Holder
from streaming.output.redaction import forget_secret, keep_secret
from streaming.serve.idempotency import WRITES
from streaming.serve.known_tokens import KnownTokens
from streaming.serve.problems import RequestRefusedError
from streaming.tokens.bearer import digest_of
from streaming.tokens.principal import Principal

SIGN_IN = "/console/sign-in"
CSRF_HEADER = "X-CSRF-Token"
SESSION_SECONDS = 12 * 3600.0
_SECRET_BYTES = 32
_MOST_SESSIONS = 10_000
_COOKIE, _COOKIE_OF_TLS = "flagstream", "__Host-flagstream"


@dataclass(frozen=True)
class Session:
    """A browser that has signed in.

    Attributes:
        holder: the bearer token that it stands for.
        csrf: what its pages send with each write; no page of another site knows it.
        began: in monotonic seconds.
        cookie: what the browser sends; it is hidden wherever this process writes, for as long as it is good.
    """

    holder: Holder
    csrf: str
    began: float
    cookie: str = field(repr=False)


class Sessions:
    """The sessions of a server, in its memory, and the way in which their requests are known.

    Args:
        book: of all tokens.
        secure: whether browsers reach the server by TLS, and send the cookie by nothing else.
        seconds: monotonic seconds.
    """

    def __init__(
        self, book: KnownTokens, *, secure: bool, seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._book, self._secure, self._seconds = book, secure, seconds
        self._lock = threading.Lock()
        # SHA-256 of a cookie → the session.
        self._open: OrderedDict[str, Session] = OrderedDict()

    async def identify(self, asked: HTTPConnection) -> Principal | None:
        """See streaming.serve.identity.Authenticator; a write without its CSRF token is refused, 403."""
        session = None if "authorization" in asked.headers else self.of(asked)
        if session is None:
            return None
        if asked.scope["method"] in WRITES:
            if asked.url.path == SIGN_IN:  # by a new code, whoever was signed in before
                return None
            _check_csrf(asked, session)
        return self.principal(session.holder)

    def principal(self, holder: Holder) -> Principal | None:
        """Return whom a bearer token stands for now, None where it has ended."""
        return self._book.principal_of(holder.token_id, holder.digest)

    def of(self, asked: HTTPConnection) -> Session | None:
        """Return the session whose cookie a request has."""
        sent = asked.cookies.get(self.cookie_of(asked))
        if sent is None:
            return None
        with self._lock:
            found = self._open.get(digest_of(sent))
        if found is None or self._seconds() - found.began >= SESSION_SECONDS:
            return None
        return found

    def cookie_of(self, asked: HTTPConnection) -> str:
        """Return the name of the cookie: browsers send one to every port, where other servers may be."""
        if self._secure:
            return _COOKIE_OF_TLS
        return _COOKIE if asked.url.port is None else f"{_COOKIE}-{asked.url.port}"

    def begin(self, holder: Holder, asked: HTTPConnection, answer: Response) -> None:
        """Begin a session, whose cookie goes with the answer to a request."""
        sent = secrets.token_urlsafe(_SECRET_BYTES)
        keep_secret(sent)
        session = Session(holder, secrets.token_urlsafe(_SECRET_BYTES), self._seconds(), sent)
        with self._lock:
            self._open[digest_of(sent)] = session
            for each in self._over():
                self._forget(each)
        answer.set_cookie(
            self.cookie_of(asked), sent, max_age=int(SESSION_SECONDS), path="/", secure=self._secure,
            httponly=True, samesite="strict",
        )  # fmt: skip

    def end(self, asked: HTTPConnection, answer: Response) -> None:
        """End the session of a request; the cookie, too, leaves the browser."""
        with self._lock:
            self._forget(digest_of(asked.cookies.get(self.cookie_of(asked), "")))
        answer.delete_cookie(
            self.cookie_of(asked), path="/", secure=self._secure, httponly=True, samesite="strict"
        )

    def _over(self) -> list[str]:
        """Return the sessions that are too old, and the oldest of too many: they are in order of age."""
        now = self._seconds()
        old = takewhile(lambda each: now - each[1].began >= SESSION_SECONDS, self._open.items())
        many = islice(self._open, max(0, len(self._open) - _MOST_SESSIONS))
        return [*dict.fromkeys([*(digest for digest, _ in old), *many])]

    def _forget(self, digest: str) -> None:
        ended = self._open.pop(digest, None)
        if ended is not None:
            forget_secret(ended.cookie)


def _check_csrf(asked: HTTPConnection, session: Session) -> None:
    sent = asked.headers.get(CSRF_HEADER, "").encode()
    if not hmac.compare_digest(sent, session.csrf.encode()):
        said = f"whoever is signed in by a cookie sends the {CSRF_HEADER} of their page with a write"
        raise RequestRefusedError(HTTPStatus.FORBIDDEN, said)
