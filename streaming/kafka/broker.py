"""Kafka for those who have none: an embedded one-node broker, or a container where Docker answers."""

from __future__ import annotations

import base64
import fcntl
import os
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from agent.model.child_environment import PRIVATE_UMASK, child_environment
from agent.model.processes import PortTakenError, Service, free_port
from schemas.errors import MachineError
from streaming.home.brokers import connection
from streaming.home.settings import Settings, find_java
from streaming.jvm.class_archive import ClassArchive
from streaming.service.interrupts import ended_on_leaving

_MAIN = "kafka.Kafka"
_PORTS = 3
# testcontainers starts Kafka through scripts that only this vendor's images have.
_DOCKER_IMAGE = "confluentinc/cp-kafka:7.6.0"
# One node cannot hold the three copies that transactions ask for by default.
_DOCKER_SINGLE_NODE = {
    "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    "KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS": "1",
}
_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
"""
_LOGGING = """\
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
"""


@dataclass(frozen=True)
class EmbeddedBroker:
    """A real Kafka broker on loopback, its data below `folder`.

    Attributes:
        folder: configuration, data and log.
        jars: folder of the broker's jars.
        classes: folder of archives of classes, None to start without one.
        makes_archive: whether its JVM makes the archive when it ends.
    """

    folder: Path
    jars: Path
    classes: Path | None = None
    makes_archive: bool = False

    @classmethod
    def of(cls, settings: Settings) -> EmbeddedBroker:
        """Return the broker that belongs to a home folder."""
        return cls(settings.home / "broker", settings.jars_broker, settings.classes)

    def status(self) -> str | None:
        """Return the bootstrap address while the broker runs, None otherwise."""
        facts = self._service.facts()
        return None if facts is None else facts["bootstrap"]

    def start(self) -> str:
        """Start the broker unless it runs, and return its bootstrap address; it stays until `stop`.

        Raises:
            MachineError: no Java, no jars, or the broker did not come up.
        """
        with self._service.alone():
            self._passing.unlink(missing_ok=True)
            return self.status() or self._start()

    @contextmanager
    def in_use(self) -> Iterator[str]:
        """Yield the address of the broker, started if need be; its last user stops it, but for `start`.

        Raises:
            MachineError: see start().
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "users.lock").open("w") as users:
            with self._service.alone():
                bootstrap = self.status()
                if bootstrap is None:
                    bootstrap = self._start()
                    self._passing.touch()
                fcntl.flock(users, fcntl.LOCK_SH)
            try:
                with ended_on_leaving(lambda: self._leave(users)):
                    yield bootstrap
            finally:
                self._leave(users)

    def _leave(self, users: IO[str]) -> None:
        with self._service.alone(), suppress(BlockingIOError):
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if self._passing.exists():
                self._passing.unlink()
                self.stop()

    @property
    def _passing(self) -> Path:
        """There while the broker runs only for as long as a command uses it."""
        return self.folder / "passing"

    def revive(self, bootstrap: str) -> None:
        """Start the broker again if it was at this address and has died.

        Raises:
            MachineError: see start().
        """
        if self._service.has_died({"bootstrap": bootstrap}):
            with self._service.alone():
                if self.status() is None:
                    self._start()

    def stop(self) -> bool:
        """Stop the broker; its data stays. Return whether it was running."""
        return self._service.stop()

    def _start(self) -> str:
        if not any(self.jars.glob("kafka_*.jar")):
            raise MachineError(f"the broker's jars are not in {self.jars}: run `make setup`")
        for _ in range(_PORTS - 1):
            with suppress(PortTakenError):
                return self._start_at(self._service.port())
        return self._start_at(self._service.port())

    def _start_at(self, port: int) -> str:
        """Start it there; between choosing a port and listening at it lie seconds of a JVM."""
        bootstrap = f"127.0.0.1:{port}"
        self._configure(port, free_port())
        facts = {"bootstrap": bootstrap}
        self._service.start(self._command(_MAIN), facts, lambda: _answers(bootstrap))
        return bootstrap

    @property
    def _service(self) -> Service:
        return Service("broker", self.folder)

    def _configure(self, port: int, controller: int) -> None:
        data = self.folder / "data"
        self.folder.mkdir(parents=True, exist_ok=True)
        text = _PROPERTIES.format(port=port, controller=controller, data=data)
        self._properties.write_text(text, encoding="utf-8")
        (self.folder / "log4j2.properties").write_text(_LOGGING, encoding="utf-8")
        if not (data / "meta.properties").is_file():
            self._format()

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        # "=" because one id in 64 starts with a dash
        command = self._command("kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c")
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=child_environment(),
            umask=PRIVATE_UMASK,
        )
        if done.returncode != 0:
            raise MachineError(f"formatting the broker's storage failed: {done.stderr.strip()[-400:]}")

    def _command(self, main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}"
        own = [
            "-Xmx512m",
            "-Xms128m",
            "-Dfile.encoding=UTF-8",
            logging,
            f"-Djava.io.tmpdir={tempfile.gettempdir()}",
        ]
        classes = ["-cp", os.pathsep.join(map(str, self._class_path)), *self._archive_options(main)]
        return [find_java(), *own, *classes, main, *arguments, str(self._properties)]

    @property
    def archive(self) -> ClassArchive | None:
        """The archive of the classes that its JVM loads, made or not."""
        if self.classes is None:
            return None
        return ClassArchive.of(self.classes, "broker", self._class_path)

    def _archive_options(self, main: str) -> tuple[str, ...]:
        archive = self.archive
        if archive is None:
            return ()
        return archive.made() if self.makes_archive and main == _MAIN else archive.used()

    @property
    def _class_path(self) -> list[Path]:
        return sorted(self.jars.glob("*.jar"))

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"


@contextmanager
def bootstrap_for(settings: Settings) -> Iterator[str]:
    """Yield a bootstrap address: the one given, the running embedded broker, or one started for the moment.

    Raises:
        MachineError: no broker can be had.
    """
    if settings.kafka == "docker":
        with _container() as bootstrap:
            yield bootstrap
        return
    if settings.kafka != "embedded":
        yield settings.kafka
        return
    with EmbeddedBroker.of(settings).in_use() as bootstrap:
        yield bootstrap


@contextmanager
def _container() -> Iterator[str]:
    try:
        from docker.errors import DockerException  # noqa: PLC0415 -- only where Docker is wanted
        from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415 -- only where Docker is wanted
    except ImportError:
        raise MachineError("testcontainers is not installed: pip install 'flagstream[dev]'") from None
    try:
        container = KafkaContainer(_DOCKER_IMAGE).with_kraft().with_envs(**_DOCKER_SINGLE_NODE)
        container.start()
    except DockerException as fault:
        raise MachineError(f"no Docker engine answers ({fault}); use FLAGSTREAM_KAFKA=embedded") from None
    try:
        yield container.get_bootstrap_server()
    finally:
        container.stop()


def _answers(bootstrap: str) -> bool:
    try:
        return bool(AdminClient({**connection(bootstrap)}).list_topics(timeout=1).brokers)
    except KafkaException:
        return False
