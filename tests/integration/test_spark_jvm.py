"""Spark's JVM is started with what Spark's own launcher would give it."""

from __future__ import annotations

import os
import subprocess

from streaming.home.settings import find_java
from streaming.jvm.launching import MODULE_OPTIONS, spark_home

LAUNCHER = "org.apache.spark.launcher.Main"


def test_the_options_are_those_of_spark_s_own_launcher() -> None:
    command = [find_java(), "-cp", str(spark_home() / "jars" / "*"), LAUNCHER]
    done = subprocess.run(
        [*command, "org.apache.spark.deploy.SparkSubmit", "pyspark-shell"],
        env={**os.environ, "SPARK_HOME": str(spark_home()), "SPARK_SCALA_VERSION": "2.13"},
        capture_output=True,
        check=True,
    )
    words = done.stdout.decode().replace("\n", "\0").split("\0")
    own = words[words.index("-cp") + 2 : words.index("org.apache.spark.deploy.SparkSubmit")]
    assert [each for each in own if not each.startswith("-Xmx")] == list(MODULE_OPTIONS)
