"""Starts the one Spark session: jars from the project's cache, loopback only, no console noise."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.sql import SparkSession

from agent.model.child_environment import inherited_environment
from streaming.setup.machine_limits import machine_limits

_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {file}
appender.file.filePattern = {file}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}}: %m%n%ex
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 16MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
"""


def start_session(
    jars: Sequence[Path],
    *,
    work_dir: Path,
    driver_memory: str | None = None,
    needed: Collection[str] = (),
    java_options: Sequence[str] = (),
) -> SparkSession:
    """Return a local Spark session that can read Kafka and Delta.

    Args:
        jars: the jars beyond those PySpark ships, see streaming.setup.downloads.
        work_dir: where Spark keeps its scratch files and warehouse.
        driver_memory: heap of the driver's JVM; by what the machine has unless given.
        needed: environment variables that Spark's own Kafka client takes its login from.
        java_options: of the JVM.

    PySpark's SIGINT handler would cancel every job; the caller's stays in force, since a first Ctrl-C must
    let the current batch finish. The JVM gets no other keys of the environment.
    """
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    limits = machine_limits()
    builder = SparkSession.builder.master(f"local[{limits.tasks}]").appName("flagstream")
    heap = driver_memory or limits.heap
    for key, value in _options(jars, work_dir, heap, java_options).items():
        builder = builder.config(key, value)
    # PySpark replaces the SIGINT handler, but only from the main thread.
    # No worker: the start waits for the result and raises what it raised.
    with inherited_environment(needed), ThreadPoolExecutor(1) as starter:
        return starter.submit(builder.getOrCreate).result()


def is_alive(session: SparkSession) -> bool:
    """Say whether a session can go on: its JVM answers, and nobody has stopped it."""
    try:
        return not session.sparkContext._jsc.sc().isStopped()
    except (Py4JError, OSError, AttributeError):
        return False


def forget(session: SparkSession) -> None:
    """Let go of a session that is not alive, so that another can be started in this process.

    PySpark keeps the way to its JVM in its classes; there is no public way to forget it.
    """
    with warnings.catch_warnings(), suppress(Py4JError, OSError):
        warnings.simplefilter("ignore")  # that the JVM cannot be shut down cleanly is known
        session.sparkContext.stop()
    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
    SparkContext._active_spark_context = None
    SparkSession._instantiatedSession = SparkSession._activeSession = None
    if gateway is not None:
        with suppress(Py4JError, OSError):
            gateway.shutdown()


def _log_to_file(scratch: Path) -> Path:
    """Write the logging configuration that keeps Spark off the console."""
    scratch.mkdir(parents=True, exist_ok=True)
    configuration = scratch / "log4j2.properties"
    configuration.write_text(_LOGGING.format(file=scratch / "spark.log"), encoding="utf-8")
    return configuration


def _options(
    jars: Sequence[Path], work_dir: Path, driver_memory: str, java_options: Sequence[str]
) -> dict[str, str]:
    scratch = work_dir.resolve()
    return {
        "spark.jars": ",".join(str(jar) for jar in jars),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": driver_memory,
        "spark.driver.maxResultSize": "0",
        "spark.driver.extraJavaOptions": _quoted(_java_options(scratch, java_options)),
        # Spark keeps what a task took from Kafka last, all of it, for five minutes, by partition and query. A
        # batch that follows within two seconds goes on from it, and need not ask the broker again.
        "spark.kafka.consumer.fetchedData.cache.timeout": "2s",
        "spark.kafka.consumer.fetchedData.cache.evictorThreadRunInterval": "500ms",
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(2),
        "spark.sql.execution.arrow.pyspark.enabled": "true",
        "spark.sql.streaming.metricsEnabled": "false",
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
    }


def _java_options(scratch: Path, more: Sequence[str]) -> list[str]:
    logging = _log_to_file(scratch)
    own = [f"-Dderby.system.home={scratch}", "-Duser.timezone=UTC", f"-Dlog4j2.configurationFile={logging}"]
    return [*own, *more]


def _quoted(options: Sequence[str]) -> str:
    return " ".join(f'"{each}"' for each in options)
