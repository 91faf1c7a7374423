"""A bearer token as text: an id that may be known, and 256 random bits that may not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from pydantic import SecretStr

from streaming.output.redaction import keep_secret

Scope = Literal["read", "triage", "operate", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_GRANTS: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "triage": frozenset({"read", "triage"}),
    "operate": frozenset({"read", "operate"}),
    "admin": frozenset(SCOPES),
}
_ID_BYTES, _SECRET_BYTES = 6, 32
_TOKEN = re.compile(r"fst_(?P<id>[0-9a-f]{12})_[A-Za-z0-9_-]{43}")


def granted(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """Return all that scopes allow: whoever may change something may see it, too."""
    return frozenset(each for scope in scopes for each in _GRANTS[scope])


@dataclass(frozen=True)
class NewToken:
    """A token that was just drawn: the only moment at which its text is known.

    Attributes:
        token_id: its id, which may be shown.
        text: what a client sends; it is kept nowhere.
    """

    token_id: str
    text: SecretStr = field(repr=False)

    @property
    def digest(self) -> str:
        """What is kept of it."""
        return digest_of(self.text.get_secret_value())


def draw(random: Callable[[int], bytes] = secrets.token_bytes) -> NewToken:
    """Draw a token; from now on its text is hidden wherever this process prints or logs."""
    token_id = random(_ID_BYTES).hex()
    secret = _url_safe(random(_SECRET_BYTES))
    text = f"fst_{token_id}_{secret}"
    keep_secret(text)
    return NewToken(token_id, SecretStr(text))


def id_of(text: str) -> str | None:
    """Return the id that a token names, None for what is no token."""
    found = _TOKEN.fullmatch(text)
    return None if found is None else found["id"]


def digest_of(text: str) -> str:
    """Return the SHA-256 of a token in hex. A plain hash does: nobody guesses 256 random bits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def is_of(text: str, digest: str) -> bool:
    """Say whether a digest is a token's, in a time that does not depend on how much of it agrees."""
    return hmac.compare_digest(digest_of(text), digest)


def _url_safe(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
