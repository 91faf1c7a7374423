"""The rights that an agent needs on a Kafka with access control: one list, for commands, errors and docs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from confluent_kafka import KafkaError, KafkaException

from schemas.errors import ConfigurationError
from schemas.spec import AgentSpec
from schemas.subscription import Subscription
from streaming.home.brokers import properties_of

ResourceKind = Literal["topic", "group", "transactional-id"]
UNKNOWN_PRINCIPAL = "User:PRINCIPAL"
_EVERYBODYS_GROUPS = "flagstream-"
_PLAIN_START = re.compile(r"(?:[A-Za-z0-9_-]|\\[.-])*")
_OPTIONAL = re.compile(r"[?*{]")


@dataclass(frozen=True)
class Grant:
    """One right to be granted.

    Attributes:
        resource: what it is on, as `kafka-acls` calls it.
        name: of the topic, group or transactional id.
        prefixed: it is on everything whose name begins so.
        operations: as Kafka calls them.
        use: what the agent does with it.
    """

    resource: ResourceKind
    name: str
    prefixed: bool
    operations: tuple[str, ...]
    use: str

    def command(self, principal: str, bootstrap: str) -> str:
        """Return the command that grants it, for a shell.

        Args:
            principal: such as `User:payments`.
            bootstrap: address of the broker.
        """
        words = ["kafka-acls", "--bootstrap-server", str(bootstrap), "--add", "--allow-principal", principal]
        for operation in self.operations:
            words += ["--operation", operation]
        words += [f"--{self.resource}", self.name]
        if self.prefixed:
            words += ["--resource-pattern-type", "prefixed"]
        return shlex.join(words)


def grants_of(spec: AgentSpec) -> list[Grant]:
    """Return all that an agent needs, and nothing else: no right to create, none on the cluster."""
    sources = spec.data_sources
    labels = [] if sources.labels.topic is None else [reading(sources.labels.topic, "read labels")]
    return [
        *reading_events(sources.transactions.subscription),
        *labels,
        publishing_to(spec.alerts.topic),
        keeping_its_place(spec.name),
        describing_groups(),
        publishing_as(spec.name),
    ]


def reading(topic: str, use: str = "read it") -> Grant:
    """Return the right to read a topic."""
    return Grant("topic", topic, False, ("Read",), use)


def reading_events(reads: Subscription) -> list[Grant]:
    """Return the rights to read the topics of a stream.

    Kafka grants rights by prefix, not by pattern: a pattern gets those of what all its matches begin with.
    """
    if reads.pattern is None:
        return [reading(name, "read events") for name in reads.names]
    prefix = fixed_start(reads.pattern)
    return [Grant("topic", prefix or "*", bool(prefix), ("Read",), "read events")]


def publishing_to(topic: str) -> Grant:
    """Return the right to publish alerts; the marker of the outbox is kept under Read on their topic."""
    return Grant("topic", topic, False, ("Read", "Write"), "publish alerts")


def keeping_its_place(agent: str) -> Grant:
    """Return the right to commit how far an agent has published."""
    return Grant("group", f"flagstream-{agent}", True, ("Read",), "keep how far alerts are published")


def describing_groups() -> Grant:
    """Return the right to find the coordinators of groups that read and watch."""
    return Grant("group", _EVERYBODYS_GROUPS, True, ("Describe",), "read and watch topics")


def publishing_as(agent: str) -> Grant:
    """Return the right to publish in transactions."""
    return Grant("transactional-id", f"flagstream-{agent}", True, ("Write",), "publish exactly once")


def fixed_start(pattern: str) -> str:
    """Return what every name that matches a pattern begins with, empty where that is not plain."""
    if "|" in pattern:
        return ""
    match = _PLAIN_START.match(pattern)
    found = match[0] if match else ""
    if _OPTIONAL.match(pattern, len(found)):
        found = re.sub(r"\\?.$", "", found)
    return found.replace("\\", "")


def principal_of(bootstrap: str) -> str:
    """Return whom to grant something to, as far as the login tells."""
    secured = properties_of(bootstrap)
    user = None if secured is None else secured.librdkafka.get("sasl.username")
    return UNKNOWN_PRINCIPAL if user is None else f"User:{user}"


def refusal(said: str, grant: Grant, bootstrap: str, where: str = "") -> ConfigurationError:
    """Return the error for a right that is missing.

    Args:
        said: what Kafka says.
        grant: that would do.
        bootstrap: address of the broker.
        where: what was tried.
    """
    command = grant.command(principal_of(bootstrap), bootstrap)
    return ConfigurationError(
        f"the broker refuses it: {said}; grant it with `{command}`, then start again", where=where
    )


def raise_if_unauthorized(
    fault: Exception, grants: Mapping[int, Grant], bootstrap: str, where: str = ""
) -> None:
    """Raise when a call failed for want of a right.

    Args:
        fault: as raised by the client.
        grants: what would do, by the code of the fault.
        bootstrap: address of the broker.
        where: what was tried.

    Raises:
        ConfigurationError: naming the command that grants it.
    """
    error = fault.args[0] if isinstance(fault, KafkaException) and fault.args else None
    if isinstance(error, KafkaError) and error.code() in grants:
        raise refusal(str(error.str()), grants[error.code()], bootstrap, where) from fault


def to_read(topic: str) -> dict[int, Grant]:
    """Return which grant each refusal asks for where a topic is read."""
    return {
        KafkaError.TOPIC_AUTHORIZATION_FAILED: reading(topic),
        KafkaError.GROUP_AUTHORIZATION_FAILED: describing_groups(),
    }


def to_publish(topic: str, agent: str) -> dict[int, Grant]:
    """Return which grant each refusal asks for where an agent publishes."""
    return {
        KafkaError.TOPIC_AUTHORIZATION_FAILED: publishing_to(topic),
        KafkaError.GROUP_AUTHORIZATION_FAILED: keeping_its_place(agent),
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: publishing_as(agent),
    }
