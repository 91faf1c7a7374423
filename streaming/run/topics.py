"""The topics of an agent, before it begins: made where they are ours to make, and required where not."""

from __future__ import annotations

from datetime import timedelta

from schemas.durations import duration_text
from schemas.spec import AgentSpec
from streaming.definition.agent_definition import AgentDefinition
from streaming.kafka.grants import publishing_to
from streaming.kafka.presence import metadata_of
from streaming.kafka.topic_admin import ensure_topic, require_topics, topic_retention_ms
from streaming.output.log import log


def prepare_topics(spec: AgentSpec, bootstrap: str, *, ours: bool) -> None:
    """See to it that all topics of an agent exist.

    Args:
        spec: of the agent.
        bootstrap: address of the broker.
        ours: whether the topics that are read may be created.

    Raises:
        ConfigurationError: one is not there, or not for this login.
        RetryableError: the broker did not answer.
    """
    sources, alerts = spec.data_sources, spec.alerts.topic
    reads = sources.transactions.subscription
    if ours:
        for name in reads.names:
            ensure_topic(bootstrap, name)
    require_topics(bootstrap, reads)
    # Alerts are kept for ever unless someone decides otherwise: reconcile compares all of them.
    ensure_topic(bootstrap, alerts, 1, {"retention.ms": "-1"}, publishing_to(alerts))
    if sources.labels.topic is not None:
        ensure_topic(bootstrap, sources.labels.topic)


def log_horizon(spec: AgentSpec, bootstrap: str) -> None:
    """Log when redeliveries may come later than they can be distinguished from new events."""
    reads = spec.data_sources.transactions.subscription
    horizon = AgentDefinition.of(spec).contract.duplicates.horizon
    for name in reads.among(metadata_of(bootstrap).topics):
        retention = topic_retention_ms(bootstrap, name)
        if retention is None or 0 <= retention <= horizon / timedelta(milliseconds=1):
            continue
        kept = "for ever" if retention < 0 else f"for {duration_text(retention / 1_000)}"
        known = duration_text(horizon.total_seconds())
        log(
            "duplicates_horizon",
            f"topic {name} keeps records {kept}, duplicates are recognised within {known}; a transaction "
            "id sent again after that counts as new (duplicates.horizon in the contract)",
            agent=spec.name,
        )
