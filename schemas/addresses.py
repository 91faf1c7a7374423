"""What an address leads to: a path or a URI, this machine, one of a private network, or a public one."""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Where machines of clouds keep credentials, beside link-local addresses: of AWS, Google and Alibaba.
_CREDENTIALS = frozenset(map(ipaddress.ip_address, ("fd00:ec2::254", "fd20:ce::254", "100.100.100.200")))


def scheme_of(name: str) -> str | None:
    """Return the scheme that a name begins with, such as `s3` of `s3://bucket`; None for a path."""
    found = _SCHEME.match(name)
    return None if found is None else found[1]


def is_uri(name: str) -> bool:
    """Whether a name is a URI rather than a path: a scheme, and what begins with a slash."""
    scheme = scheme_of(name)
    return scheme is not None and name[len(scheme) + 1 :].startswith("/")


def literal_address(host: str) -> IpAddress | None:
    """Return the IP address that a host is, None for a name.

    Every spelling counts that a resolver takes for an address: `2130706433` and `0x7f.1` are 127.0.0.1.
    """
    bare = host.strip("[]").partition("%")[0].rstrip(".")
    try:
        return _unwrapped(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(bare)) if bare and bare.isascii() else None
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    address = literal_address(host)
    return host.lower().rstrip(".") == "localhost" if address is None else address.is_loopback


def is_public(address: IpAddress) -> bool:
    """Return whether an address belongs to no private, link-local, shared or reserved network."""
    found = _unwrapped(address)
    is_site_local = isinstance(found, ipaddress.IPv6Address) and found.is_site_local
    return found.is_global and not (found.is_multicast or found.is_reserved or is_site_local)


def may_reach(host: str, address: str, *, named: bool) -> bool:
    """Return whether a host may be connected to at an address that its name leads to now.

    Args:
        host: as it is named; this machine is reached at its own addresses alone.
        address: an IP address as the resolver gives it.
        named: somebody has named the host as one that may lie in a private network; link-local addresses,
            and others where machines keep their credentials, are never reached.
    """
    met = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    if is_loopback(host):
        return met.is_loopback
    return is_public(met) or (named and not (met.is_link_local or met in _CREDENTIALS))


def _unwrapped(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that an IPv6 address stands for, if it stands for one."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def origin_of(url: str) -> str:
    """Return scheme, host and port of a web address, the port left out where it is the scheme's own.

    Raises:
        ValueError: the address has no host, a port that is none, or signs that cannot be seen; the message
            does not quote it.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if not host.rstrip(".") or " " in host or not url.isprintable():
        raise ValueError("expected an address such as https://host")
    shown = f"[{host}]" if ":" in host else host.rstrip(".")
    port = _port_of(parts)
    return f"{parts.scheme}://{shown}" + ("" if port in (None, _PORTS.get(parts.scheme)) else f":{port}")


def _port_of(parts: SplitResult) -> int | None:
    try:
        return parts.port
    except ValueError:
        raise ValueError("expected a port from 0 to 65535") from None
