"""Addresses of stores that the environment names, checked first: some would end a library in a panic."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from schemas.errors import ConfigurationError
from streaming.store.place import Place

_S3 = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT")
_AZURE = ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_YES = {"1", "true", "on", "yes", "y"}


def check_endpoints(place: Place, environ: Mapping[str, str]) -> None:
    """Check the addresses by which a place in a store is reached.

    Raises:
        ConfigurationError: one is no address, or is one without TLS that nothing allows.
    """
    is_s3 = place.uri.startswith("s3:")
    for name in _S3 if is_s3 else _AZURE:
        scheme = _scheme_of(name, environ[name]) if environ.get(name) else "https"
        # On Azure an emulator needs no more than that it is one.
        if is_s3 and scheme == "http" and environ.get("AWS_ALLOW_HTTP", "").lower() not in _YES:
            raise ConfigurationError(
                "nothing is encrypted on the way to an address with http://: name one with https://, or set "
                "AWS_ALLOW_HTTP=true as well",
                where=name,
            )


def _scheme_of(name: str, address: str) -> str:
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise ConfigurationError("expected an address such as https://minio.internal:9000", where=name)
    return parts.scheme
