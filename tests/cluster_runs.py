"""Agents on a real Spark cluster: how tests run them, watch them, and find the processes of executors."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from schemas.spec import AgentSpec, load_spec
from streaming.definition.agent_definition import AgentDefinition
from streaming.detection.checkpoints import newest
from streaming.history.reconcile import reconcile
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.placed_agent import PlacedAgent
from streaming.home.settings import Settings
from streaming.kafka.source import last_planned
from streaming.profiles.entity_buckets import BucketFacts
from streaming.profiles.profile_kernels import ENTITY_PARTS, KIND_PARTS
from streaming.run.executors import read_cluster
from streaming.store.opening import folders_of
from streaming.testing.drivers import DRIVER_SECONDS, Child, Drivers, wait_until
from streaming.testing.spark_cluster import SparkCluster
from streaming.testing.streams import Stream, folded_scores, published, stored, write_spec

SECONDS = 150.0
Topic = Callable[[str], str]
# What two runs of their own cannot have in common: Spark's id of the query, and when something was done.
OF_THE_RUN = {"query_id", "created_at", "alerted_at", "decided_at", "pins"}


@dataclass
class Run:
    """One agent over a topic, in a home of its own."""

    folder: Path
    bootstrap: str
    sources: list[str]
    topic: Topic

    def __post_init__(self) -> None:
        self.settings = Settings.load(self.folder / "home", {})
        self.drivers = Drivers(self.settings, self.bootstrap, 2 * DRIVER_SECONDS)

    def spec(
        self, records: int = 400, max_bytes: int = 64 << 20, contract: str = "simulator", **where: object
    ) -> Path:
        transactions = {
            "contract": contract, "topics": self.sources, "max_records_per_batch": records,
            "max_bytes_per_batch": max_bytes,
        }  # fmt: skip
        changes: dict[str, Any] = {"data_sources": {"transactions": transactions}, **where}
        return write_spec(self.folder, lambda name: self.topic(f"{name}-{self.folder.name}"), **changes)

    def until_idle(self, spec: Path) -> None:
        assert self.drivers.run(spec) == 0, self.drivers.outputs[-1]

    def table(self, name: str, order: str) -> pa.Table:
        return stored(self.settings.lake("tester"), name, order)

    def decided(self, name: str, order: str) -> pa.Table:
        rows = self.table(name, order)
        return rows.select([each for each in rows.schema.names if each not in OF_THE_RUN])

    def assert_whole(self, spec: AgentSpec, stream: Stream) -> None:
        """Everything is stored, scored and sent once, and decided anew without a difference."""
        rows, alerts = self.table("transactions", "sequence"), self.table("alerts", "outbox_seq")
        assert Counter(rows["transaction_id"].to_pylist()) == Counter(stream.sent_ids)
        assert rows["sequence"].to_pylist() == list(range(rows.num_rows))
        sent = [each["alert_id"] for each in published(self.bootstrap, spec.alerts.topic)]
        assert sent == alerts["alert_id"].to_pylist()
        assert len(set(sent)) == len(sent) > 3
        assert set(folded_scores(spec, rows)) == set(alerts["transaction_id"].to_pylist())
        found = reconcile(PlacedAgent(self.settings, spec), self.bootstrap, timedelta(hours=1))
        assert found.differences == 0, found
        assert run_replay(PlacedAgent(self.settings, spec), ReplaySpan()).differences == ()


def on(cluster: SparkCluster, **more: object) -> dict[str, Any]:
    return {"execution": "cluster", "cluster": {"master": cluster.master, "memory": "512m", **more}}


def state_of(run: Run, spec: Path) -> tuple[int, dict[str, dict[bytes, list[bytes]]]]:
    """What the newest checkpoint knows, of entities by their ids, and as of which row."""
    definition = AgentDefinition.of(load_spec(spec)).layout.definition
    saved = newest(folders_of(run.settings.profiles("tester")), definition).snapshot
    assert saved is not None
    found = {}
    for kind, part in saved.profiles.items():
        bounds = pairwise(part.ids.offsets.tolist())
        ids = [part.ids.data[start:stop].tobytes() for start, stop in bounds]
        rows = range(len(ids))
        found[kind] = {
            ids[row]: [getattr(part.state, name)[row].tobytes() for name in ENTITY_PARTS] for row in rows
        }
        found[kind][b""] = [getattr(part.state, name).tobytes() for name in KIND_PARTS]
    found["scores"] = {b"": [part.tobytes() for part in saved.histogram]}
    return saved.next_sequence, found


class Live:
    """An agent that runs on, and what it has closed."""

    def __init__(self, run: Run, spec: Path, stream: Stream, **more: Any) -> None:
        self._run, self._stream = run, stream
        self.child: Child = run.drivers.start(spec, endless=True, **more)

    @property
    def file(self) -> Path:
        return self._run.settings.health("tester")

    def has_stored(self) -> bool:
        assert self.child.poll() is None, "".join(self.child.said)
        rows = self._run.table("batches", "batch_id")
        return sum(rows["stored"].to_pylist()) == len(self._stream.sent_ids)

    def sees(self, executors: int) -> None:
        wait_until(lambda: read_cluster(self.file).executors == executors, SECONDS, f"{executors} executors")

    def closes(self, count: int) -> None:
        self._stream.send(count)
        wait_until(self.has_stored, SECONDS, "a batch")

    def plans(self, count: int) -> None:
        """Send, and wait until Spark has planned a batch of it."""
        checkpoint = self._run.settings.checkpoint("tester")
        before = last_planned(checkpoint)
        self._stream.send(count)
        wait_until(lambda: last_planned(checkpoint) != before, SECONDS, "a plan")

    def decides(self, count: int) -> None:
        """Send, and wait until the driver stands still with all of it decided, the last batch not scored."""
        self._stream.send(count)
        wait_until(self.has_decided, SECONDS, "a decided batch")

    def has_decided(self) -> bool:
        """Whether it stands still and all is stored; what was sent may come after a batch without records."""
        if psutil.Process(self.child.pid).status() != psutil.STATUS_STOPPED:
            return False
        if self._run.table("transactions", "sequence").num_rows == len(self._stream.sent_ids):
            return True
        self.goes_on()
        return False

    def goes_on(self) -> None:
        self.child.send_signal(signal.SIGCONT)

    def closes_decided(self) -> None:
        wait_until(self.has_closed, SECONDS, "the batch")

    def has_closed(self) -> bool:
        """Whether all is stored and closed; what was sent may have come as several batches."""
        if psutil.Process(self.child.pid).status() == psutil.STATUS_STOPPED:
            self.goes_on()
        return self.has_stored()

    def buckets(self) -> BucketFacts:
        found = read_cluster(self.file).buckets
        assert found is not None
        return found

    def end(self) -> None:
        self.child.send_signal(signal.SIGTERM)
        assert self._run.drivers.outcome(self.child) == 0, self._run.drivers.outputs[-1]


def executors_of(cluster: SparkCluster) -> list[int]:
    return [pid for each in cluster.workers for pid in each.executors]


@contextmanager
def standing_still(processes: list[int]) -> Iterator[list[int]]:
    """Have processes stand still for the length of a block; whoever lives then is ended."""
    try:
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        yield processes
    finally:
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def python_of(cluster: SparkCluster) -> list[int]:
    """The Python processes of executors that do their tasks, by their ids."""
    found = pythons_of(cluster)
    assert found
    return found


def pythons_of(cluster: SparkCluster) -> list[int]:
    """Those that there are, which may be none, or may have ended by now."""
    found = list[int]()
    for executor in executors_of(cluster):
        with suppress(psutil.NoSuchProcess):
            daemons = [
                each for each in psutil.Process(executor).children() if "pyspark.daemon" in each.cmdline()
            ]
            found += [each.pid for daemon in daemons for each in daemon.children()]
    return found


def has_unread(pid: int) -> bool:
    """Whether a process was sent something that it has not taken yet."""
    opened = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
    tables = [Path(f"/proc/net/{name}").read_text(encoding="ascii") for name in ("tcp", "tcp6")]
    lines = [line.split() for table in tables for line in table.splitlines()]
    sockets = [line for line in lines if line[0] != "sl" and f"socket:[{line[9]}]" in opened]
    return any(int(line[4].partition(":")[2], 16) for line in sockets)
