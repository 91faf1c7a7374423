"""Takes secrets out of what is about to be shown or logged, whoever has quoted them."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SHORTEST = 6  # what is shorter would black out ordinary words
_HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
# A token may begin or end like a secret that was taken out before.
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)(?:(?:[\w.~+/=-]*\[redacted\])+[\w.~+/=-]*|[\w.~+/=-]{6,})")
_LOGIN = re.compile(r"(://[^/\s:@]*):[^/\s]+@")  # up to the last @: passwords may hold one
_known: set[str] = set()


def keep_secret(value: str | None) -> None:
    """Have a value of six characters or more hidden from now on wherever this process prints or logs."""
    if value and len(value) >= _SHORTEST:
        _known.add(value)


def keep_environment_secret(environ: Mapping[str, str]) -> None:
    """Have the values of all variables hidden whose names say that they are secrets."""
    for name, value in environ.items():
        if _SECRET_NAME.search(name):
            keep_secret(value)


def redacted(text: str) -> str:
    """Return a text without known secrets, logins in addresses and authorization headers."""
    for value in sorted(_known, key=len, reverse=True):
        text = text.replace(value, _HIDDEN)
    return _LOGIN.sub(rf"\1:{_HIDDEN}@", _BEARER.sub(rf"\1\2{_HIDDEN}", text))
