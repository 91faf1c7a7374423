"""Agents in processes of their own over one home, which tests start and kill."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from streaming.home.settings import Settings

DRIVER_SECONDS = 120.0


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
        self._children: list[subprocess.Popen[str]] = []

    def start(
        self,
        spec: Path,
        at: str | None = None,
        strike: str = "SIGKILL",
        *,
        live: bool = False,
        **more: object,
    ) -> subprocess.Popen[str]:
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
        child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
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

    def outcome(self, child: subprocess.Popen[str]) -> int:
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
