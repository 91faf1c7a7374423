"""Values of a connection file that one of the two clients would refuse later, or not by the key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError

# As Java's client takes addresses: a protocol may stand before, brackets around an address of IPv6.
_SERVER = re.compile(r"(?:[\w.%-]*://)?(?:\[[0-9A-Fa-f:.%]+\]|[\w.%-]+):[0-9]{1,5}", re.ASCII)
_CHOICES = {
    "client.dns.lookup": ("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only"),
    "ssl.endpoint.identification.algorithm": ("https", ""),
}
_TOKENS = "sasl.oauthbearer.token.endpoint.url"
_NO_ISSUER = "expected an address such as https://host/token, without a login"


def check_values(resolved: Mapping[str, str]) -> None:
    """Check addresses, durations and what has few values.

    Raises:
        ConfigurationError: naming the key and what is expected, never what stands there.
    """
    for key, value in resolved.items():
        problem = _problem(key, value)
        if problem is not None:
            raise ConfigurationError(problem, key=key)


def _problem(key: str, value: str) -> str | None:
    if key == "bootstrap.servers":
        servers = [each.strip() for each in value.split(",") if each.strip()]
        is_fit = servers and all(map(_SERVER.fullmatch, servers))
        return None if is_fit else "expected host:port, of several brokers with commas between them"
    if key.endswith(".ms"):
        return None if re.fullmatch("[0-9]+", value) else "expected a number of milliseconds"
    if key in _CHOICES:
        return None if value.lower() in _CHOICES[key] else f"expected one of: {', '.join(_CHOICES[key])}"
    return None if key != _TOKENS or _is_address(value) else _NO_ISSUER


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        is_fit = parts.scheme in ("http", "https") and parts.port != 0 and "@" not in parts.netloc
        return is_fit and bool(parts.hostname)
    except ValueError:
        return False
