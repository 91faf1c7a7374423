"""What the process that runs an agent says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from streaming.delta.faults import why_unusable
from streaming.profiles.entity_buckets import BucketFacts
from streaming.run.executors import read_cluster
from streaming.run.mode_advice import ModeAdvice, read_mode
from streaming.service.health import ActiveCondition, Condition, beside, is_running, read_health
from streaming.store.place import Place


@dataclass(frozen=True)
class RunningAgent:
    """What the process that runs an agent says of itself.

    Attributes:
        running: a process runs the agent just now.
        conditions: what that process waits for or suffers from, the longest first.
        executors: of a Spark cluster, how many work for it; None where it works without.
        mode: which mode pays at the load it sees, None where it has not found that yet.
        buckets: what these executors hold of entities, None where they hold nothing.
    """

    running: bool
    conditions: tuple[ActiveCondition, ...]
    executors: int | None = None
    mode: ModeAdvice | None = None
    buckets: BucketFacts | None = None

    @classmethod
    def of(cls, file: Path, lake: Place) -> RunningAgent:
        """Read it where it keeps it, see Settings.health.

        Where the disk takes nothing, the agent may be unable to write that down: it is checked here, too.
        """
        conditions, running = (*read_health(file), *read_health(beside(file))), is_running(file)
        fault = why_unusable(lake.path) if running and lake.is_local else None
        if fault is not None and Condition.DISK_UNUSABLE not in {each.condition for each in conditions}:
            conditions += (ActiveCondition(Condition.DISK_UNUSABLE, fault, datetime.now(UTC)),)
        cluster = read_cluster(file)
        return cls(running, conditions, cluster.executors, read_mode(file), cluster.buckets)
