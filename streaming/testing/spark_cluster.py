"""A real standalone Spark cluster on loopback: one master, and workers that can be killed, stopped and added.

Its processes are those of PySpark's own jars. They get no keys of the environment, nor do the executors that
workers start. All of them end with the block, and with this process, however it ends.

`python -m streaming.testing.spark_cluster 2` runs one with two workers until it is interrupted.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

import psutil

from agent.model.processes import free_port
from streaming.jvm.launching import java_command, places_of_files, spark_environment, spark_home
from streaming.output.terminal import say_line
from streaming.testing.drivers import wait_until

_HOST = "127.0.0.1"
_MASTER, _WORKER = (f"org.apache.spark.deploy.{each}" for each in ("master.Master", "worker.Worker"))
_EXECUTOR = "org.apache.spark.executor.CoarseGrainedExecutorBackend"
_SECONDS = 120.0
_TRIES = 3
# A port that somebody else has taken meanwhile is a fault, and not another port; the master's second one, for
# programs to be sent to, is the same on every machine. A worker that says nothing for ten seconds is lost.
_OPTIONS = (
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-Dspark.port.maxRetries=0",
    "-Dspark.master.rest.enabled=false",
    "-Dspark.worker.timeout=10",
    "-Dspark.dead.worker.persistence=0",
)


@dataclass
class SparkWorker:
    """A worker, which stands for a machine: it and its executors are one group of processes.

    Attributes:
        process: the worker's own.
        log: what it prints.
    """

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def executors(self) -> list[int]:
        """The processes of its executors, by their ids."""
        with suppress(psutil.NoSuchProcess):
            return [each.pid for each in psutil.Process(self.process.pid).children() if _is_executor(each)]
        return []

    def kill(self) -> None:
        """Lose the machine: SIGKILL for the worker and its executors at once."""
        _end_group(self.process)

    def stop(self) -> None:
        """Ask the worker to end; it ends its executors first."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(_SECONDS)
        self.kill()


@dataclass
class SparkCluster:
    """A cluster that is up.

    Attributes:
        master: its address, as `cluster.master` of a spec names it.
        page: where the master says how it is, as JSON.
        folder: of logs and of what executors write.
        guard: ends all processes with this one.
        process: the master's.
        workers: those that were started, in that order.
    """

    master: str
    page: str
    folder: Path
    guard: subprocess.Popen[bytes]
    process: subprocess.Popen[bytes]
    workers: list[SparkWorker] = field(default_factory=list)

    def add_worker(self) -> SparkWorker:
        """Start one more worker, with one core, and wait until the master counts on it."""
        name = f"worker-{len(self.workers)}"
        own = self.folder / name
        there = self._alive()
        arguments = ["--host", _HOST, "--webui-port", "0", "--cores", "1", "--memory", "4g"]
        arguments += ["--work-dir", str(own), self.master]
        process = _started(_WORKER, arguments, own, self.guard)
        worker = SparkWorker(process, own / "log")
        self.workers.append(worker)
        # By its id: a worker that died may still be counted, and leave while this one comes.
        _wait(lambda: bool(self._alive() - there), worker.process, worker.log, name)
        return worker

    def restart_master(self) -> None:
        """Lose the master by SIGKILL and start another at its address, which has forgotten every application.

        Returns once the workers have found it.
        """
        lost = self.alive_workers
        self.process.kill()
        self.process.wait()
        self.process = _started(
            _MASTER, _arguments(self.master, self.page), self.folder / "master", self.guard
        )
        log = self.folder / "master" / "log"
        _wait(lambda: self.alive_workers == lost, self.process, log, "the workers of another master")

    @property
    def alive_workers(self) -> int:
        """How many workers the master counts on."""
        return len(self._alive())

    def _alive(self) -> set[str]:
        return {each["id"] for each in self.state()["workers"] if each["state"] == "ALIVE"}

    def state(self) -> dict[str, Any]:
        """Return what the master says of its workers and applications.

        Raises:
            OSError: it does not answer.
        """
        with build_opener(ProxyHandler({})).open(self.page, timeout=_SECONDS) as answer:
            text = answer.read()
        try:
            found: dict[str, Any] = json.loads(text)
        except ValueError:  # a master that begins adds its pages one by one, this one after the start page
            raise OSError("the master does not answer by JSON yet") from None
        return found


@contextmanager
def spark_cluster(folder: Path, workers: int = 2) -> Iterator[SparkCluster]:
    """Run a cluster for the length of a block.

    Args:
        folder: of its logs and of what executors write.
        workers: how many it begins with, each with one core and 4 GiB.

    Raises:
        AssertionError: a part of it does not come up; with the end of its log.
    """
    # In a group of its own: what ends all of this process's group at once must not reach it.
    guard = subprocess.Popen(
        [sys.executable, "-m", "streaming.testing.cluster_guard"], stdin=subprocess.PIPE, process_group=0
    )
    assert guard.stdin is not None
    cluster: SparkCluster | None = None
    try:
        cluster = _with_master(folder, guard)
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        guard.stdin.close()
        guard.wait()
        if cluster is not None:  # whatever has become of the guard
            for each in (cluster.process, *(worker.process for worker in cluster.workers)):
                _end_group(each)


def _with_master(folder: Path, guard: subprocess.Popen[bytes]) -> SparkCluster:
    """Another program may take a port before the master does: others are tried then."""
    for _ in range(_TRIES - 1):
        with suppress(AssertionError):
            return _master(folder, guard)
    return _master(folder, guard)


def _master(folder: Path, guard: subprocess.Popen[bytes]) -> SparkCluster:
    port, page, own = free_port(), free_port(), folder / "master"
    at = f"spark://{_HOST}:{port}", f"http://{_HOST}:{page}/json/"
    process = _started(_MASTER, _arguments(*at), own, guard)
    cluster = SparkCluster(*at, folder, guard, process)
    _wait(lambda: bool(cluster.state()), process, own / "log", "the master")
    return cluster


def _arguments(master: str, page: str) -> list[str]:
    port, shown = (str(urlsplit(each).port) for each in (master, page))
    return ["--host", _HOST, "--port", port, "--webui-port", shown]


def _started(
    main: str, arguments: Sequence[str], folder: Path, guard: subprocess.Popen[bytes]
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, which the guard ends with this one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = java_command(main, arguments, [*_OPTIONS, *places_of_files(folder)])
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**spark_environment(), "SPARK_LOCAL_IP": _HOST, "SPARK_SCALA_VERSION": _scala_version()},
            process_group=0,
        )
    assert guard.stdin is not None
    guard.stdin.write(f"{process.pid}\n".encode())
    guard.stdin.flush()
    return process


def _end_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    def is_up() -> bool:
        ended = process.poll() is not None
        assert not ended, f"{what} has ended: {log.read_text(errors='replace')[-2000:]}"
        with suppress(OSError):
            return ready()
        return False

    wait_until(is_up, _SECONDS, what)


def main(arguments: Sequence[str]) -> int:
    """Run a cluster until somebody ends it; say under which address. Takes how many workers it has."""
    workers = int(arguments[0]) if arguments else 2
    with (
        suppress(KeyboardInterrupt),
        tempfile.TemporaryDirectory(prefix="flagstream-cluster-") as name,
        spark_cluster(Path(name), workers) as cluster,
    ):
        say_line(cluster.master)
        signal.pause()
    return 0


def _scala_version() -> str:
    """What Spark's scripts look for beside its jars, and a worker asks for."""
    (core,) = (spark_home() / "jars").glob("spark-core_*.jar")
    return core.name.removeprefix("spark-core_").partition("-")[0]


def _is_executor(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and _EXECUTOR in process.cmdline()
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
