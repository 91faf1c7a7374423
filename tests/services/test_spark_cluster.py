"""An agent on a real standalone Spark cluster decides what it decides locally, to the bit, whatever dies."""

from __future__ import annotations

import os
import re
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from confluent_kafka import Producer

from agent.model.child_environment import child_environment
from schemas.contract import CONTRACTS
from schemas.errors import FencedError
from schemas.spec import load_spec
from streaming.history.replay_runs import ReplaySpan, run_replay
from streaming.home.brokers import connection
from streaming.home.placed_agent import PlacedAgent
from streaming.kafka.topic_admin import ensure_topic
from streaming.testing.drivers import Child, wait_until
from streaming.testing.spark_cluster import SparkCluster, spark_cluster
from streaming.testing.streams import Stream, versions
from tests.cluster_runs import (
    SECONDS,
    Live,
    Run,
    Topic,
    executors_of,
    has_unread,
    on,
    python_of,
    standing_still,
    state_of,
)

pytestmark = pytest.mark.timeout(600)
PARTITIONS = 3
PAGE = Path(__file__).parents[2] / "docs" / "testing.md"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkCluster]:
    os.environ["KEY_OF_SOMEBODY"] = "not for executors"
    try:
        with spark_cluster(tmp_path_factory.mktemp("cluster")) as up:
            yield up
    finally:
        del os.environ["KEY_OF_SOMEBODY"]


@pytest.fixture
def stream(bootstrap: str, topic: Topic) -> Stream:
    name = topic("events")
    ensure_topic(bootstrap, name, PARTITIONS)
    return Stream(bootstrap, name)


@pytest.fixture
def run(tmp_path: Path, bootstrap: str, topic: Topic, stream: Stream) -> Iterator[Callable[[str], Run]]:
    made: list[Run] = []

    def begun(name: str) -> Run:
        made.append(Run(tmp_path / name, bootstrap, [stream.topic], topic))
        return made[-1]

    yield begun
    for each in made:
        each.drivers.end()


def send_odd(stream: Stream) -> None:
    """Records with keys and headers, without values, and large ones among them."""
    producer = Producer({**connection(stream.bootstrap), "enable.idempotence": True})
    for place in range(30):
        value = None if place % 3 == 0 else b'{"memo": "' + b"x" * (50 * place) + b'"}'
        producer.produce(stream.topic, value, b"key", headers=[("trace", b"%d" % place)])
    assert producer.flush(30) == 0
    stream.malformed += 30


@pytest.mark.parametrize(("records", "max_bytes", "executors"), [(400, 64 << 20, 2), (150, 1 << 20, 1)])
def test_the_same_stream_gives_the_same_bits(
    cluster: SparkCluster,
    stream: Stream,
    run: Callable[[str], Run],
    records: int,
    max_bytes: int,
    executors: int,
) -> None:
    """The second time there are two topics and small batches, whose large records the driver reads again."""
    here, away = run("local"), run("cluster")
    if executors == 1:
        ensure_topic(stream.bootstrap, f"{stream.topic}-2", 1)
        here.sources.append(f"{stream.topic}-2")
        away.sources = here.sources
    for place in range(3):
        stream.topic = here.sources[place % len(here.sources)]
        stream.send(250)
    send_odd(stream)
    here.until_idle(here.spec(records, max_bytes))
    spec = away.spec(records, max_bytes, **on(cluster, executors=executors))
    away.until_idle(spec)
    for name, order in (("transactions", "sequence"), ("alerts", "outbox_seq")):
        assert away.decided(name, order).equals(here.decided(name, order)), name
    places = ["topic", "partition", "offset", "key", "value", "headers", "reason", "detail"]
    left_out = [
        each.table("quarantine", "offset")
        .select(places)
        .sort_by([(name, "ascending") for name in places[:3]])
        for each in (here, away)
    ]
    assert left_out[1].equals(left_out[0])
    assert left_out[0].num_rows == stream.malformed
    assert len(away.table("batches", "batch_id")) > 780 // records
    away.assert_whole(load_spec(spec), stream)


@pytest.mark.parametrize(("records", "buckets", "executors"), [(400, 5, 2), (150, 1, 1)])
def test_buckets_give_the_same_bits(
    cluster: SparkCluster,
    stream: Stream,
    run: Callable[[str], Run],
    records: int,
    buckets: int,
    executors: int,
) -> None:
    """Alerts, with their reasons, and checkpoints, which hold profiles and how often each score came.

    One customer has 30 % of all events.
    """
    stream.busy = 0.3
    here, away = run("local"), run("cluster")
    for _ in range(4):
        stream.send(250)
    plain = here.spec(records)
    here.until_idle(plain)
    spec = away.spec(records, **on(cluster, executors=executors, buckets=buckets))
    away.until_idle(spec)
    for name, order in (("transactions", "sequence"), ("alerts", "outbox_seq")):
        assert away.decided(name, order).equals(here.decided(name, order)), name
    assert state_of(away, spec) == state_of(here, plain)
    away.assert_whole(load_spec(spec), stream)


# What has a memory of its own, or reads more than an event.
EVERYTHING: dict[str, Any] = {
    "profiles": {
        "block_rows": 64,
        "checkpoint_rows": 500,
        "pairs": [["customer", "terminal"]],
        "windows": {"customer": {"horizons": ["1h", "1d"], "lateness": "1h"}},
    },
    "detectors": {
        "counterparties": {"enabled": True, "entities": ["customer", "terminal"]},
        "habit": {"enabled": True},
        "multivariate": {"enabled": True},
    },
    "rules": [{"name": "risky", "when": "merchant_risk > 0.9", "severity": "high", "reason": "a known one"}],
}


def with_merchants(folder: Path) -> str:
    """Write the simulator's contract with a reference table beside it; returns its file."""
    merchants = {"merchant_id": [f"m{each}" for each in range(61)], "risk": [each / 60 for each in range(61)]}
    pq.write_table(pa.table(merchants), folder / "merchants.parquet")
    reference = {
        "path": str(folder / "merchants.parquet"),
        "on": {"terminal": "merchant_id"},
        "columns": {"merchant_risk": {"field": "risk", "type": "float"}},
    }
    known = yaml.safe_load((CONTRACTS / "simulator.yaml").read_text(encoding="utf-8"))
    path = folder / "contract.yaml"
    path.write_text(yaml.safe_dump({**known, "references": {"merchants": reference}}), encoding="utf-8")
    return str(path)


def test_every_detector_and_a_reference_give_the_same_bits_in_buckets(
    cluster: SparkCluster, stream: Stream, run: Callable[[str], Run], tmp_path: Path
) -> None:
    here, away = run("local"), run("cluster")
    for _ in range(3):
        stream.send(250)
    asked = {"contract": with_merchants(tmp_path), **EVERYTHING}
    here.until_idle(here.spec(**asked))
    away.until_idle(away.spec(**asked, **on(cluster, buckets=3)))
    for name, order in (("transactions", "sequence"), ("alerts", "outbox_seq")):
        assert away.decided(name, order).equals(here.decided(name, order)), name
    assert away.table("alerts", "outbox_seq").num_rows > 20
    assert "merchant_risk" in away.table("transactions", "sequence").schema.names
    spec = load_spec(away.spec(**asked))
    assert run_replay(PlacedAgent(away.settings, spec), ReplaySpan()).differences == ()


@pytest.mark.timeout(900)
def test_whatever_dies_buckets_are_built_anew(
    cluster: SparkCluster, stream: Stream, run: Callable[[str], Run]
) -> None:
    """Begun locally; executors, a Python process and a machine die with batches half done; ended locally."""
    one = run("one")
    stream.send(600)
    one.until_idle(one.spec())
    spec = one.spec(**on(cluster, buckets=3))
    live = Live(one, spec, stream, at="store", strike="SIGSTOP", live=True)
    live.sees(2)
    live.decides(100)
    live.closes_decided()
    wait_until(lambda: live.buckets().rebuilt >= 3 * 2, SECONDS, "buckets")
    begun = live.buckets().rebuilt
    for dies in (executors_of, python_of):
        live.decides(100)
        killed = dies(cluster)
        for pid in killed:
            os.kill(pid, signal.SIGSTOP)
        live.goes_on()
        wait_until(lambda: any(map(has_unread, killed)), SECONDS, "a task")  # noqa: B023 -- used at once
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        live.closes_decided()
    wait_until(lambda: live.buckets().rebuilt > begun, SECONDS, "buckets built anew")
    live.decides(100)
    cluster.workers[-1].kill()
    live.closes_decided()
    cluster.add_worker()
    live.sees(2)
    live.decides(100)
    live.closes_decided()
    live.decides(100)
    live.child.kill()
    live.child.communicate()
    again = one.spec(**on(cluster, buckets=7))
    stream.send(200)
    one.until_idle(again)
    stream.send(100)
    last = one.spec()
    one.until_idle(last)
    one.assert_whole(load_spec(last), stream)


def test_whatever_dies_everything_is_decided_once(
    cluster: SparkCluster, stream: Stream, run: Callable[[str], Run]
) -> None:
    """Begun locally, gone on with while executors and a machine die and one joins, ended locally."""
    one = run("one")
    stream.send(200)
    one.until_idle(one.spec())
    live = Live(one, one.spec(**on(cluster)), stream)
    live.sees(2)
    live.closes(100)
    assert_no_keys(cluster)
    # Stopped before it is sent, executors have the batch's tasks when they die.
    killed = executors_of(cluster)
    for pid in killed:
        os.kill(pid, signal.SIGSTOP)
    live.plans(100)
    wait_until(lambda: any(map(has_unread, killed)), SECONDS, "a task")
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(live.has_stored, SECONDS, "the batch")
    assert not set(executors_of(cluster)) & set(killed)
    cluster.workers[0].kill()
    live.sees(1)
    live.closes(100)
    cluster.add_worker()
    live.sees(2)
    live.closes(100)
    live.end()
    stream.send(100)
    spec = one.spec()
    one.until_idle(spec)
    one.assert_whole(load_spec(spec), stream)


def test_a_machine_that_wakes_after_others_did_its_tasks_changes_nothing(
    cluster: SparkCluster, stream: Stream, run: Callable[[str], Run]
) -> None:
    one = run("one")
    live = Live(one, spec := one.spec(**on(cluster, buckets=2)), stream)
    live.sees(2)
    live.closes(200)
    asleep = cluster.workers[-1]
    (executor,) = asleep.executors
    os.killpg(asleep.process.pid, signal.SIGSTOP)
    try:
        live.plans(100)
        wait_until(lambda: has_unread(executor), SECONDS, "a task")
        wait_until(live.has_stored, SECONDS, "the batch")
    finally:
        os.killpg(asleep.process.pid, signal.SIGCONT)
    wait_until(lambda: executor not in asleep.executors, SECONDS, "its end")
    live.sees(2)
    live.closes(100)
    live.end()
    one.assert_whole(load_spec(spec), stream)


def test_a_driver_that_wakes_after_its_successor_writes_nothing(
    cluster: SparkCluster, stream: Stream, run: Callable[[str], Run]
) -> None:
    """With a decided batch, which both have scored in buckets of their own."""
    one = run("one")
    spec = one.spec(**on(cluster, executors=1, buckets=2))
    stream.send(300)
    sleeper = one.drivers.start(spec, "store", "SIGSTOP")
    process = psutil.Process(sleeper.pid)
    wait_until(lambda: bool(process.status() == psutil.STATUS_STOPPED), SECONDS, "a decided batch")
    assert one.drivers.run(spec, takeover=1.0) == 0, one.drivers.outputs[-1]
    before = versions(one.settings.lake("tester"))
    process.send_signal(signal.SIGCONT)
    assert one.drivers.outcome(sleeper) == FencedError.exit_code, one.drivers.outputs[-1]
    assert versions(one.settings.lake("tester")) == before
    one.assert_whole(load_spec(spec), stream)


def test_a_batch_without_records_is_closed(
    cluster: SparkCluster, stream: Stream, run: Callable[[str], Run]
) -> None:
    """Offsets of a transaction that was aborted hold none."""
    one = run("one")
    live = Live(one, spec := one.spec(**on(cluster)), stream)
    live.sees(2)
    live.closes(200)
    producer = Producer({**connection(stream.bootstrap), "transactional.id": stream.topic})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(stream.topic, b"never")
    producer.flush(30)
    before = one.table("batches", "batch_id").num_rows
    producer.abort_transaction(30)
    wait_until(lambda: one.table("batches", "batch_id").num_rows > before, SECONDS, "the batch without any")
    assert one.table("batches", "batch_id")["read"].to_pylist()[-1] == 0
    live.closes(200)
    live.end()
    one.assert_whole(load_spec(spec), stream)


def test_a_master_that_forgets_the_agent_is_asked_anew(
    cluster: SparkCluster, stream: Stream, run: Callable[[str], Run]
) -> None:
    one = run("one")
    live = Live(one, spec := one.spec(**on(cluster)), stream)
    live.sees(2)
    live.closes(200)
    cluster.restart_master()
    live.sees(0)
    live.closes(200)
    live.end()
    one.assert_whole(load_spec(spec), stream)


def test_a_stop_does_not_wait_for_executors(
    cluster: SparkCluster, stream: Stream, run: Callable[[str], Run]
) -> None:
    """That stand still, with a decided batch in buckets, then with one they were to read."""
    one = run("one")
    spec = one.spec(**on(cluster, buckets=2))
    live = Live(one, spec, stream, at="store", strike="SIGSTOP", live=True)
    live.sees(2)
    live.decides(200)
    with standing_still(executors_of(cluster)) as held:
        live.goes_on()
        wait_until(lambda: any(map(has_unread, held)), SECONDS, "a task")
        live.end()
    # Given up by the run's words where it had begun to score; left where the stop came before that.
    assert sum(one.table("batches", "batch_id")["stored"].to_pylist()) < 200
    assert one.table("transactions", "sequence").num_rows == 200
    live = Live(one, spec, stream)
    live.sees(2)
    wait_until(live.has_stored, SECONDS, "the batch that was left")
    live.closes(100)
    with standing_still(executors_of(cluster)) as held:
        live.plans(100)
        wait_until(lambda: any(map(has_unread, held)), SECONDS, "a task")
        live.end()
    assert "executors_given_up" not in one.drivers.outputs[-1]
    assert one.table("transactions", "sequence").num_rows == 300
    last = one.spec()
    one.until_idle(last)
    one.assert_whole(load_spec(last), stream)


def test_a_python_process_that_hangs_is_ended_and_its_task_done_again(
    cluster: SparkCluster,
    stream: Stream,
    run: Callable[[str], Run],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """The first one that begins to decode."""
    (once := tmp_path / "hangs").touch()
    (tmp_path / "sitecustomize.py").write_text(HANGING.format(once=str(once)))
    setting = f"--conf spark.executorEnv.PYTHONPATH={tmp_path}"
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"{setting} pyspark-shell")
    one = run("one")
    stream.send(250)
    spec = one.spec(**on(cluster, executors=1, task_timeout="15s"))
    one.until_idle(spec)
    assert not once.exists()
    one.assert_whole(load_spec(spec), stream)


HANGING = """
import sys
import time
from pathlib import Path


class Hanging:
    def find_spec(self, name, path=None, target=None):
        if name == "streaming.kafka.executor_decode" and Path({once!r}).exists():
            Path({once!r}).unlink()
            time.sleep(10**6)


sys.meta_path.insert(0, Hanging())
"""


def assert_no_keys(cluster: SparkCluster) -> None:
    """Neither workers nor executors, nor their Python processes, get more than programs need to run."""
    assert "KEY_OF_SOMEBODY" in os.environ
    workers = [psutil.Process(each.process.pid) for each in cluster.workers if each.process.poll() is None]
    processes = [*workers, *(child for each in workers for child in each.children(recursive=True))]
    assert any("pyspark.daemon" in each.cmdline() for each in processes)
    for process in processes:
        names = set(process.environ())
        known = set(child_environment(dict.fromkeys(names, "")))
        odd = {
            name for name in names - known if not name.startswith(("SPARK_", "PYSPARK_", "PYTHON", "OMP_"))
        }
        assert odd == set(), (process.cmdline(), odd)


@pytest.mark.parametrize("ended_by", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_cluster_ends_with_its_owner(ended_by: signal.Signals) -> None:
    """By SIGKILL, which nobody can answer, and by what a time limit or a terminal sends to a whole group."""
    child = Child([sys.executable, "-m", "streaming.testing.spark_cluster", "1"], start_new_session=True)
    try:
        child.wait_for(lambda line: line.startswith("spark://"))
        java = [each for each in psutil.Process(child.pid).children() if "java" in each.name()]
        assert len(java) == 2
    finally:
        os.killpg(child.pid, ended_by)
        child.communicate(timeout=SECONDS)
    gone, alive = psutil.wait_procs(java, SECONDS)
    assert (len(gone), alive) == (2, [])


def test_the_example_of_the_page_on_tests_passes(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (each for each in blocks if "def test_a_machine_is_lost" in each)
    path = tmp_path / "example.py"
    path.write_text(code, encoding="utf-8")
    runpy.run_path(str(path))["test_a_machine_is_lost"](tmp_path)
