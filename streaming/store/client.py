"""Clients of object stores for places, and what their faults mean to whoever calls.

Credentials come from the environment that obstore reads, or from variables with a prefix of their own, see
`streaming.store.access`; they are part of no place, error or log.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import ObjectStore, from_url

from schemas.errors import ConfigurationError, StoreError
from streaming.store.access import Access
from streaming.store.credentials import KEYS, PROFILES, provider_of
from streaming.store.faults import fault_of_store, first_line, lacks_bucket, not_admitted, passes
from streaming.store.options import DEFAULTS, retry_config
from streaming.store.place import Place

_Items = tuple[tuple[str, str], ...]

# Given to a client, they put those of the environment out of force, so these are given as well.
_OF_CLIENT = re.compile(
    r"^(?:aws_|azure_)?(allow_http|allow_invalid_certificates|connect_timeout|timeout|pool_idle_timeout|"
    r"proxy_url|proxy_ca_certificate|proxy_excludes|user_agent)$"
)
# Options of deltalake that are obstore's in another place.
_RETRY_NAMES = re.compile(r"^(max_retries|retry_timeout|backoff_config\..*)$")
_VARIABLES = ("AWS_", "AZURE_", "AZURITE_")


def key_of(place: Place) -> str:
    """Return what a store calls a place, relative to its bucket or container; any character may be in it."""
    return place.uri.partition("://")[2].partition("/")[2].strip("/")


def name_in(place: Place, key: str) -> str:
    """Return the name, relative to a place, of what a store has listed below it by its whole key."""
    return key.removeprefix(f"{key_of(place)}/").rstrip("/")


def client_of(place: Place, access: Access | None = None) -> ObjectStore:
    """Return a client for the bucket or container that a place lies in; the same one for the same place.

    Raises:
        ConfigurationError: what the environment or the place's options say cannot be used.
    """
    parts = urlsplit(place.uri)
    root = Place(f"{parts.scheme}://{parts.netloc}", place.options)
    given = access.variables if access is not None else {}
    with store_faults(root):
        return _client(root.uri, _items(place.options), _items(given), _items(_of_stores(os.environ)))


def _of_stores(environ: Mapping[str, str]) -> Mapping[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(_VARIABLES)}


def _items(named: Mapping[str, str]) -> _Items:
    return tuple(sorted(named.items()))


@lru_cache(maxsize=64)
def _client(root: str, options: _Items, given: _Items, environment: _Items) -> ObjectStore:
    """Another environment makes another client."""
    named = {name: value for name, value in options if not _RETRY_NAMES.match(name)}
    named |= {name.lower(): value for name, value in given if name not in (*KEYS, *PROFILES)}
    around = DEFAULTS | {name.lower(): value for name, value in environment}
    provider = provider_of(dict(given), dict(environment)) if root.startswith("s3:") else None
    return from_url(
        root,
        config=cast("Any", {name: value for name, value in named.items() if not _OF_CLIENT.match(name)}),
        client_options=cast("Any", _client_options(around) | _client_options(named)),
        retry_config=cast("Any", retry_config(DEFAULTS | dict(options))),
        credential_provider=cast("Any", provider),
    )


def _client_options(named: Mapping[str, str]) -> dict[str, str]:
    return {found[1]: value for name, value in named.items() if (found := _OF_CLIENT.match(name))}


@contextmanager
def store_faults(place: Place) -> Iterator[None]:
    """Raise what a store answers as the project's errors; what is absent or refused stays as it is.

    Raises:
        ConfigurationError: the store does not admit this process, has no such bucket, or cannot do it.
        StoreError: it is away or busy, or its credentials have expired.
    """
    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except (BaseError, FileNotFoundError) as fault:
        raise _translated(fault, place) from None  # the library's own words may quote a request


def _translated(fault: Exception, place: Place) -> Exception:
    text = str(fault)
    if isinstance(fault, FileNotFoundError) and not lacks_bucket(text):
        return fault
    if isinstance(fault, PermissionDeniedError | UnauthenticatedError) and not passes(text):
        return not_admitted(text, place)
    said = first_line(text)
    unusable = isinstance(fault, NotSupportedError | InvalidPathError | UnknownConfigurationKeyError)
    if unusable or ": Missing" in said or "Invalid Access Key" in said:
        return ConfigurationError(said, where=place.uri)
    return fault_of_store(text, place) or StoreError(f"{place}: {said}")
