"""What Spark's JVM is started with: its options, its configuration, its log."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from streaming.home.brokers import by_aws_iam, java_options_of, secret_names_of
from streaming.home.settings import Settings
from streaming.jvm.class_archive import ClassArchive
from streaming.jvm.launching import Jvm, class_path, launch_jvm, places_of_files
from streaming.setup.downloads import jar_paths
from streaming.setup.machine_limits import machine_limits
from streaming.setup.plan_rules import rules_left_out

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

# Whatever zone, language and encoding the machine has.
EVERYWHERE_THE_SAME = (
    "-Duser.timezone=UTC",
    "-Duser.language=en",
    "-Duser.country=US",
    "-Dfile.encoding=UTF-8",
)


def launch_ahead(settings: Settings, bootstrap: str | None = None) -> Jvm:
    """Start the JVM of an agent, and do not wait for it.

    Args:
        bootstrap: the brokers it is to read from; those of the settings unless given.

    Raises:
        MachineError: there is no java, or the jars were not fetched.
    """
    brokers, jars = bootstrap or settings.kafka, jar_paths(settings.jars_spark)
    more = jar_paths(settings.jars_msk) if by_aws_iam(brokers) else []
    options = [*spark_archive(settings, jars).used(), *java_options_of(brokers)]
    return launch_spark([*jars, *more], settings.spark, needed=secret_names_of(brokers), options=options)


def spark_archive(settings: Settings, jars: Sequence[Path]) -> ClassArchive:
    """Return the archive of the classes that Spark's JVM loads."""
    return ClassArchive.of(settings.classes, "spark", class_path(jars))


def launch_spark(
    jars: Iterable[Path],
    work_dir: Path,
    *,
    driver_memory: str | None = None,
    needed: Collection[str] = (),
    options: Sequence[str] = (),
) -> Jvm:
    """Start Spark's JVM, and do not wait for it; it gets no keys of the environment.

    Args:
        jars: the jars beyond those PySpark ships.
        work_dir: where Spark keeps its scratch files and warehouse.
        driver_memory: its heap; by what the machine has unless given.
        needed: environment variables that Spark's own Kafka client takes its login from.
        options: further ones for the JVM.
    """
    scratch = work_dir.resolve()
    logging = _log_to_file(scratch)
    heap = driver_memory or machine_limits().heap
    own = [
        f"-Xmx{heap}",
        "-XX:+ExitOnOutOfMemoryError",  # what is left of a JVM after that does nothing in earnest
        f"-Dderby.system.home={scratch}",
        *EVERYWHERE_THE_SAME,
        f"-Dlog4j2.configurationFile={logging}",
        *places_of_files(scratch),
    ]
    os.environ["PYSPARK_PYTHON"] = os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return launch_jvm(jars, [*own, *options], configuration_of(scratch, driver_memory), needed)


def configuration_of(work_dir: Path, driver_memory: str | None = None) -> dict[str, str]:
    """Return Spark's configuration for a session whose scratch files lie in `work_dir`."""
    scratch, limits = work_dir.resolve(), machine_limits()
    return {
        "spark.master": f"local[{limits.tasks}]",
        "spark.app.name": "flagstream",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": driver_memory or limits.heap,
        "spark.driver.maxResultSize": "0",
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
        **_for_small_batches(),
    }


def _for_small_batches() -> dict[str, str]:
    return {
        "spark.sql.optimizer.excludedRules": rules_left_out(),
        # By its newer interface Hadoop starts five processes for each file, and by either it would keep a
        # checksum beside it: more than ten processes per batch, between events and their alerts.
        "spark.sql.streaming.checkpointFileManagerClass": checkpoint_files_in(version("pyspark")),
        "spark.hadoop.fs.file.impl": "org.apache.hadoop.fs.RawLocalFileSystem",
    }


def checkpoint_files_in(spark: str) -> str:
    """Return the class of a version of Spark that writes checkpoints by Hadoop's older interface."""
    moved = tuple(map(int, spark.split(".")[:2])) >= (4, 1)
    package = "org.apache.spark.sql.execution.streaming" + (".checkpointing" if moved else "")
    return f"{package}.FileSystemBasedCheckpointFileManager"


def _log_to_file(scratch: Path) -> Path:
    """Write the logging configuration that keeps Spark off the console."""
    scratch.mkdir(parents=True, exist_ok=True)
    configuration = scratch / "log4j2.properties"
    configuration.write_text(_LOGGING.format(file=scratch / "spark.log"), encoding="utf-8")
    return configuration
