"""A real schema registry for tests: fetched once by the Ivy that PySpark ships, pinned, run as a child."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from agent.model.processes import one_at_a_time
from streaming.home.settings import Settings, find_java

LOCK = Path(__file__).parent / "services" / "registry.lock"
_SECONDS = 90.0
_MODULE = """\
<ivy-module version="2.0" xmlns:m="http://ant.apache.org/ivy/maven">
  <info organisation="flagstream" module="tests"/>
  <configurations><conf name="default"/></configurations>
  <dependencies>
    <dependency org="{org}" name="{name}" rev="{rev}" transitive="false" conf="default->default">
      <artifact name="{name}" type="{kind}" ext="{kind}" m:classifier="{classifier}"/>
    </dependency>
  </dependencies>
</ivy-module>
"""
# Its parent's description is not published as Ivy expects it, and nothing of it is needed.
_SETTINGS = """\
<ivysettings>
  <settings defaultResolver="public"/>
  <resolvers><ibiblio name="public" m2compatible="true" usepoms="false"/></resolvers>
</ivysettings>
"""


class RegistryProcess:
    """A registry on a port of this machine, which keeps what it is given when it is killed.

    Args:
        settings: name the folder of downloads.
        port: where it listens.
        folder: for what it keeps, and what it prints.
    """

    def __init__(self, settings: Settings, port: int, folder: Path) -> None:
        self._folder, self._port, self._log = installed(settings), port, folder / "registry.log"
        self._storage = f"-Dapicurio.datasource.url=jdbc:h2:file:{folder / 'registry'}"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._port}/apis/ccompat/v7"

    def start(self) -> None:
        runner = next(self._folder.glob("*-runner.jar"))
        options = ["-Xmx400m", "-Dquarkus.http.host=127.0.0.1", f"-Dquarkus.http.port={self._port}"]
        options.append(self._storage)
        with self._log.open("ab") as out:
            self._child = subprocess.Popen([find_java(), *options, "-jar", runner], stdout=out, stderr=out)
        deadline = time.monotonic() + _SECONDS
        while not self._answers():
            assert self._child.poll() is None and time.monotonic() < deadline, self._log.read_text()[-2_000:]
            time.sleep(0.2)

    def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def register(self, subject: str, schema: str, kind: str = "AVRO", **more: Any) -> int:
        """Give it a schema and return the id."""
        body = json.dumps({"schema": schema, "schemaType": kind, **more}).encode()
        request = urllib.request.Request(
            f"{self.address}/subjects/{subject}/versions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(json.load(answer)["id"])

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.address}/schemas/types", timeout=5) as answer:
                return bool(json.load(answer))
        except (urllib.error.URLError, OSError, ValueError):
            return False


def installed(settings: Settings) -> Path:
    """Return the folder of the registry, fetched and checked once.

    Raises:
        AssertionError: it cannot be fetched, or is not what the lock says.
    """
    line = next(each for each in LOCK.read_text().splitlines() if not each.startswith("#"))
    coordinates, sha256 = line.split()
    folder = settings.cache / "tests" / sha256
    with one_at_a_time(settings.cache / "tests.guard"):
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent) as name:
                archive = _fetched(Path(name), coordinates, settings)
                assert hashlib.sha256(archive.read_bytes()).hexdigest() == sha256, archive.name
                with tarfile.open(archive) as content:
                    content.extractall(Path(name) / "content", filter="data")
                (Path(name) / "content").rename(folder)
    return folder


def _fetched(folder: Path, coordinates: str, settings: Settings) -> Path:
    org, name, rev, kind, classifier = coordinates.split(":")
    (folder / "ivy.xml").write_text(
        _MODULE.format(org=org, name=name, rev=rev, kind=kind, classifier=classifier)
    )
    (folder / "settings.xml").write_text(_SETTINGS)
    spark = importlib.util.find_spec("pyspark")
    assert spark is not None and spark.submodule_search_locations is not None
    ivy = next(Path(spark.submodule_search_locations[0]).glob("jars/ivy-*.jar"))
    mirror = settings.ivy_settings or folder / "settings.xml"
    command: list[str | Path] = [find_java(), f"-Divy.default.ivy.user.dir={folder}", "-jar", ivy]
    command += ["-settings", mirror, "-cache", folder / "cache", "-ivy", folder / "ivy.xml"]
    command += ["-confs", "default", "-types", kind, "-retrieve", f"{folder}/[artifact].[ext]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    archive = folder / f"{name}.{kind}"
    assert archive.exists(), done.stdout[-2_000:]
    return archive
