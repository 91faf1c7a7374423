"""The proxy that the environment names, whose address may hold a password: read once, and never shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[\w.-]+|[0-9A-Fa-f:.]+")
_NO_PLACE = "its host is none, or its port is no number up to 65535"


@dataclass(frozen=True)
class ProxyAddress:
    """Where a proxy is, and how one logs in there.

    Attributes:
        scheme: `http` or `https`, how one speaks with the proxy itself.
        host: its name or address, without brackets.
        port: that of the scheme where the address names none.
        login: user and password, None without.
    """

    scheme: str
    host: str
    port: int
    login: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Its address without the login."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def proxy_address(written: str) -> ProxyAddress:
    """Return a proxy as `HTTPS_PROXY` names it: `host:port` or `http://user:password@host:port`.

    A password may hold any sign, as it is or as an address escapes it.

    Raises:
        ValueError: what is wrong, without anything that stands there.
    """
    scheme, slashes, rest = written.strip().partition("://")
    scheme, rest = (scheme.lower(), rest) if slashes else ("http", written.strip().removeprefix("//"))
    if scheme not in _PORTS:
        raise ValueError("it begins with neither http:// nor https://")
    login, at, place = rest.rpartition("@")
    user, _, password = login.partition(":")
    host, port = _host_and_port(place)
    known = (unquote(user), unquote(password)) if at else None
    return ProxyAddress(scheme, host, _PORTS[scheme] if port is None else port, known)


def _host_and_port(place: str) -> tuple[str, int | None]:
    try:
        parts = urlsplit(f"//{place}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError(_NO_PLACE) from None
    if not host:
        raise ValueError("it names no host")
    if not _HOST.fullmatch(host) or port == 0:
        raise ValueError(_NO_PLACE)
    return host, port
