"""What the benchmarks share: a throw-away home, a broker, a filled topic, a warm session."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from streaming.broker import bootstrap_for, ensure_topic
from streaming.settings import Settings


@dataclass(frozen=True)
class Stage:
    """Where a benchmark runs: its settings, below a folder of its own, and the broker's address."""

    settings: Settings
    bootstrap: str


@contextmanager
def stage() -> Iterator[Stage]:
    """Start a broker in a throw-away home and remove both afterwards."""
    with tempfile.TemporaryDirectory(prefix="flagstream-bench-") as folder:
        settings = Settings.load(Path(folder), os.environ)
        with bootstrap_for(settings) as bootstrap:
            yield Stage(settings, bootstrap)


def fresh_topic(bootstrap: str, name: str, partitions: int = 4) -> str:
    """Create a topic and return its name."""
    ensure_topic(bootstrap, name, partitions, {})
    return name


def machine() -> dict[str, object]:
    """Say what the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def report(figures: dict[str, object], *, as_json: bool) -> None:
    """Print figures as one JSON object or one line each."""
    if as_json:
        print(json.dumps({**figures, "machine": machine()}))
        return
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value}")
