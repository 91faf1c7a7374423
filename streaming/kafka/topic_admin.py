"""Topics as a run needs them: made where they are ours to make, else required, and how long they keep."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from schemas.errors import ConfigurationError, RetryableError, nearest
from schemas.subscription import Subscription
from streaming.home.brokers import connection
from streaming.kafka.grants import Grant, principal_of, raise_if_unauthorized, reading, to_read
from streaming.kafka.presence import metadata_of
from streaming.kafka.refusals import NOT_ALLOWED, words_of
from streaming.kafka.topic import topic_exists

_CALL_SECONDS = 10.0
_BROKER_DEFAULT = -1


def ensure_topic(
    bootstrap: str,
    name: str,
    partitions: int = 4,
    config: Mapping[str, str] | None = None,
    grant: Grant | None = None,
) -> None:
    """Create a topic unless it exists; one that is there takes no right to create.

    Args:
        bootstrap: address of the broker.
        name: of the topic.
        partitions: of a new one.
        config: of a new one.
        grant: with which this login would see a topic that is there; to read it unless given.

    Raises:
        ConfigurationError: it is not there, and the broker does not let this login create it.
        RetryableError: the broker did not answer.
    """
    if topic_exists(bootstrap, name):
        return
    admin = AdminClient({**connection(bootstrap)})
    topic = NewTopic(
        name, num_partitions=partitions, replication_factor=_BROKER_DEFAULT, config=dict(config or {})
    )
    try:
        for future in admin.create_topics([topic], operation_timeout=_CALL_SECONDS).values():
            future.result(_CALL_SECONDS)
    except KafkaException as fault:
        if fault.args[0].code() in NOT_ALLOWED:
            raise _not_to_be_had(bootstrap, name, grant or reading(name)) from None
        if fault.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise RetryableError(f"creating topic {name}: {words_of(fault)}") from fault
    except TimeoutError:
        raise RetryableError(f"{bootstrap} does not answer; is that the broker's address?") from None


def require_topics(bootstrap: str, reads: Subscription) -> None:
    """Check that topics exist on a broker that is not ours to create topics on.

    Raises:
        ConfigurationError: one does not, or is not for this login, or nothing matches a pattern; the nearest
            name is suggested.
        RetryableError: the broker did not answer.
    """
    topics = metadata_of(bootstrap, _CALL_SECONDS).topics
    known = [each for each in topics if not each.startswith("__")]
    if reads.pattern is not None and not reads.among(known):
        found = ", ".join(sorted(known)) or "none that this login sees"
        problem = f"no topic on {bootstrap} matches {reads.pattern!r}; there are: {found}"
        raise ConfigurationError(problem, key="data_sources.transactions.topic_pattern")
    for name in reads.names:
        if name not in topics:
            _raise_if_hidden(bootstrap, name)
            problem = f"no topic {name!r} on {bootstrap}; {nearest(name, known)}"
            raise ConfigurationError(problem, key="data_sources.transactions.topic")


def _not_to_be_had(bootstrap: str, name: str, grant: Grant) -> ConfigurationError:
    command = grant.command(principal_of(bootstrap), bootstrap)
    problem = "it is not there, or this login may not see it, and it may not create it either"
    return ConfigurationError(f"{problem}; create it, or grant it with `{command}`", where=f"topic {name}")


def _raise_if_hidden(bootstrap: str, name: str) -> None:
    """A topic that a login has no right on is missing from what it sees; asked for by name it is refused."""
    admin = AdminClient(connection(bootstrap))
    (future,) = admin.describe_topics(TopicCollection([name]), request_timeout=_CALL_SECONDS).values()
    with suppress(TimeoutError):
        try:
            future.result(_CALL_SECONDS)
        except KafkaException as fault:
            raise_if_unauthorized(fault, to_read(name), bootstrap, f"reading {name}")


def topic_retention_ms(bootstrap: str, name: str) -> int | None:
    """Return `retention.ms` of a topic; -1 means for ever, None that this login may not know.

    Raises:
        RetryableError: the broker did not answer.
    """
    admin = AdminClient({**connection(bootstrap)})
    try:
        (future,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, name)]).values()
        return int(future.result(_CALL_SECONDS)["retention.ms"].value)
    except KafkaException as fault:
        if fault.args[0].code() in NOT_ALLOWED:
            return None
        raise RetryableError(f"asking for the configuration of {name}: {words_of(fault)}") from fault
    except TimeoutError:
        raise RetryableError(f"{bootstrap} does not answer; is that the broker's address?") from None
