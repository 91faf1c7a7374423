"""Agents in processes of their own over one home, which tests start and kill."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from streaming.home.settings import Settings

DRIVER_SECONDS = 120.0


class _Reader(threading.Thread):
    """Reads a pipe to its end, so that whoever writes to it never waits; None: there is none."""

    def __init__(self, pipe: IO[str] | None) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self._pipe = pipe
        self.start()

    def run(self) -> None:
        """See threading.Thread."""
        if self._pipe is not None:
            with self._pipe:
                for line in self._pipe:
                    self.lines.append(line)


class Child(subprocess.Popen[str]):
    """A process that may print as much as it likes: what it prints is read while it runs.

    Args:
        command: program and arguments.
        apart: keep what it prints as errors apart from the rest.
        more: as subprocess.Popen takes them.
    """

    def __init__(self, command: Sequence[str], *, apart: bool = False, **more: Any) -> None:
        errors = subprocess.PIPE if apart else subprocess.STDOUT
        super().__init__(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="backslashreplace", **more
        )
        self._readers = _Reader(self.stdout), _Reader(self.stderr)
        self.stdout = self.stderr = None  # nobody else reads there

    @property
    def said(self) -> list[str]:
        """The lines that it has printed so far, errors last."""
        return [line for each in self._readers for line in each.lines]

    def wait_for(self, condition: Callable[[str], bool], seconds: float = DRIVER_SECONDS) -> None:
        """Wait until a condition holds of a line that it has printed.

        Raises:
            AssertionError: of none within so many seconds, or before its end.
        """

        def has_said() -> bool:
            if self.poll() is not None:
                self.communicate(timeout=seconds)
            found = any(map(condition, self.said))
            assert found or self.returncode is None, "".join(self.said)
            return found

        wait_until(has_said, seconds, "a line")

    def communicate(
        self,
        input: str | None = None,  # noqa: A002 -- as subprocess.Popen names it
        timeout: float | None = None,
    ) -> tuple[str, str]:
        """Wait for its end, and for that of its own children which print there, too.

        Returns:
            What it has printed, and what it has printed as errors.

        Raises:
            subprocess.TimeoutExpired: that takes longer than `timeout` seconds.
        """
        assert input is None, "it reads what its parent reads"
        deadline = None if timeout is None else time.monotonic() + timeout
        self.wait(timeout)
        for each in self._readers:
            each.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            if each.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        printed, errors = ("".join(each.lines) for each in self._readers)
        return printed, errors


class Drivers:
    """Starts driver processes over one home; whoever made it calls `end`.

    Args:
        settings: name the home.
        bootstrap: of the broker that all of them use.
        seconds: that a driver may take.

    `outputs` holds what each driver has printed, in the order in which they ended.
    """

    def __init__(self, settings: Settings, bootstrap: str, seconds: float = DRIVER_SECONDS) -> None:
        self._settings, self._bootstrap, self._seconds = settings, bootstrap, seconds
        self.outputs: list[str] = []
        self._children: list[Child] = []

    def start(
        self,
        spec: Path,
        at: str | None = None,
        strike: str = "SIGKILL",
        *,
        live: bool = False,
        **more: object,
    ) -> Child:
        """Start a driver.

        Args:
            spec: file of the agent's spec.
            at: step at which it gets a signal, a value of BatchStep or LateStep or MID_PUBLISH; None: never.
            strike: name of the signal.
            live: strike in a batch of its own, never in the repair of what the driver before has left.
            more: further keys of the order; see killable_driver.main.
        """
        order = {
            "spec": str(spec),
            "home": str(self._settings.home),
            "bootstrap": self._bootstrap,
            "at": at,
            "live": live,
            "signal": strike,
            **more,
        }
        command = [sys.executable, "-m", "streaming.testing.killable_driver", json.dumps(order)]
        child = Child(command, start_new_session=True)
        self._children.append(child)
        return child

    def end(self) -> None:
        """End whoever is left when a test gives up half-way."""
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.communicate()

    def run(self, spec: Path, at: str | None = None, *, live: bool = False, **more: Any) -> int:
        """Start a driver, wait for its end and return its exit code."""
        child = self.start(spec, at, live=live, **more)
        return self.outcome(child)

    def outcome(self, child: Child) -> int:
        """Wait for a driver's end, keep what it printed, and return its exit code."""
        output, _ = child.communicate(timeout=self._seconds)
        self.outputs.append(output)
        return child.returncode


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until a condition holds.

    Raises:
        AssertionError: it does not within so many seconds.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.05)
