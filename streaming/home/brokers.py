"""The address of brokers, with how they are reached: what every Kafka client here is made of."""

from __future__ import annotations

from streaming.home.client_properties import ClientProperties

_COMPRESSION = "lz4"


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


def connection(bootstrap: str) -> dict[str, str | int | float | bool]:
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
