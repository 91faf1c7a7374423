"""The Spark cluster whose executors work for an agent."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from schemas.loading import Document, Duration

_MASTER = r"^spark://[A-Za-z0-9._-]+:\d{1,5}(,[A-Za-z0-9._-]+:\d{1,5})*$"


class SparkClusterSettings(Document):
    """A standalone Spark cluster, and how much of it the agent takes: executors of one core each."""

    master: str = Field(
        pattern=_MASTER, description="spark://host:port, several masters with a comma between them"
    )
    executors: int | None = Field(
        default=None, ge=1, description="most executors at once; not given, as many as there are cores free"
    )
    memory: str = Field(
        default="1g",
        pattern=r"^[1-9]\d{0,6}[mg]$",
        description="heap of an executor's JVM, such as 1g or 768m",
    )
    task_timeout: Duration = Field(
        default=timedelta(minutes=2),
        ge=timedelta(seconds=1),
        description="a Python process of an executor that neither takes nor gives anything for so long is "
        "ended, and its task is run again",
    )

    buckets: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="of each kind of entities: executors hold profiles in so many parts and do their share "
        "of scoring; not given, the driver does it. Several to an executor even out what busy entities take",
    )

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each master."""
        named = self.master.removeprefix("spark://")
        pairs = [each.rpartition(":") for each in named.split(",")]
        return [(host, int(port)) for host, _, port in pairs]
