"""An agent on a real Spark cluster goes on where memory ends, on other machines, in lakes of earlier code."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import yaml
from confluent_kafka import Producer

from schemas.errors import ConfigurationError, MachineError
from schemas.spec import load_spec
from streaming.home.brokers import connection
from streaming.home.settings import Settings
from streaming.kafka.broker import bootstrap_for
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.drivers import Drivers, wait_until
from streaming.testing.live_lake import TOPIC
from streaming.testing.spark_cluster import SparkCluster, spark_cluster
from streaming.testing.streams import Stream, stored, write_spec
from tests.cluster_runs import OF_THE_RUN, SECONDS, Live, Run, Topic, on, pythons_of
from tests.crash_chain import LIVE, RULES, assert_nothing_lost_or_doubled, survive
from tests.other_machine import WITHOUT_FMA, has_fma
from tests.store_machines import TAKEOVER_SECONDS, Machines, replays
from tests.unit.old_lake import BEFORE_FORMATS, OF_2026_11, OldLake, assert_same

pytestmark = pytest.mark.timeout(900)
HELD = 1 << 30  # bytes that no Python process of an executor takes by itself
CANARY = 30.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkCluster]:
    with spark_cluster(tmp_path_factory.mktemp("cluster")) as up:
        yield up


@pytest.fixture
def stream(bootstrap: str, topic: Topic) -> Stream:
    name = topic("events")
    ensure_topic(bootstrap, name, 2)
    return Stream(bootstrap, name)


@pytest.fixture
def one(tmp_path: Path, bootstrap: str, topic: Topic, stream: Stream) -> Iterator[Run]:
    made = Run(tmp_path / "one", bootstrap, [stream.topic], topic)
    yield made
    made.drivers.end()


# What Pythons of executors do as long as a file is there: a module of the agent's is other than it should be.
OTHERWISE = """
import os
import signal
import sys
from importlib.machinery import PathFinder
from pathlib import Path


class Otherwise:
    def find_spec(self, name, path=None, target=None):
        if name != {module!r} or not taken():
            return None
        spec = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def loaded(module):
            load(module)
            {does}

        spec.loader.exec_module = loaded
        return spec


def taken():
    file = Path({file!r})
    try:
        file.read_text() == "always" or file.unlink()
    except FileNotFoundError:
        return False
    return True


def crowd():
    held = b"x" * {held}
    signal.pause()


sys.meta_path.insert(0, Otherwise())
"""
What = tuple[str, str]
COLUMNS: What = ("streaming.kafka.executor_decode", "module._pack = lambda _: os.urandom(60 << 20)")
ANSWERS = "module._carry_out_all = lambda *_: iter([bytes({size})])"
FEATURES: What = ("streaming.profiles.bucket_task", ANSWERS.format(size=600 << 20))
TOO_MUCH: What = ("streaming.profiles.bucket_task", ANSWERS.format(size=1 << 60))
CROWDED: What = ("streaming.profiles.bucket_task", "crowd()")
Otherwise = Callable[[What, str], Path]


@pytest.fixture
def otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Otherwise:
    """Have Pythons of the next run's executors do something else, `once` or `always`.

    Returns the file without which they do not; the first one removes it where that is once.
    """

    def done(what: What, how_often: str) -> Path:
        (file := tmp_path / "otherwise").write_text(how_often)
        module, does = what
        text = OTHERWISE.format(module=module, does=does, file=str(file), held=HELD)
        (tmp_path / "sitecustomize.py").write_text(text)
        setting = f"--conf spark.executorEnv.PYTHONPATH={tmp_path}"
        monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"{setting} pyspark-shell")
        return file

    return done


def full_heaps(cluster: SparkCluster) -> int:
    """How many executors have ended so far because their heap was full."""
    return sum(each.log.read_text(errors="replace").count("exitStatus 52") for each in cluster.workers)


@pytest.mark.parametrize("what", [COLUMNS, FEATURES], ids=["columns", "features"])
def test_an_executor_whose_heap_is_full_is_replaced(
    cluster: SparkCluster,
    one: Run,
    stream: Stream,
    otherwise: Otherwise,
    what: What,
) -> None:
    """Once, by what it was to send back; the batch is read, and its buckets are built, by others."""
    before, waits = full_heaps(cluster), otherwise(what, "once")
    stream.send(500)
    spec = one.spec(**on(cluster, buckets=2))
    one.until_idle(spec)
    assert not waits.exists()
    wait_until(lambda: full_heaps(cluster) == before + 1, SECONDS, "the end of one executor")
    one.assert_whole(load_spec(spec), stream)


def test_a_python_process_that_is_killed_for_its_memory_is_replaced(
    cluster: SparkCluster, one: Run, stream: Stream, otherwise: Otherwise
) -> None:
    """By SIGKILL from outside, as a kernel without memory does, while it scores."""
    otherwise(CROWDED, "once")
    stream.send(500)
    spec = one.spec(**on(cluster, buckets=2))
    live = Live(one, spec, stream)
    crowded: list[psutil.Process] = []

    def crowds() -> bool:
        assert live.child.poll() is None, "".join(live.child.said)
        found = [psutil.Process(pid) for pid in pythons_of(cluster)]
        crowded[:] = [each for each in found if each.memory_info().rss > HELD]
        return bool(crowded)

    wait_until(crowds, SECONDS, "a process that takes all memory")
    crowded[0].kill()
    wait_until(live.has_stored, SECONDS, "the batch")
    live.end()
    one.assert_whole(load_spec(spec), stream)


def send_large(stream: Stream, count: int, size: int) -> None:
    """Records that are rejected, and stand in the quarantine byte by byte."""
    chance = random.Random(5)
    producer = Producer({**connection(stream.bootstrap), "enable.idempotence": True})
    for _ in range(count):
        producer.produce(stream.topic, chance.randbytes(size), partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0
    stream.malformed += count


def test_a_batch_that_fills_the_heap_of_each_executor_ends_the_run_and_is_decided_by_larger_ones(
    cluster: SparkCluster, one: Run, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark, which would run its task four times in each of the three attempts, runs it once."""
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--conf spark.task.maxFailures=1 pyspark-shell")
    stream.send(300)
    send_large(stream, 5_200, 60_000)
    wide = {"records": 6_000, "max_bytes": 512 << 20}
    child = one.drivers.start(one.spec(**wide, **on(cluster, buckets=2)), endless=True)
    before = full_heaps(cluster)
    wait_until(lambda: child.poll() is not None, 2 * SECONDS, "the end of the run")
    said = "".join(child.said)
    assert child.returncode == MachineError.exit_code, said
    assert "heap of its JVM is full (exit code 52), in 3 attempts of this batch, and nothing is lost" in said
    wait_until(lambda: full_heaps(cluster) >= before + 3, SECONDS, "the end of each executor")
    spec = one.spec(**wide, **on(cluster, buckets=2, memory="2g"))
    one.until_idle(spec)
    one.assert_whole(load_spec(spec), stream)


def test_a_batch_that_no_python_process_has_memory_for_ends_the_run(
    cluster: SparkCluster, one: Run, stream: Stream, otherwise: Otherwise
) -> None:
    """They live on, and say so: first when it is scored, then when a new attempt finishes it."""
    file = otherwise(TOO_MUCH, "always")
    stream.send(300)
    spec = one.spec(**on(cluster, buckets=2))
    child = one.drivers.start(spec, endless=True)
    wait_until(lambda: child.poll() is not None, SECONDS, "the end of the run")
    said = "".join(child.said)
    assert child.returncode == MachineError.exit_code, said
    assert "its Python process may not take more memory, in 3 attempts of this batch" in said
    file.unlink()
    one.until_idle(spec)
    one.assert_whole(load_spec(spec), stream)


@pytest.mark.parametrize("store", ["gofakes3"], indirect=True)
def test_killed_drivers_are_followed_by_other_machines_that_share_a_store_and_a_cluster(
    cluster: SparkCluster, machines: Machines, bootstrap: str, topic: Topic, tmp_path: Path
) -> None:
    """Labels, sequences, absences and a canary take part; each machine hands its profiles to buckets."""
    where = on(cluster, buckets=3)
    spec_file = write_spec(tmp_path, topic, labels=topic("labels"), rules=RULES, **where)
    chain = [("store", LIVE), ("mid-publish", LIVE)]
    survived = survive(chain, machines, spec_file, bootstrap, percent=CANARY, takeover=TAKEOVER_SECONDS)
    assert_nothing_lost_or_doubled(survived, bootstrap, CANARY)
    replays(survived.settings, survived.spec, len(survived.stream.sent_ids))
    machines.hold_nothing_that_counts()


@pytest.mark.skipif(not has_fma(), reason="this processor is of the other class anyway")
def test_a_driver_of_another_class_of_processors_scores_nothing_with_the_clusters(
    cluster: SparkCluster, one: Run, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream.send(300)
    spec = one.spec(**on(cluster, buckets=2))
    with monkeypatch.context() as elsewhere:
        for name, value in WITHOUT_FMA.items():
            elsewhere.setenv(name, value)
        assert one.drivers.run(spec) == ConfigurationError.exit_code, one.drivers.outputs[-1]
    assert "executors compute with" in one.drivers.outputs[-1]
    assert one.table("transactions", "sequence").num_rows == 300, "decided, and scored by whoever can"
    one.until_idle(spec)
    one.assert_whole(load_spec(spec), stream)


def send_noted(bootstrap: str, lake: OldLake) -> None:
    """Have a topic hold, at their offsets, the records that came next in a lake of earlier code."""
    ensure_topic(bootstrap, TOPIC, 1, {"retention.ms": "-1"})
    records = lake.next_records()
    producer = Producer({**connection(bootstrap), "enable.idempotence": True})
    for _ in range(records["offset"][0].as_py()):
        producer.produce(TOPIC, b"was read long ago", partition=0)
        producer.poll(0)
    assert producer.flush(60) == 0
    at: list[int] = []
    for each in records.to_pylist():
        stamp = round(each["timestamp"].timestamp() * 1_000)
        producer.produce(
            TOPIC,
            each["value"],
            each["key"],
            partition=0,
            timestamp=stamp,
            on_delivery=lambda _, message: at.append(message.offset()),
        )
    assert producer.flush(60) == 0
    assert at == records["offset"].to_pylist()


class Upgraded:
    """A lake that earlier code has left with a batch half done, which this code goes on with."""

    def __init__(self, lake: OldLake, folder: Path) -> None:
        folder.mkdir()
        self._lake, self._folder = lake, folder
        self.settings: Settings = lake.unpacked("unfinished", folder)

    def goes_on(self, **where: object) -> tuple[int, str]:
        """Run it until all records are read that came next; return its exit code and what it said."""
        content: dict[str, Any] = self._lake.spec_of(self.settings).model_dump(mode="json")
        spec = self._folder / "spec.yaml"
        spec.write_text(yaml.safe_dump({**content, **where}), encoding="utf-8")
        with bootstrap_for(self.settings) as bootstrap:
            send_noted(bootstrap, self._lake)
            drivers = Drivers(self.settings, bootstrap)
            try:
                return drivers.run(spec, llm="auto"), drivers.outputs[-1]
            finally:
                drivers.end()

    def decided(self, name: str, order: str) -> pa.Table:
        rows = stored(self.settings.lake(self._lake.name), name, order)
        return rows.select([each for each in rows.schema.names if each not in OF_THE_RUN])


@pytest.mark.parametrize(
    ("lake", "more"), [(BEFORE_FORMATS, {"buckets": 3}), (OF_2026_11, {})], ids=["second", "first"]
)
def test_a_lake_of_earlier_code_goes_on_in_a_cluster_as_it_would_here(
    cluster: SparkCluster, tmp_path: Path, lake: OldLake, more: dict[str, object]
) -> None:
    """From a batch half done, by its own arithmetic; the first one leaves scoring to the driver."""
    here, away = (Upgraded(lake, tmp_path / name) for name in ("here", "away"))
    for each, where in ((here, {}), (away, on(cluster, **more))):
        code, said = each.goes_on(**where)
        assert code == 0, said
    for name, order in (("transactions", "sequence"), ("alerts", "outbox_seq")):
        assert away.decided(name, order).equals(here.decided(name, order)), name
    noted = [alert for name in ("finished_alerts", "later_alerts") for alert in lake.noted(name)]
    found = [
        each for each in lake.alerts_since(away.settings, noted[0]["outbox_seq"]) if each["revision"] == 1
    ]
    assert_same(found, noted)
    rows, _ = lake.replayed_exactly(away.settings)
    assert rows == away.decided("transactions", "sequence").num_rows


def test_a_lake_of_the_first_arithmetic_is_refused_buckets(cluster: SparkCluster, tmp_path: Path) -> None:
    lake = Upgraded(OF_2026_11, tmp_path / "old")
    code, said = lake.goes_on(**on(cluster, buckets=2))
    assert (code, "first arithmetic is scored by the driver alone" in said) == (
        ConfigurationError.exit_code,
        True,
    ), said
