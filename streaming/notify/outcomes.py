"""What became of one attempt to deliver, and the addresses that attempts may go to."""

from __future__ import annotations

import socket
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal, Protocol
from urllib.parse import urlsplit

from agent.model.guarded_http import Reach
from schemas.addresses import is_loopback, is_public, literal_address, may_reach, origin_of
from schemas.errors import ConfigurationError
from streaming.notify.notices import Notice

LONGEST_RETRY_AFTER = 3_600.0


@dataclass(frozen=True)
class DeliveryOutcome:
    """What one attempt has come to.

    Attributes:
        became: `delivered`; `refused`, which no repetition changes; `failed`, which may pass.
        said: why it was not delivered, without addresses and secrets.
        retry_after: seconds that the receiver has asked for.
        had: who of several has it although others do not; see Notice.
    """

    became: Literal["delivered", "refused", "failed"]
    said: str = ""
    retry_after: float = 0.0
    had: tuple[str, ...] = ()


DELIVERED = DeliveryOutcome("delivered")


class Receiver(Protocol):
    """Whoever takes notices."""

    def deliver(self, notice: Notice) -> DeliveryOutcome:
        """Make one attempt, which ends in bounded time; never raises for what the receiver does."""

    def close(self) -> None:
        """Let go of connections; a later attempt opens them again."""


def reach_of(url: str, private_hosts: Collection[str], *, http: bool, key: str) -> Reach:
    """Check that notices may go to an address, and return whether its name may lead to a private network.

    Args:
        url: of a webhook.
        private_hosts: hosts that may lie in a private network, by name.
        http: the address may be one that is not encrypted.
        key: of the configuration that names it, for errors.

    Raises:
        ConfigurationError: it is none, holds a login, is not encrypted, or lies in a private network without
            leave; the message does not quote it, since addresses hold secrets.
    """
    problem = _problem_of(url)
    if problem is not None:
        raise ConfigurationError(f"the address {problem}", key=key)
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if parts.scheme == "http" and not http and not is_loopback(host):
        problem = "is not encrypted, and not marked `http: true`"
    problem = problem or private_problem(host, private_hosts)
    if problem is not None:
        raise ConfigurationError(f"the address {problem}", key=key)
    return "named" if host in lowered(private_hosts) else "public"


def _problem_of(url: str) -> str | None:
    try:
        origin_of(url)
        parts = urlsplit(url)
    except ValueError:
        return "is none: expected one such as https://host/path"
    if parts.scheme not in ("http", "https"):
        return "is none: expected one such as https://host/path"
    if parts.username is not None or parts.password is not None:
        return "holds a login: requests are signed instead"
    return "holds a fragment, which is never sent" if parts.fragment else None


def private_problem(host: str, private_hosts: Collection[str]) -> str | None:
    """Return what is wrong with a host that is written as an IP address, None where nothing is."""
    address = literal_address(host)
    if address is None or address.is_loopback or is_public(address):
        return None
    if address.is_link_local:
        return "is link-local, where machines keep their credentials"
    return (
        None if host in lowered(private_hosts) else "lies in a private network, and is not in private_hosts"
    )


def leads_astray(host: str, port: int, private_hosts: Collection[str]) -> str | None:
    """Return why a host is not to be connected to, by where its name leads now; None where it may be."""
    try:
        found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return "the name cannot be resolved"
    named = host.lower() in lowered(private_hosts)
    fits = all(may_reach(host, each, named=named) for each in found)
    return None if fits else "the name leads to a private network"


def lowered(hosts: Collection[str]) -> frozenset[str]:
    """Return names of hosts as they are compared."""
    return frozenset(each.lower() for each in hosts)


def retry_after_of(value: str | None, now: float) -> float:
    """Return for how many seconds a receiver asks to be left alone, 0 where it does not; an hour at most.

    Args:
        value: of the header `Retry-After`: seconds, or a date.
        now: seconds since 1970.
    """
    if value is None:
        return 0.0
    try:
        asked = float(value) if value.strip().isdecimal() else parsedate_to_datetime(value).timestamp() - now
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(asked, 0.0), LONGEST_RETRY_AFTER)
