"""The JVMs that an agent starts, the broker's and Spark's, know no keys."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
from pyspark.sql import SparkSession

from agent.model.child_environment import child_environment

# Set by the shell scripts and the launcher between this process and Spark's JVM.
OF_THE_LAUNCHER = {"PWD", "OLDPWD", "SHLVL", "_", "_PYSPARK_DRIVER_CONN_INFO_PATH"}


@pytest.mark.usefixtures("spark", "bootstrap")
def test_neither_jvm_inherits_more_than_it_needs() -> None:
    jvms = [each for each in psutil.Process().children(recursive=True) if "java" in each.name()]
    assert len(jvms) >= 2
    assert "PYTEST_VERSION" in os.environ, "something that is on no list, so that the test can fail"
    for jvm in jvms:
        content = Path(f"/proc/{jvm.pid}/environ").read_bytes().decode().split("\0")
        names = {each.partition("=")[0] for each in content if each}
        known = set(child_environment(dict.fromkeys(names, ""))) | OF_THE_LAUNCHER
        assert {name for name in names - known if not name.startswith(("SPARK_", "PYSPARK_"))} == set()


def test_this_process_keeps_its_environment_while_spark_runs(spark: SparkSession) -> None:
    assert spark.range(3).count() == 3
    assert "PYTEST_VERSION" in os.environ
