"""Child processes that outlive a command: started in their own session, known by pid and start time."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.model.child_environment import PRIVATE_UMASK, child_environment
from schemas.errors import MachineError

_POLL_SECONDS = 0.05
_TAKEN = "Address already in use"
_SAME_START_SECONDS = 1.0
_CHILDREN: dict[int, subprocess.Popen[bytes]] = {}  # held, since a handle let go warns while its child lives


class PortTakenError(MachineError):
    """Another program began to listen at the port before the child did: another port may be tried."""


@dataclass(frozen=True)
class Service:
    """A child process with a folder of its own: log, and a record of pid, start time and facts.

    The child gets a session of its own, so that the terminal's Ctrl-C does not reach it, no keys of the
    environment, and writes for its user alone.
    """

    name: str
    folder: Path

    @property
    def log(self) -> Path:
        """What the child prints."""
        return self.folder / f"{self.name}.log"

    def facts(self) -> dict[str, str] | None:
        """Return what was recorded at start while the process runs, None otherwise."""
        try:
            record = json.loads(self._record.read_text(encoding="utf-8"))
            process = psutil.Process(record["pid"])
            same = abs(process.create_time() - record["started"]) < _SAME_START_SECONDS
            running = process.status() != psutil.STATUS_ZOMBIE
        except (OSError, ValueError, LookupError, TypeError, RecursionError, psutil.Error):
            return None
        return dict(record["facts"]) if same and running else None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder, so that of two commands started together one starts the child and both use it."""
        with one_at_a_time(self.folder / f"{self.name}.guard"):
            yield

    def port(self) -> int:
        """Return the port that the child had last if it is free, so that its clients find it again."""
        remembered = self.folder / f"{self.name}.port"
        try:
            port = _if_free(int(remembered.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            port = free_port()
            self.folder.mkdir(parents=True, exist_ok=True)
            remembered.write_text(str(port), encoding="utf-8")
        return port

    def has_died(self, facts: Mapping[str, str]) -> bool:
        """Say whether the child that was started with these facts has ended without being stopped."""
        try:
            recorded = json.loads(self._record.read_text(encoding="utf-8"))["facts"]
        except (OSError, ValueError, KeyError):
            return False
        return recorded == dict(facts) and self.facts() is None

    def start(
        self,
        command: Sequence[str],
        facts: Mapping[str, str],
        ready: Callable[[], bool],
        *,
        seconds: float = 60.0,
        unwanted: Callable[[], bool] = lambda: False,
    ) -> None:
        """Start the child and wait until it is ready.

        Args:
            command: program and arguments.
            facts: what others need to reach the child, such as its address.
            ready: polled until it returns True.
            seconds: how long to wait.
            unwanted: whether nobody waits for the child any more; it is ended then.

        Raises:
            PortTakenError: another program listens at its port.
            MachineError: the child ended or was not ready in time, with the log's end; or it was unwanted.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=child_environment(),
                umask=PRIVATE_UMASK,
            )
        _CHILDREN[child.pid] = child
        started = psutil.Process(child.pid).create_time()
        record = {"pid": child.pid, "started": started, "facts": dict(facts)}
        self._record.write_text(json.dumps(record), encoding="utf-8")
        deadline = time.monotonic() + seconds
        while not ready():
            if child.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise self._not_up()
            if unwanted():
                self.stop()
                raise MachineError(f"{self.name} was ended while it started: it is not needed any more")
            time.sleep(_POLL_SECONDS)

    def stop(self, seconds: float = 20.0) -> bool:
        """End the child: ask first, then insist. Return whether one was running."""
        running = self.facts() is not None
        if running:
            pid = json.loads(self._record.read_text(encoding="utf-8"))["pid"]
            _end(psutil.Process(pid), seconds)
        for pid in list(_CHILDREN):  # some may have ended by themselves, and nobody has asked
            _let_go(pid)
        self._record.unlink(missing_ok=True)
        return running

    @property
    def _record(self) -> Path:
        return self.folder / f"{self.name}.json"

    def _not_up(self) -> MachineError:
        end = self._log_end()
        kind = PortTakenError if _TAKEN in end else MachineError
        return kind(f"{self.name} did not come up; its log ends: {end}")

    def _log_end(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        # The frames of a stack trace would crowd out what went wrong.
        telling = [line for line in lines if line and not line[0].isspace()]
        return " | ".join(telling[-3:]) or "(empty)"


@contextmanager
def one_at_a_time(guard: Path) -> Iterator[None]:
    """Hold the lock on a file that other processes and threads wait for; it falls when the process ends."""
    guard.parent.mkdir(parents=True, exist_ok=True)
    with guard.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def free_port() -> int:
    """Return a port on the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _if_free(port: int) -> int:
    """Return the port.

    Raises:
        OSError: somebody listens there.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
    return port


def _end(process: psutil.Process, seconds: float) -> None:
    try:
        process.terminate()
        process.wait(seconds)
    except psutil.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(seconds)
    except psutil.NoSuchProcess:
        return
    finally:
        _let_go(process.pid)


def _let_go(pid: int) -> None:
    child = _CHILDREN.get(pid)
    if child is not None and child.poll() is not None:
        _CHILDREN.pop(pid, None)
