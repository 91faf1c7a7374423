"""Metrics, traces and status show what the executors of a real cluster do, and the buckets that they hold."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.drivers import Child, wait_until
from streaming.testing.spark_cluster import spark_cluster
from streaming.testing.streams import Stream, write_spec
from tests.otlp_receiver import Collector, SentSpan, collector
from tests.ports import free_port

pytestmark = pytest.mark.timeout(1_800)
PARTITIONS, BUCKETS, KINDS, SECONDS = 3, 2, 2, 500.0
_SERIES = re.compile(r"^flagstream_(\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
COUNTED = {
    "executor_tasks_total/done": "flagstream.executors.tasks",
    "executor_tasks_total/failed": "flagstream.executors.failed_tasks",
    "executor_task_seconds_total": "flagstream.executors.seconds",
    "executor_result_bytes_total": "flagstream.executors.result_bytes",
    "executor_wait_seconds_total": "flagstream.executors.waited_seconds",
}


def test_what_executors_do_and_hold_is_counted_traced_and_said(
    bootstrap: str, topic: Callable[[str], str], tmp_path: Path
) -> None:
    stream = Stream(bootstrap, topic("events"))
    ensure_topic(bootstrap, stream.topic, PARTITIONS)
    stream.send(300)
    with spark_cluster(tmp_path / "cluster") as cluster, collector() as collected:
        where = {"master": cluster.master, "memory": "512m", "buckets": BUCKETS}
        spec = write_spec(tmp_path, topic, execution="cluster", cluster=where)
        agent = Watched(spec, tmp_path / "home", bootstrap, collected)
        try:
            agent.waits(lambda: agent.values().get("executors") == 2, "both executors")
            for _ in range(2):
                agent.waits(lambda: agent.has_closed(stream), "a batch")
                stream.send(150)
            agent.waits(lambda: agent.has_closed(stream), "the last batch")
            counted, said = agent.values(), agent.status()
        finally:
            agent.end()
    jobs, whole = collected.named("executors"), collected.named("batch")
    steps = {each.span_id: each for each in collected.spans}
    assert {steps[job.parent].name for job in jobs} == {"take", "score"}
    for name in ("take", "score"):
        done = [job for job in jobs if steps[job.parent].name == name]
        assert_like_the_spans(counted, name, done)
        for job in done:
            assert_has_its_tasks(job, steps[job.parent], collected)
    assert_like_the_buckets(counted, said, [each.attributes for each in whole])


class Watched:
    """An agent whose metrics are served and whose traces are sent."""

    def __init__(self, spec: Path, home: Path, bootstrap: str, collected: Collector) -> None:
        self._port, self._collected = free_port(), collected
        self._program = str(Path(sys.executable).parent / "flagstream")
        self._about = ["--spec", str(spec), "--home", str(home)]
        self._environ = {**os.environ, "FLAGSTREAM_KAFKA": bootstrap}
        watched = {"FLAGSTREAM_METRICS": str(self._port), "FLAGSTREAM_TRACES": collected.url}
        command = [self._program, "run", *self._about]
        self.child = Child(command, env={**self._environ, **watched})

    def waits(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            assert self.child.poll() is None, "".join(self.child.said)
            return condition()

        wait_until(holds, SECONDS, what)

    def values(self) -> dict[str, float]:
        """Every value, by name, what became of it, and the step of the batch."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as reply:
                page = str(reply.read().decode())
        except OSError:
            return {}
        found = {}
        for name, labels, value in _SERIES.findall(page):
            about = re.findall(r'(?:outcome|step)="(\w+)"', labels)
            found["/".join([name, *about])] = float(value)
        return found

    def has_closed(self, stream: Stream) -> bool:
        """Whether all records were read, and all batches that did are closed, counted and traced."""
        sent = len(stream.sent_ids) + stream.malformed + stream.redelivered
        found = self.values()
        if found.get("records_read_total") != sent:
            return False
        return found["batches_total/closed"] == len(self._collected.named("batch"))

    def status(self) -> dict[str, object]:
        command = [self._program, "status", "--json", *self._about]
        done = subprocess.run(command, env=self._environ, capture_output=True, text=True, check=True)
        said: dict[str, object] = json.loads(done.stdout)
        return said

    def end(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        self.child.communicate(timeout=SECONDS)
        assert self.child.returncode == 0, "".join(self.child.said)


def assert_like_the_spans(counted: dict[str, float], step: str, jobs: list[SentSpan]) -> None:
    for name, attribute in COUNTED.items():
        head, *outcome = name.split("/")
        value = counted["/".join([head, *outcome, step])]
        assert value == pytest.approx(sum(each.attributes[attribute] for each in jobs)), (step, name)
    assert counted[f"executor_tasks_total/done/{step}"] >= PARTITIONS
    assert counted[f"executor_task_seconds_total/{step}"] > 0
    assert counted[f"executor_result_bytes_total/{step}"] > 600 * 20
    assert counted[f"executor_task_skew_ratio/{step}"] >= 0.9


def assert_has_its_tasks(job: SentSpan, step: SentSpan, collected: Collector) -> None:
    """A job lies in its step, and its tasks in it."""
    assert step.began_ns - 1_000_000 <= job.began_ns <= job.ended_ns <= step.ended_ns + 1_000_000
    tasks = [each for each in collected.named("task") if each.parent == job.span_id]
    assert len(tasks) == job.attributes["flagstream.executors.tasks"] > 0
    for task in tasks:
        assert job.began_ns <= task.began_ns <= task.ended_ns <= job.ended_ns + 1_000_000
        assert task.attributes["flagstream.executor"] in {"0", "1"}


def assert_like_the_buckets(
    counted: dict[str, float], said: dict[str, object], batches: list[dict[str, object]]
) -> None:
    held = said["buckets"]
    assert isinstance(held, dict)
    assert (said["executors"], held["buckets"]) == (2, BUCKETS * KINDS)
    assert counted["executor_buckets"] == held["buckets"]
    assert counted["executor_bucket_largest_bytes"] == held["most_bytes"] > 0
    assert BUCKETS * KINDS <= counted["executor_buckets_rebuilt_total"] <= held["rebuilt"]
    skew = held["largest"] * held["buckets"] / held["rows"]
    assert counted["executor_bucket_skew_ratio"] == pytest.approx(skew)
    assert skew >= 1
    shown = [int(str(each["flagstream.buckets.rebuilt"])) for each in batches]
    assert BUCKETS * KINDS <= sum(shown) <= held["rebuilt"], "a checkpoint after the last batch may add some"
