"""Takes secrets out of what is about to be shown or logged, whoever has quoted them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from urllib.parse import quote, quote_plus

from agent.model.proxies import proxy_address

_SHORTEST = 6  # what is shorter would black out ordinary words
_HIDDEN = "[redacted]"
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
# A token may begin or end like a secret that was taken out before.
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)(?:(?:[\w.~+/=-]*\[redacted\])+[\w.~+/=-]*|[\w.~+/=-]{6,})")
_LOGIN = re.compile(r"(://[^/\s:@]*):[^/\s]+@")  # up to the last @: passwords may hold one
# How a value stands between double quotes in a login of Java's.
JAVA_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r"})
# How others write a text: JSON with and without letters beyond ASCII, Python, Java's logins, addresses.
_QUOTED: tuple[Callable[[str], str], ...] = (
    lambda text: json.dumps(text)[1:-1],
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    lambda text: repr(text)[1:-1],
    lambda text: repr(text.encode("utf-8", "surrogatepass"))[2:-1],
    lambda text: text.translate(JAVA_ESCAPES),
    lambda text: quote(text, safe="", errors="replace"),
    lambda text: quote_plus(text, errors="replace"),
)
_LEVELS = 2  # what is quoted is quoted again, as a login within JSON
_known: dict[str, frozenset[str]] = {}  # value → the forms in which it may stand somewhere


def keep_secret(value: str | None) -> None:
    """Have a value of six characters or more hidden from now on wherever this process prints or logs.

    It is hidden as it is and as others quote it.
    """
    if value and len(value) >= _SHORTEST and value not in _known:
        _known[value] = _forms(value)


def forget_secret(value: str) -> None:
    """Hide a value no longer, which opens nothing any more: of those that come and go there are ever more."""
    _known.pop(value, None)


def _forms(value: str) -> frozenset[str]:
    found = {value}
    for _ in range(_LEVELS):
        found |= {how(each) for each in found for how in _QUOTED}
    return frozenset(found)


def keep_environment_secret(environ: Mapping[str, str]) -> None:
    """Have the values of all variables hidden whose names say that they are secrets, and proxies' logins."""
    for name, value in environ.items():
        if _SECRET_NAME.search(name):
            keep_secret(value)
        elif name.lower().endswith("_proxy"):
            keep_secret(value.rpartition("@")[0].partition("://")[2].partition(":")[2])
            with suppress(ValueError):
                keep_secret((proxy_address(value).login or ("", ""))[1])


def redacted(text: str) -> str:
    """Return a text without known secrets, logins in addresses and authorization headers."""
    known = {form for forms in list(_known.values()) for form in forms}
    for form in sorted(known, key=len, reverse=True):
        text = text.replace(form, _HIDDEN)
    return _LOGIN.sub(rf"\1:{_HIDDEN}@", _BEARER.sub(rf"\1\2{_HIDDEN}", text))
