"""The real Prometheus for tests: Debian's package, fetched once, checked, unpacked below the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml

from agent.model.processes import one_at_a_time
from streaming.home.settings import Settings
from streaming.testing.drivers import wait_until

ROOT = Path(__file__).parents[1]
FILES = ROOT / "docker" / "prometheus"
LOCK = Path(__file__).parent / "services" / "prometheus.lock"
_SECONDS = 60.0


def installed(settings: Settings) -> Path:
    """Return the folder of `prometheus` and `promtool`; without the package see cannot_be_had()."""
    name, version, machine, sha256 = LOCK.read_text(encoding="utf-8").splitlines()[-1].split()
    folder = settings.cache / "prometheus" / sha256[:12]
    settings.cache.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(settings.cache / "prometheus.lock"):
        if not folder.is_dir():
            _unpack(_fetched(f"{name}:{machine}={version}", sha256), folder)
    return folder / "usr" / "bin"


def _fetched(package: str, sha256: str) -> Path:
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        cannot_be_had("no apt-get: the package of Prometheus is Debian's")
    folder = Path(tempfile.mkdtemp(prefix="flagstream-prometheus-"))
    command = ["apt-get", "download", "-o", "APT::Sandbox::User=root", package]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = list(folder.glob("*.deb"))
    if done.returncode or not found:
        cannot_be_had(f"the package of Prometheus cannot be had: {done.stderr.strip()[-200:]}")
    assert hashlib.sha256(found[0].read_bytes()).hexdigest() == sha256, "it is not the package of the lock"
    return found[0]


def cannot_be_had(why: str) -> NoReturn:
    """Skip the test; where CI is set, nobody reads of what was skipped: there it fails."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def _unpack(package: Path, folder: Path) -> None:
    beside = folder.with_suffix(".unpacking")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    subprocess.run(["dpkg", "-x", str(package), str(beside)], check=True)
    beside.rename(folder)
    shutil.rmtree(package.parent)


def promtool(
    programs: Path, *words: str | Path, given: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    command = [str(programs / "promtool"), *map(str, words)]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False, timeout=_SECONDS)


class PrometheusServer:
    """A running Prometheus, and what it answers."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def ask(self, path: str, **query: str) -> Any:
        """Return the data of an answer; what is refused is raised with its words."""
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as reply:
            answer = json.load(reply)
        assert answer["status"] == "success", answer
        return answer["data"]

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return bool(self.ask("query", query="vector(1)"))
        except OSError:
            return False


@contextmanager
def prometheus(programs: Path, folder: Path, port: int, target: str) -> Iterator[PrometheusServer]:
    """Have Prometheus scrape a target once a second, by the configuration that is shipped but for that."""
    config = yaml.safe_load((FILES / "prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FILES / name) for name in config["rule_files"]]
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [
        str(programs / "prometheus"), f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}", f"--web.listen-address=127.0.0.1:{port}",
    ]  # fmt: skip
    with (folder / "log").open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=out)
    server = PrometheusServer(port)
    try:
        wait_until(server.is_up, _SECONDS, "Prometheus")
        yield server
    finally:
        child.terminate()
        child.wait(_SECONDS)
