"""The runtime that jobs are pinned to, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Runtime:
    """A Databricks Runtime.

    Attributes:
        version: as a cluster names it.
        spark: the release of Spark that it is built on.
        scala: the version of Scala that its jars are compiled for.
    """

    version: str
    spark: str
    scala: str

    @property
    def kafka(self) -> str:
        """Maven coordinates of Spark's Kafka source."""
        return f"org.apache.spark:spark-sql-kafka-0-10_{self.scala}:{self.spark}"


PINNED = Runtime("17.3.x-scala2.13", "4.0.0", "2.13")
