"""Spark 4.0 and 4.1, which platforms have: the units, and an agent on a session that is not its own.

`make test-platform` runs these. Each version is installed by its hash into a folder of the cache, before
the project's own on Python's path.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.spec import load_spec
from streaming.home.settings import Settings
from streaming.kafka.topic_admin import ensure_topic
from streaming.setup.downloads import fetch_jars, jar_paths
from streaming.testing.streams import Stream, write_spec

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VERSIONS = ("4.0.0", "4.1.1")
# A bill of materials lists what is installed beside the interpreter; sessions of others keep their rules.
OF_THE_OWN_SPARK = ("test_sbom.py", "test_plan_rules.py::test_each_rule_that_is_left_out_is_one_of_spark_s")
pytestmark = pytest.mark.timeout(3_000)


@pytest.fixture(params=VERSIONS, scope="module")
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def packages(version: str) -> Path:
    """Install a PySpark unless it is there."""
    folder = Settings.load(ROOT / "var", os.environ).cache / "platform" / f"spark-{version}"
    if not (folder / "done").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        command += ["--require-hashes", "--upgrade", "--target", str(folder)]
        subprocess.run([*command, "-r", str(HERE / f"spark-{version}.txt")], check=True)
        (folder / "done").touch()
    return folder


@pytest.fixture(scope="module")
def jars(version: str) -> list[Path]:
    settings = Settings.load(ROOT / "var", os.environ)
    folder, lock = settings.cache / "jars" / f"spark-{version}", HERE / "jars.lock"
    fetch_jars(settings, lock=lock, folders=[folder])
    return jar_paths(folder, lock=lock)


def run(packages: Path, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(packages), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "SPARK_LOCAL_IP": "127.0.0.1", **environ}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_an_agent_runs_on_a_session_that_is_not_its_own(
    version: str,
    packages: Path,
    jars: list[Path],
    bootstrap: str,
    topic: Callable[[str], str],
    tmp_path: Path,
) -> None:
    spec_file = write_spec(tmp_path, topic)
    spec = load_spec(spec_file)
    ensure_topic(bootstrap, spec.data_sources.transactions.topic, 2)
    ensure_topic(bootstrap, spec.alerts.topic, 1)
    stream = Stream(bootstrap, spec.data_sources.transactions.topic)
    stream.send(900)
    stream.send(900)
    given = (spec_file, tmp_path / "home", bootstrap, *jars)
    done = run(packages, "-m", "tests.platform.adopted_run", *given, DATABRICKS_RUNTIME_VERSION="17.3")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["spark"], found["zone"]) == (version, "UTC")
    assert found["totals"]["stored"] == len(stream.sent_ids)
    assert found["totals"]["quarantined"] == stream.malformed
    assert found["totals"]["alerts"] > 10
    assert (found["balanced"], found["differences"], found["replay"]) == (True, 0, 0)


def test_the_units_pass(version: str, packages: Path) -> None:
    said = run(packages, "-c", "import pyspark; print(pyspark.__version__)")
    assert said.stdout.strip() == version
    left_out = [
        word for each in OF_THE_OWN_SPARK for word in ("--deselect", f"tests/unit/streaming/setup/{each}")
    ]
    done = run(packages, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *left_out, "tests/unit")
    assert done.returncode == 0, done.stdout[-20_000:]
