"""The real Ivy runs here against a repository in a folder: about a second for each download, no network."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from schemas.errors import MachineError
from streaming.home.settings import Settings
from streaming.setup.downloads import Jar, check_jars, fetch_jars, jar_paths

BROKER = Jar("broker", "org.example", "log", "1.0", hashlib.sha256(b"log").hexdigest())
SPARK = Jar("spark", "org.example", "table_2.13", "4.4.0", hashlib.sha256(b"table_2.13").hexdigest())
SETTINGS = """\
<ivysettings>
  <settings defaultResolver="folder"/>
  <resolvers><filesystem name="folder" m2compatible="true">
    <ivy pattern="{root}/[module]-[revision].pom"/>
    <artifact pattern="{root}/[artifact]-[revision].[ext]"/>
  </filesystem></resolvers>
</ivysettings>
"""
POM = """\
<project><modelVersion>4.0.0</modelVersion>
<groupId>{jar.organisation}</groupId><artifactId>{jar.name}</artifactId><version>{jar.revision}</version>
<dependencies><dependency>
<groupId>org.example</groupId><artifactId>unlocked</artifactId><version>1</version>
</dependency></dependencies></project>
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    for jar in (BROKER, SPARK):
        (folder / jar.file_name).write_bytes(jar.name.encode())
        (folder / f"{jar.name}-{jar.revision}.pom").write_text(POM.format(jar=jar))
    (folder / "settings.xml").write_text(SETTINGS.format(root=folder))
    return folder


@pytest.fixture
def settings(tmp_path: Path, repository: Path) -> Settings:
    return Settings(tmp_path / "home", tmp_path / "cache", ivy_settings=repository / "settings.xml")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return written(tmp_path / "jars.lock", BROKER, SPARK)


def written(path: Path, *jars: Jar) -> Path:
    lines = [f"{j.section} {j.organisation}:{j.name}:{j.revision} {j.sha256}\n" for j in jars]
    path.write_text("# a comment\n" + "".join(lines))
    return path


def files(settings: Settings) -> set[str]:
    folder = settings.cache / "jars"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_fetches_each_section_once_and_nothing_the_lock_does_not_name(settings: Settings, lock: Path) -> None:
    said: list[str] = []
    fetch_jars(settings, lock=lock, say=said.append)
    assert said[:2] == ["broker: fetching 1 jars", "  1 of 1: log-1.0.jar"]
    assert said[-1].startswith("spark: 1 jars checked")
    assert jar_paths(settings.jars_broker, lock=lock) == [settings.jars_broker / "log-1.0.jar"]
    assert jar_paths(settings.jars_spark, lock=lock) == [settings.jars_spark / "table_2.13-4.4.0.jar"]
    assert {name.partition("/")[0] for name in files(settings)} == {"broker", "spark"}
    fetch_jars(settings, lock=lock, say=pytest.fail)


def test_a_changed_lock_fetches_its_section_anew(settings: Settings, lock: Path, repository: Path) -> None:
    fetch_jars(settings, lock=lock, say=lambda _: None)
    newer = Jar("spark", "org.example", "newer", "2", hashlib.sha256(b"newer").hexdigest())
    (repository / newer.file_name).write_bytes(b"newer")
    (repository / "newer-2.pom").write_text(POM.format(jar=newer))
    written(lock, BROKER, newer)
    with pytest.raises(MachineError, match="run `make setup`"):
        jar_paths(settings.jars_spark, lock=lock)
    said: list[str] = []
    fetch_jars(settings, lock=lock, say=said.append)
    assert not [line for line in said if line.startswith("broker")]
    assert jar_paths(settings.jars_spark, lock=lock) == [settings.jars_spark / "newer-2.jar"]


def test_a_wrong_checksum_names_both_and_a_retry_downloads_again(
    settings: Settings, lock: Path, repository: Path
) -> None:
    (repository / BROKER.file_name).write_bytes(b"tampered")
    with pytest.raises(MachineError) as caught:
        fetch_jars(settings, lock=lock, say=lambda _: None)
    assert BROKER.file_name in str(caught.value)
    assert f"expected sha256 {BROKER.sha256}" in str(caught.value)
    assert f"found {hashlib.sha256(b'tampered').hexdigest()}" in str(caught.value)
    assert not files(settings)
    (repository / BROKER.file_name).write_bytes(b"log")
    fetch_jars(settings, lock=lock, say=lambda _: None)
    check_jars(settings.jars_broker, [BROKER])


def test_a_failed_download_names_the_jar_and_what_to_do(
    settings: Settings, lock: Path, repository: Path
) -> None:
    for path in repository.glob("log-1.0.*"):
        path.unlink()
    with pytest.raises(
        MachineError, match=r"could not download org\.example:log:1\.0; Ivy ended with 1: .*"
    ) as caught:
        fetch_jars(settings, lock=lock, say=lambda _: None)
    assert "FLAGSTREAM_IVY_SETTINGS" in str(caught.value)
    assert not files(settings)


class Proxy(BaseHTTPRequestHandler):
    """Serves whatever it is asked for on behalf of others."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rpartition("/")[2]
        found = {BROKER.file_name: b"log", f"{BROKER.name}-1.0.pom": POM.format(jar=BROKER).encode()}
        self.send_response(200 if name in found else 404)
        self.send_header("Content-Length", str(len(found.get(name, b""))))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(found.get(name, b""))

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


def test_downloads_go_by_the_proxy_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repository's name leads nowhere: only the proxy can have answered."""
    mirror = tmp_path / "settings.xml"
    mirror.write_text(
        '<ivysettings><settings defaultResolver="far"/><resolvers>'
        '<ibiblio name="far" m2compatible="true" root="http://repository.invalid/maven"/>'
        "</resolvers></ivysettings>"
    )
    settings = Settings(tmp_path / "home", tmp_path / "cache", ivy_settings=mirror)
    lock = written(tmp_path / "jars.lock", BROKER)
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("no_proxy", "localhost,.corp.example")
        fetch_jars(settings, lock=lock, folders=(settings.jars_broker,), say=lambda _: None)
        server.shutdown()
        thread.join()
    assert (settings.jars_broker / BROKER.file_name).read_bytes() == b"log"
    assert any(each.startswith("http://repository.invalid/") for each in Proxy.asked)
