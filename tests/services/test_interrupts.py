"""An agent that is stopped within a batch: it finishes that one, or the next run repairs what it left."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from schemas.spec import load_spec
from streaming.batch.steps import BatchStep
from streaming.delta.lake_reader import LakeReader
from streaming.home.settings import Settings
from streaming.testing.drivers import Child, Drivers
from streaming.testing.streams import published
from tests.deployment import agent_pod
from tests.integration.test_command_line import (
    CHILD_SECONDS,
    Shell,
    Topic,
    has_read_events,
    run_until_idle,
    running,
    write_job,
)
from tests.sandbox import FLAGSTREAM


def test_after_a_second_interrupt_the_next_run_repairs(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spark: SparkSession,
    bootstrap: str,
    tmp_path: Path,
    topic: Topic,
) -> None:
    monkeypatch.setenv("FLAGSTREAM_KAFKA", bootstrap)
    spec_file, stream = write_job(tmp_path, bootstrap, topic)
    stream.send(6_000)
    settings = replace(Settings.load(tmp_path / "home"), kafka=bootstrap)
    with running(spec_file, settings.home, bootstrap) as child:
        child.wait_for(has_read_events, CHILD_SECONDS)
        child.send_signal(signal.SIGINT)
        child.wait_for(lambda line: "finishing the current batch" in line, CHILD_SECONDS)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=CHILD_SECONDS)
        assert child.returncode == 130, errors
    assert "stopped at once" in errors
    run_until_idle(spark, settings, spec_file, bootstrap)
    found = Shell(monkeypatch, capsys).json("reconcile", "--spec", spec_file, "--home", settings.home)
    assert (found["read"], found["transactions"]) == (6_003, 6_000)
    assert found["alerts_on_kafka"] > 0


@pytest.mark.parametrize("step", [BatchStep.TAKE, BatchStep.STORE, BatchStep.ALERT, BatchStep.PUBLISH])
def test_a_pod_that_is_asked_to_end_finishes_its_batch_within_its_grace_period(
    bootstrap: str, tmp_path: Path, topic: Topic, step: BatchStep
) -> None:
    """SIGTERM comes at a step of the first batch; the rest of the topic is left to the next run."""
    spec_file, stream = write_job(tmp_path, bootstrap, topic)
    stream.send(6_000)
    settings = replace(Settings.load(tmp_path / "home"), kafka=bootstrap)
    grace = agent_pod()["terminationGracePeriodSeconds"]
    drivers = Drivers(settings, bootstrap, grace + CHILD_SECONDS)
    child = drivers.start(spec_file, step.value, "SIGTERM", live=True, endless=True)
    try:
        child.wait_for(lambda line: "finishing the current batch" in line, CHILD_SECONDS)
        said, _ = child.communicate(timeout=grace)
    finally:
        drivers.end()
    assert child.returncode == 0, said
    spec = load_spec(spec_file)
    reader = LakeReader(settings.lake(spec.name), spec.tables)
    (batch,) = reader.rows("batches", ["next_sequence", "alerts"]).to_pylist()
    assert 0 < batch["next_sequence"] == reader.rows("transactions", ["sequence"]).num_rows < 6_000
    assert batch["alerts"] == len(published(bootstrap, spec.alerts.topic)) > 0


def test_a_benchmark_of_a_cluster_that_a_time_limit_ends_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM reaches it twice, as `timeout` sends it, and what it has started in its own group as well."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    sizes = ("--events", "100000", "--batch", "10000", "--entities", "10000")
    child = Child([*FLAGSTREAM, "bench", "cluster", *sizes], start_new_session=True)
    try:
        child.wait_for(lambda line: line.startswith("bench-executors-1"), 4 * CHILD_SECONDS)
        child.wait_for(lambda _: sum("  batch 1:" in line for line in child.said) > 1, CHILD_SECONDS)
        started = psutil.Process(child.pid).children(recursive=True)
        for _ in range(2):
            os.killpg(child.pid, signal.SIGTERM)
        child.communicate(timeout=CHILD_SECONDS)
    finally:
        child.kill()
    assert child.returncode == 128 + signal.SIGTERM, "".join(child.said)
    assert len(started) > 5
    assert psutil.wait_procs(started, 10)[1] == []
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith("flagstream-")] == []
