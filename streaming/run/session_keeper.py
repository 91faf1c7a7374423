"""The Spark session of a run: started with the kernels beside it, and anew when its JVM has died."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from pyspark.sql import SparkSession

from schemas.spec import AgentSpec
from streaming.batch.warmup import compile_kernels
from streaming.definition.agent_definition import AgentDefinition
from streaming.home.platform import is_on_platform
from streaming.home.settings import Settings
from streaming.jvm.launching import Jvm
from streaming.setup.cluster import cluster_configuration
from streaming.setup.downloads import jar_paths
from streaming.setup.platform import adopt_session
from streaming.setup.session import forget, is_alive, session_on
from streaming.setup.spark_jvm import EVERYWHERE_THE_SAME, launch_ahead
from streaming.setup.start_times import StartTimes


class SessionKeeper:
    """Has a session as long as the run lasts.

    Args:
        bootstrap: of the brokers that it reads from.
        jvm: one that was launched ahead, None for none.
        times: where it is noted how long the start takes.
        kept: closed when the run ends.
    """

    def __init__(
        self, settings: Settings, bootstrap: str, jvm: Jvm | None, times: StartTimes, kept: ExitStack
    ) -> None:
        self._settings, self._bootstrap = settings, bootstrap
        self._ahead, self._times, self._kept = jvm, times, kept
        self._session: SparkSession | None = None

    def session(self, spec: AgentSpec) -> SparkSession:
        """Return the session; kernels and the model's client are loaded while the first one starts."""
        if self._session is not None and not is_alive(self._session):
            forget(self._session)
            self._session = None
        if self._session is None:
            self._session = self._started(AgentDefinition.of(spec))
            if not is_on_platform():
                self._kept.callback(_stop, self._session)
        return self._session

    def _started(self, definition: AgentDefinition) -> SparkSession:
        # No worker: the start waits for the result and raises what it raised.
        with ThreadPoolExecutor(1) as beside:
            compiled = beside.submit(self._compile, definition)
            with self._times.part("Spark session"):
                session = adopt_session() if is_on_platform() else self._own()
            compiled.result()
        return session

    def _own(self) -> SparkSession:
        return session_on(self._jvm(), self._settings.spark, more=self._of_cluster())

    def _of_cluster(self) -> dict[str, str]:
        cluster = self._settings.cluster
        if cluster is None:
            return {}
        return cluster_configuration(cluster, jar_paths(self._settings.jars_spark), EVERYWHERE_THE_SAME)

    def _jvm(self) -> Jvm:
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.is_running:
            return ahead
        return launch_ahead(self._settings, self._bootstrap)

    def _compile(self, definition: AgentDefinition) -> None:
        with self._times.part("kernels"):
            compile_kernels(definition)
        with self._times.part("model client"):
            import agent.model.llm_client  # noqa: F401, PLC0415 -- while Python waits for the session


def _stop(session: SparkSession) -> None:
    if is_alive(session):
        session.stop()
