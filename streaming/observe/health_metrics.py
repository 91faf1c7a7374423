"""Metrics of what an agent holds, of the conditions that it is under, and of whether it works."""

from __future__ import annotations

from streaming.observe.metric import MetricBook


class StateMetrics:
    """What the agent holds in memory and on disk."""

    def __init__(self, book: MetricBook) -> None:
        gauge = book.gauge
        self.profiles = gauge("profile_entities", "Entities that have a profile, by kind.", "entity")
        self.profile_bytes = gauge("profile_bytes", "Memory that profiles take, by kind of entity.", "entity")
        self.profiles_at = gauge(
            "profile_updated_timestamp_seconds", "When profiles last moved on, in seconds since 1970."
        )
        self.checkpoint_at = gauge(
            "checkpoint_timestamp_seconds", "When the newest checkpoint was written, in seconds since 1970."
        )
        self.checkpoint_behind = gauge(
            "checkpoint_behind_events",
            "Events that the newest checkpoint lacks and a start has to read again.",
        )
        self.files = gauge("table_files", "Data files of a table's newest version, by table.", "table")
        self.bytes = gauge("table_bytes", "Size of the data files of a table's newest version.", "table")
        self.disk_free = gauge(
            "disk_free_bytes", "Free room on the disk of the lake or of the home, by volume.", "volume"
        )
        self.disk_size = gauge("disk_size_bytes", "Size of the disk of the lake or of the home.", "volume")


class ConditionMetrics:
    """Which conditions hold."""

    def __init__(self, book: MetricBook) -> None:
        gauge = book.gauge
        self.condition = gauge(
            "condition_active", "1 while a condition holds, by condition; docs/operations.md.", "condition"
        )
        self.since = gauge(
            "condition_since_timestamp_seconds",
            "Since when a condition holds, in seconds since 1970; 0 while it does not.",
            "condition",
        )


class HealthMetrics(ConditionMetrics):
    """Whether the agent works, and what it waits for."""

    def __init__(self, book: MetricBook) -> None:
        gauge = book.gauge
        self.ready = gauge(
            "ready", "1 while the agent is claimed, its query runs, and nothing is waited for."
        )
        self.looped_at = gauge(
            "loop_timestamp_seconds", "When the run's loop last moved, in seconds since 1970."
        )
        super().__init__(book)
        self.info = gauge("agent_info", "1; says what runs.", "version", "spec_version", "model")
