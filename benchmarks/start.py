"""From the start of a process to its first alert on Kafka, with everything cached that a start can use again.

Each run has a home of its own with a broker that is up and payments that wait, and is a process of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from agent import SPECS
from benchmarks.harness import Stage, report, say, stage
from schemas.loading import parse_document
from schemas.spec import AgentSpec, load_spec
from streaming.commands.warming import fill_caches
from streaming.delta.lake_reader import LakeReader
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.feeds import simulate_to_topic
from streaming.kafka.topic_admin import ensure_topic

_RATE, _SECONDS = 1_000.0, 2.0
_MAIN = "from streaming.cli.root import main; main()"


@dataclass(frozen=True)
class _Started:
    """One start: seconds to the first alert, processor seconds of all its processes, its parts."""

    first_alert: float
    cpu: float
    parts: dict[str, float]


def measure(runs: int, *, as_json: bool) -> None:
    """Print medians: `first_alert_s`, `cpu_s` of this process and Spark's JVM, and what each part took."""
    with stage() as place:
        fill_caches(PlacedAgent(Settings.load(place.settings.home, os.environ), _spec()))
    starts = [_start(_spec(), number) for number in range(runs)]
    names = [name for name in starts[0].parts if all(name in each.parts for each in starts)]
    figures: dict[str, object] = {
        "first_alert_s": _median([each.first_alert for each in starts]),
        "slowest_s": round(max(each.first_alert for each in starts), 2),
        "cpu_s": _median([each.cpu for each in starts]),
        "runs": runs,
        **{f"{name}_s": _median([each.parts[name] for each in starts]) for name in names},
    }
    report(figures, as_json=as_json)


def _spec() -> AgentSpec:
    """The demo's agent, with a rule that so few payments meet already."""
    content = load_spec(SPECS / "card-fraud.yaml").model_dump(mode="json")
    content["rules"] = [{"name": "some", "when": "amount > 100", "severity": "low", "reason": "for a figure"}]
    return parse_document(content, AgentSpec, where="benchmark")


def _start(spec: AgentSpec, number: int) -> _Started:
    say(f"start {number + 1}")
    with stage() as place:
        topic = spec.data_sources.transactions.topic
        assert topic is not None, "the shipped spec names one"
        simulate_to_topic(place.bootstrap, topic, rate=_RATE, seconds=_SECONDS, seed=number)
        ensure_topic(place.bootstrap, spec.alerts.topic, 1)
        began = time.time()
        said = _run(place, spec)
        alerted = _first_alert(place, spec)
    parts = {each["name"]: each["took"] for each in said["parts"]}
    return _Started(alerted - began, said["cpu_seconds"], parts)


def _run(place: Stage, spec: AgentSpec) -> dict[str, Any]:
    file = place.settings.home / "spec.yaml"
    file.write_text(spec.model_dump_json(), encoding="utf-8")
    options = ["--spec", str(file), "--llm", "none", "--until-idle", "--warm", "--json"]
    command = [sys.executable, "-c", _MAIN, "run", *options, "--home", str(place.settings.home)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return next(dict(line["start"]) for line in lines if "start" in line)


def _first_alert(place: Stage, spec: AgentSpec) -> float:
    """When the first batch with alerts was closed, which is after they were published; seconds since 1970."""
    reader = LakeReader.of(PlacedAgent(place.settings, spec))
    rows = reader.rows("batches", ["alerts", "closed_at"]).to_pylist()
    return min(float(row["closed_at"].timestamp()) for row in rows if row["alerts"] > 0)


def _median(values: list[float]) -> float:
    return round(statistics.median(values), 2)
