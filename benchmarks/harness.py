"""What the benchmarks share: a throw-away home with a broker, the agent they run, how figures are printed."""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent import SPECS
from schemas.loading import parse_document
from schemas.spec import AgentSpec, load_spec
from streaming.home.settings import Settings
from streaming.kafka.broker import bootstrap_for


@dataclass(frozen=True)
class Stage:
    """Where a benchmark runs: settings below a throw-away folder, and the broker's address."""

    settings: Settings
    bootstrap: str


@contextmanager
def stage(store: str | None = None) -> Iterator[Stage]:
    """Start a broker in a throw-away home; both are gone afterwards.

    Args:
        store: where lakes lie; None for below the home.
    """
    with tempfile.TemporaryDirectory(prefix="flagstream-bench-") as folder:
        settings = Settings.load(Path(folder), {**_surroundings(), **_of_store(store)})
        with bootstrap_for(settings) as bootstrap:
            yield Stage(settings, bootstrap)


def _surroundings() -> dict[str, str]:
    """Return the environment without what would put a throw-away lake into somebody's store."""
    environ = os.environ.items()
    return {
        name: value
        for name, value in environ
        if name != "FLAGSTREAM_STORE" and not name.startswith("FLAGSTREAM_AUDIT_ANCHOR")
    }


def _of_store(store: str | None) -> dict[str, str]:
    """Beside a store no key is made, so that any machine may go on."""
    return {} if store is None else {"FLAGSTREAM_STORE": store, "FLAGSTREAM_AUDIT_KEY": secrets.token_hex(32)}


def bench_spec(*, batch: int, threshold: float = 0.99) -> AgentSpec:
    """Return the demo's agent with the LLM off and another micro-batch size."""
    content = load_spec(SPECS / "card-fraud.yaml").model_dump(mode="json")
    content["name"] = "bench"
    content["threshold"] = threshold
    content["llm"] = {"provider": "none"}
    content["data_sources"]["transactions"]["max_records_per_batch"] = batch
    return parse_document(content, AgentSpec, where="benchmark")


def say(what: str) -> None:
    """Tell on standard error what is being done."""
    sys.stderr.write(f"{what}\n")
    sys.stderr.flush()


def report(figures: dict[str, object], *, as_json: bool) -> None:
    """Print figures, and the machine they were measured on, as one JSON object or one per line."""
    figures = {**figures, "machine": _machine()}
    if as_json:
        print(json.dumps(figures))
        return
    width = max(len(name) for name in figures)
    for name, value in figures.items():
        print(f"{name:<{width}}  {value}")


def _machine() -> str:
    memory = round(psutil.virtual_memory().total / 2**30)
    return f"{os.cpu_count()} cores, {memory} GiB, Python {platform.python_version()}"
