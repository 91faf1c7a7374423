"""Where a process listens, as people write it: a port of this machine alone, or an address and a port."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from schemas.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
_OFF = ("", "off", "none")
_ADDRESS = re.compile(r"(?:(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):)?(?P<port>\d{1,5})")
_MOST = 65_535


@dataclass(frozen=True)
class ListenAddress:
    """A host and a port; port 0 is any that is free."""

    port: int
    host: str = LOOPBACK

    def __str__(self) -> str:
        """Return it as part of a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def is_free(address: ListenAddress) -> bool:
    """Say whether nobody listens there, and this process may."""
    kind = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(kind) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address.host, address.port))
        except OSError:
            return False
    return True


def listen_address(text: str | None, where: str) -> ListenAddress | None:
    """Read `[HOST:]PORT`; None for nothing and for `off`. Without a host it is this machine alone.

    Raises:
        ConfigurationError: it is neither.
    """
    given = (text or "").strip()
    if given.lower() in _OFF:
        return None
    found = _ADDRESS.fullmatch(given)
    if found is None or int(found["port"]) > _MOST:
        raise ConfigurationError(
            "expected a port, HOST:PORT or off: 9464 is for this machine alone, 0.0.0.0:9464 for others, too",
            where=where,
        )
    return ListenAddress(int(found["port"]), (found["host"] or LOOPBACK).strip("[]"))
