"""The address of brokers, with how they are reached: what every Kafka client here is made of."""

from __future__ import annotations

from typing import Any

from streaming.home.client_properties import ClientProperties

_COMPRESSION = "lz4"
_ALLOWED_URLS = "org.apache.kafka.sasl.oauthbearer.allowed.urls"


class Brokers(str):
    """A bootstrap address that knows how to be reached: TLS, a login, compression.

    It is a text, as an address without any of that is, so that whoever passes an address on need not know.

    Attributes:
        properties: how they are reached, None for plain connections.
    """

    properties: ClientProperties | None = None

    def reached_by(self, properties: ClientProperties | None) -> Brokers:
        """Return the same address, reached in this way."""
        brokers = Brokers(self)
        brokers.properties = properties
        return brokers


def connection(bootstrap: str) -> dict[str, Any]:
    """Return what every Kafka client of librdkafka here has in common, and no log of its own.

    Faults come as exceptions; librdkafka would print them a second time.
    """
    secured = properties_of(bootstrap)
    settings = {} if secured is None else dict(secured.librdkafka)
    return {**settings, "bootstrap.servers": str(bootstrap), "log_level": 0}


def spark_connection(bootstrap: str) -> dict[str, str]:
    """Return what every reading of Kafka by Spark has in common."""
    secured = properties_of(bootstrap)
    return {**({} if secured is None else secured.spark), "kafka.bootstrap.servers": str(bootstrap)}


def compression_of(bootstrap: str) -> str:
    """Return how producers compress."""
    secured = properties_of(bootstrap)
    return (None if secured is None else secured.compression) or _COMPRESSION


def properties_of(bootstrap: str) -> ClientProperties | None:
    """Return how brokers are reached, None for plain connections."""
    return bootstrap.properties if isinstance(bootstrap, Brokers) else None


def secret_names_of(bootstrap: str) -> frozenset[str]:
    """Return the environment variables that Spark's JVM takes the login from."""
    secured = properties_of(bootstrap)
    return frozenset() if secured is None else secured.secret_names


def java_options_of(bootstrap: str) -> tuple[str, ...]:
    """Return what Spark's JVM is started with: Kafka's client fetches tokens only from where it may."""
    secured = properties_of(bootstrap)
    url = None if secured is None else secured.token_url
    return () if url is None else (f"-D{_ALLOWED_URLS}={url}",)


def by_aws_iam(bootstrap: str) -> bool:
    """Say whether the login is AWS's own, for which Spark needs a jar more."""
    secured = properties_of(bootstrap)
    return secured is not None and secured.msk
