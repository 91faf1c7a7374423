"""Asks a broker which of the rights that an agent needs its login lacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from schemas.errors import RetryableError
from schemas.spec import AgentSpec
from streaming.home.brokers import connection
from streaming.kafka.grants import Grant, describing_groups, keeping_its_place, publishing_to, reading
from streaming.kafka.presence import metadata_of
from streaming.kafka.refusals import words_of

_CALL_SECONDS = 10.0
_REFUSED = frozenset({KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED})
_ABSENT = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND})


def missing_grants(bootstrap: str, spec: AgentSpec) -> list[Grant]:
    """Return the grants on topics and groups that this login lacks.

    Topics that are not there are passed over. Whether it may use its transactional id only publishing shows:
    to try it would end what a running agent has open.

    Raises:
        RetryableError: the broker does not answer.
    """
    admin = AdminClient(connection(bootstrap))
    topics, groups = _on_topics(bootstrap, spec), _on_groups(spec.name)
    described = {
        **admin.describe_topics(
            TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=_CALL_SECONDS
        ),
        **admin.describe_consumer_groups(
            list(groups), include_authorized_operations=True, request_timeout=_CALL_SECONDS
        ),
    }
    return [grant for grant, future in _paired({**topics, **groups}, described) if _lacks(grant, future)]


def _paired(grants: Mapping[str, Grant], described: Mapping[str, Any]) -> Iterator[tuple[Grant, Future[Any]]]:
    for name, grant in grants.items():
        yield grant, described[name]


def _on_topics(bootstrap: str, spec: AgentSpec) -> dict[str, Grant]:
    reads, labels = spec.data_sources.transactions.subscription, spec.data_sources.labels.topic
    names = reads.names or reads.among(metadata_of(bootstrap, _CALL_SECONDS).topics)
    found = {name: reading(name, "read events") for name in names}
    if labels is not None:
        found[labels] = reading(labels, "read labels")
    return {**found, spec.alerts.topic: publishing_to(spec.alerts.topic)}


def _on_groups(agent: str) -> dict[str, Grant]:
    return {f"flagstream-{agent}-marker": keeping_its_place(agent), "flagstream-watch": describing_groups()}


def _lacks(grant: Grant, future: Future[Any]) -> bool:
    try:
        allowed = future.result(_CALL_SECONDS).authorized_operations
    except (KafkaException, TimeoutError) as fault:
        error = fault.args[0] if fault.args else None
        if isinstance(error, KafkaError) and error.code() in _REFUSED | _ABSENT:
            return error.code() in _REFUSED
        raise RetryableError(f"asking for rights on {grant.name}: {words_of(fault)}") from fault
    needed = {AclOperation[operation.upper()] for operation in grant.operations}
    return allowed is not None and not needed <= set(allowed)
