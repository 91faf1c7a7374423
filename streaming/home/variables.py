"""The environment variables that settings are read from, and how each is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import SecretStr

from schemas.errors import ConfigurationError
from schemas.llm import checked_base_url
from streaming.home.brokers import Brokers
from streaming.home.client_properties import load_properties
from streaming.home.service_variables import is_of_a_service
from streaming.output.redaction import keep_environment_secret, keep_secret
from streaming.store.access import Access
from streaming.store.atomic import check_atomic
from streaming.store.endpoints import check_endpoints
from streaming.store.options import options_of
from streaming.store.place import Place

PREFIX = "FLAGSTREAM_"
# What of a store's own variables is to hold for the audit log's anchor alone: FLAGSTREAM_AUDIT_ANCHOR_AWS_…
ANCHOR_PREFIX = "FLAGSTREAM_AUDIT_ANCHOR_"
_OF_A_STORE = ("AWS_", "AZURE_")
_SHORTEST_KEY = 32
OWN_BROKERS = ("embedded", "docker")
VARIABLES = {
    "FLAGSTREAM_HOME": "folder for all state; --home goes before it",
    "FLAGSTREAM_STORE": "a URI or path: where tables and what belongs to them lie; before a spec's store",
    "FLAGSTREAM_STORE_OPTIONS": "how long the store is waited for, such as timeout=10s,max_retries=8",
    "FLAGSTREAM_CACHE": "folder for downloads",
    "FLAGSTREAM_KAFKA": "embedded, docker, or a bootstrap address",
    "FLAGSTREAM_KAFKA_CONFIG": "a client.properties: how to reach a secured Kafka",
    "FLAGSTREAM_LLM_BASE_URL": "an OpenAI-compatible endpoint",
    "FLAGSTREAM_LOG_FORMAT": "text or json: how a running agent logs",
    "FLAGSTREAM_IVY_SETTINGS": "an Ivy settings file that names a mirror",
    "FLAGSTREAM_SCHEMA_REGISTRY": "address of a schema registry's Confluent interface",
    "FLAGSTREAM_SCHEMA_REGISTRY_LOGIN": "user:password for it",
    "FLAGSTREAM_AUDIT_KEY": "the secret of the audit log's hashes; a lake in a store needs it",
    "FLAGSTREAM_METRICS": "[HOST:]PORT where run, serve and notify serve metrics and health, or off",
    "FLAGSTREAM_TRACES": "address of an OTLP collector over HTTP, or off",
    "FLAGSTREAM_AUDIT_ANCHOR": "a URI or path: where the audit log's anchor lies, if not beside the lake",
    "FLAGSTREAM_PSEUDONYM_KEY": "the secret of pseudonyms; a lake in a store needs it where a model is asked",
}


def is_known(name: str, value: str) -> bool:
    """Return whether a variable of ours is one that is read."""
    of_the_anchor = name.startswith(tuple(ANCHOR_PREFIX + each for each in _OF_A_STORE))
    return name in VARIABLES or of_the_anchor or is_of_a_service(name, value)


def store_named(given: str | None, where: str, environ: Mapping[str, str]) -> Place | None:
    """Return the place that a URI or path names, with the options that the environment gives; None for none.

    Raises:
        ConfigurationError: it is none, or the environment keeps commits to it from being atomic.
    """
    place = Place.parse(given, where) if given else None
    if place is None or place.is_local:
        return place
    check_atomic(environ)
    check_endpoints(place, environ)
    return replace(place, options=options_of(environ))


def model_endpoint(value: str | None) -> str | None:
    """Return the address of a model endpoint, None for none.

    Raises:
        ConfigurationError: it is no address.
    """
    try:
        return checked_base_url(value) if value else None
    except ValueError as fault:
        raise ConfigurationError(str(fault), where="FLAGSTREAM_LLM_BASE_URL") from None


def registry_address(value: str | None) -> str | None:
    """Return the address of a schema registry, None for none.

    Raises:
        ConfigurationError: it is no address, or holds a login.
    """
    try:
        return checked_base_url(value) if value else None
    except ValueError:
        raise ConfigurationError(
            "expected an address such as https://host/apis/ccompat/v7, without a login: "
            "that goes into FLAGSTREAM_SCHEMA_REGISTRY_LOGIN",
            where="FLAGSTREAM_SCHEMA_REGISTRY",
        ) from None


def registry_login(value: str | None) -> SecretStr | None:
    """Return the login of a schema registry, None for none; its password is kept out of all output.

    Raises:
        ConfigurationError: it is no user and password.
    """
    user, colon, password = (value or "").partition(":")
    if value and not (user and colon):
        raise ConfigurationError("expected user:password", where="FLAGSTREAM_SCHEMA_REGISTRY_LOGIN")
    keep_secret(password)
    return secret_of(value)


def anchor_access(environ: Mapping[str, str]) -> Access:
    """Return what the environment gives for the anchor alone; secrets of it are kept out of all output."""
    access = Access.with_prefix(ANCHOR_PREFIX, environ)
    keep_environment_secret(access.variables)
    return access


def key_named(environ: Mapping[str, str], name: str) -> SecretStr | None:
    """Return the key that a variable holds, None for none.

    Raises:
        ConfigurationError: it is too short.
    """
    value = environ.get(name)
    if value and len(value) < _SHORTEST_KEY:
        said = f"expected at least {_SHORTEST_KEY} characters, best random ones"
        raise ConfigurationError(said, where=name)
    return secret_of(value)


def secret_of(value: str | None) -> SecretStr | None:
    """Return a secret that is kept out of all output, None for none."""
    keep_secret(value)
    return SecretStr(value) if value else None


def brokers_named(environ: Mapping[str, str]) -> str:
    """Return how brokers are reached: `embedded`, `docker`, or an address, by a file of properties if given.

    Raises:
        ConfigurationError: it is none of these, or the file cannot be used.
    """
    value, file = environ.get("FLAGSTREAM_KAFKA"), environ.get("FLAGSTREAM_KAFKA_CONFIG")
    if not file:
        return broker_address(value or "embedded")
    properties = load_properties(Path(file), environ)
    address = broker_address(value or properties.bootstrap or "")
    if address in OWN_BROKERS:
        raise ConfigurationError(f"{address} is reached without it", where="FLAGSTREAM_KAFKA_CONFIG")
    return Brokers(address).reached_by(properties)


def broker_address(value: str) -> str:
    """Return an address of brokers, or the word for brokers of our own.

    Raises:
        ConfigurationError: it is neither.
    """
    if value in OWN_BROKERS or ":" in value:
        return value
    raise ConfigurationError(
        f"expected embedded, docker or host:port, got {value!r}", where="FLAGSTREAM_KAFKA"
    )
