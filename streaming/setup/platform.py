"""The session of a platform that starts Spark itself, such as Databricks: adopted, never ended.

The agent needs Spark's classic interface, by which its driver and the JVM are on one machine.
"""

from __future__ import annotations

import re
from pathlib import Path

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from schemas.errors import MachineError
from streaming.setup.spark_jvm import configuration_of

LEAST_SPARK = (4, 0)


def adopt_session(session: SparkSession | None = None) -> SparkSession:
    """Return the platform's session, with what the agent relies on set in it.

    Args:
        session: the one to adopt; whichever the platform has begun unless given.

    Raises:
        MachineError: its Spark is too old, or is reached from elsewhere.
    """
    found = SparkSession.builder.getOrCreate() if session is None else session
    check_spark(found.version)
    _check_classic(found)
    for key, value in configuration_of(Path()).items():
        if found.conf.isModifiable(key):
            found.conf.set(key, value)
    return found


def check_spark(version: str) -> None:
    """Refuse a Spark that lacks what the agent uses.

    Raises:
        MachineError: it is older.
    """
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if numbers is None or tuple(map(int, numbers.groups())) < LEAST_SPARK:
        least = ".".join(map(str, LEAST_SPARK))
        raise MachineError(
            f"Spark {version} is too old: taking a batch as one Arrow table (DataFrame.toArrow) needs Spark "
            f"{least} or later. On Databricks name a runtime of 17.3 or later"
        )


def _check_classic(session: SparkSession) -> None:
    try:
        session.sparkContext.version  # noqa: B018 -- asking is what fails
    except (PySparkException, AttributeError, NotImplementedError):
        raise MachineError(
            "this session is reached over Spark Connect, without a JVM beside it: run the agent on job "
            "compute with dedicated (single user) access, not on serverless or standard compute"
        ) from None
