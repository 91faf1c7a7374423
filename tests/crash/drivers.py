"""Driver processes over one home, started and ended by tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from streaming.home.settings import Settings

DRIVER_SECONDS = 120.0


class Drivers:
    """Starts driver processes over one home."""

    def __init__(self, settings: Settings, bootstrap: str) -> None:
        self._settings, self._bootstrap = settings, bootstrap
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
        order = {
            "spec": str(spec),
            "home": str(self._settings.home),
            "bootstrap": self._bootstrap,
            "at": at,
            "live": live,
            "signal": strike,
            **more,
        }
        command = [sys.executable, "-m", "tests.crash.driver", json.dumps(order)]
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

    def run(self, spec: Path, at: str | None = None, *, live: bool = False, **more: object) -> int:
        child = self.start(spec, at, live=live, **more)
        return self.outcome(child)

    def outcome(self, child: subprocess.Popen[str]) -> int:
        output, _ = child.communicate(timeout=DRIVER_SECONDS)
        self.outputs.append(output)
        return child.returncode


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        time.sleep(0.05)
