"""An agent that is stopped at once, in the middle of a batch: the next run repairs what it left."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from streaming.home.settings import Settings
from tests.integration.test_command_line import (
    CHILD_SECONDS,
    Shell,
    Topic,
    has_read_events,
    read_until,
    run_until_idle,
    running,
    write_job,
)


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
        read_until(child.stdout, has_read_events)
        child.send_signal(signal.SIGINT)
        read_until(child.stderr, lambda line: "finishing the current batch" in line)
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=CHILD_SECONDS)
        assert child.returncode == 130, errors
    assert "stopped at once" in errors
    run_until_idle(spark, settings, spec_file, bootstrap)
    found = Shell(monkeypatch, capsys).json("reconcile", "--spec", spec_file, "--home", settings.home)
    assert (found["read"], found["transactions"]) == (6_003, 6_000)
    assert found["alerts_on_kafka"] > 0
