"""Starts the one Spark session: jars from the project's cache, loopback only, no console noise."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from py4j.protocol import Py4JError
from pyspark import SparkContext
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from schemas.errors import MachineError
from streaming.home.platform import is_on_platform
from streaming.home.user import is_known, user_name
from streaming.jvm.launching import Jvm
from streaming.setup.platform import adopt_session
from streaming.setup.spark_jvm import configuration_of, launch_spark

_NOTHING_MORE: Mapping[str, str] = {}
_PORT, _SECRET = "PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"


def start_session(jars: Sequence[Path], *, work_dir: Path, driver_memory: str | None = None) -> SparkSession:
    """Return a Spark session that can read Kafka and Delta: a local one, or the platform's own.

    Args:
        jars: the jars beyond those PySpark ships, see streaming.setup.downloads.
        work_dir: where Spark keeps its scratch files and warehouse.
        driver_memory: heap of the driver's JVM; by what the machine has unless given.

    Raises:
        MachineError: the JVM does not come up, or the platform's Spark cannot be used.
    """
    if is_on_platform():
        return adopt_session()
    jvm = launch_spark(jars, work_dir, driver_memory=driver_memory)
    return session_on(jvm, work_dir, driver_memory=driver_memory)


def session_on(
    jvm: Jvm, work_dir: Path, *, driver_memory: str | None = None, more: Mapping[str, str] = _NOTHING_MORE
) -> SparkSession:
    """Return the session on a JVM that was launched with the same; it ends where there is none.

    Args:
        more: configuration in place of the usual or beside it, see streaming.setup.cluster.

    PySpark's SIGINT handler would cancel every job; the caller's stays in force, since a first Ctrl-C must
    let the current batch finish.

    Raises:
        MachineError: the JVM or the session does not come up.
    """
    try:
        # PySpark replaces the SIGINT handler, but only from the main thread.
        # No worker: the start waits for the result and raises what it raised.
        with ThreadPoolExecutor(1) as starter:
            return starter.submit(_session, jvm, work_dir, driver_memory, more).result()
    except Py4JError:
        jvm.end()
        _forget_gateway()
        raise MachineError(f"no session of Spark came up: {work_dir / 'spark.log'} says why") from None
    except BaseException:
        jvm.end()
        raise


def is_alive(session: SparkSession) -> bool:
    """Say whether a session can go on: its JVM answers, and nobody has stopped it."""
    try:
        return not session.sparkContext._jsc.sc().isStopped()
    except (Py4JError, OSError, AttributeError):
        return False


def end_context(session: SparkSession) -> None:
    """End what a session runs, from any thread: its jobs fail, and it is not alive any more."""
    with suppress(Py4JError, OSError, AttributeError):
        session.sparkContext._jsc.sc().stop()


def forget(session: SparkSession) -> None:
    """Let go of a session that is not alive, so that another can be started in this process.

    PySpark keeps the way to its JVM in its classes; there is no public way to forget it.
    """
    with warnings.catch_warnings(), suppress(Py4JError, OSError):
        warnings.simplefilter("ignore")  # that the JVM cannot be shut down cleanly is known
        session.sparkContext.stop()
    _forget_gateway()


def _forget_gateway() -> None:
    gateway, SparkContext._gateway, SparkContext._jvm = SparkContext._gateway, None, None
    SparkContext._active_spark_context = None
    SparkSession._instantiatedSession = SparkSession._activeSession = None
    if gateway is not None:
        with suppress(Py4JError, OSError):
            gateway.shutdown()


def _session(jvm: Jvm, work_dir: Path, driver_memory: str | None, more: Mapping[str, str]) -> SparkSession:
    if SparkContext._gateway is None:
        _connect(jvm)
    builder = SparkSession.builder
    for key, value in {**configuration_of(work_dir, driver_memory), **more}.items():
        builder = builder.config(key, value)
    return builder.getOrCreate()


def _connect(jvm: Jvm) -> None:
    """Have PySpark use this JVM instead of one that it would launch."""
    port, secret = jvm.connection()
    os.environ[_PORT], os.environ[_SECRET] = str(port), secret
    try:
        gateway = launch_gateway()  # type: ignore[no-untyped-call]  # PySpark has no types here
    finally:
        del os.environ[_PORT], os.environ[_SECRET]
    gateway.proc = jvm.process  # held, since the JVM ends with its standard input
    SparkContext._gateway, SparkContext._jvm = gateway, gateway.jvm
    if not is_known():
        # Hadoop asks the machine for a name, and ends with a null pointer where there is none.
        users = getattr(gateway.jvm, "org.apache.hadoop.security.UserGroupInformation")
        users.setLoginUser(users.createRemoteUser(user_name()))
