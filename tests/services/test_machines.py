"""Machines as people have them: each gets a working run, or one line that says what it lacks."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.sandbox import FLAGSTREAM, Sandbox, hardened, require_namespaces

pytestmark = [pytest.mark.timeout(600), pytest.mark.usefixtures("namespaces")]


@pytest.fixture(scope="session")
def namespaces() -> None:
    require_namespaces()


def facts_of(done: subprocess.CompletedProcess[str], name: str) -> dict[str, object]:
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    (found,) = [line[name] for line in lines if name in line]
    return dict(found)


@pytest.mark.parametrize("llm", ["none", "local"])
def test_a_hardened_pod_runs_everything(tmp_path: Path, llm: str) -> None:
    """Nothing can be written but the state; no HOME, no name, no temporary folder, little shared memory."""
    machine = hardened(tmp_path)
    shown = machine.run("sh", "-c", "touch /tmp/x /var/tmp/x; id -un; ls /root; echo $HOME")
    assert shown.stderr.count("Read-only file system") == 2
    assert "cannot find name" in shown.stderr
    done = machine.flagstream("demo", "--seconds", 6, "--llm", llm, "--json", "--home", tmp_path)
    found = facts_of(done, "demo")
    assert found["events"] == 1_200
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("home", ["/", "/nowhere/at/all"])
def test_a_home_that_cannot_be_made_is_named_in_one_line(tmp_path: Path, home: str) -> None:
    done = hardened(tmp_path).flagstream("run", "--spec", "card-fraud", "--home", f"{home}/var")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "var: " in line
    assert "--home or FLAGSTREAM_HOME" in line


def test_a_home_on_a_network_is_refused_by_name(tmp_path: Path) -> None:
    """The kernel's table is replaced: an NFS server is not to be had in a test."""
    table = tmp_path / "mountinfo"
    table.write_text(f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {tmp_path} rw - nfs4 server:/export rw\n")
    machine = Sandbox([f"mount --bind {table} /proc/$$/mountinfo"])
    done = machine.flagstream("run", "--spec", "card-fraud", "--home", tmp_path / "var")
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert f"{tmp_path}/var lies on nfs4" in line
    assert not (tmp_path / "var" / "lake").exists()


def test_too_few_open_files_are_named_and_a_low_soft_limit_is_raised(tmp_path: Path) -> None:
    low = ("prlimit", "--nofile=256:256", "--")
    done = Sandbox().run(*low, *_flagstream("run", "--spec", "card-fraud", "--home", tmp_path))
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "may open 256 files, 1024 are needed" in line
    soft = ("prlimit", "--nofile=128:4096", "--")
    demo = ("demo", "--seconds", 5, "--llm", "none", "--json", "--home", tmp_path)
    assert facts_of(Sandbox().run(*soft, *_flagstream(*demo)), "demo")["events"] == 1_000


def test_a_service_of_kubernetes_changes_nothing(tmp_path: Path) -> None:
    injected = {
        "FLAGSTREAM_PORT": "tcp://10.0.0.1:80",
        "FLAGSTREAM_PORT_80_TCP": "tcp://10.0.0.1:80",
        "FLAGSTREAM_SERVICE_HOST": "10.0.0.1",
        "FLAGSTREAM_KAFKA_PORT": "tcp://10.0.0.2:9092",
    }
    status = ("status", "--spec", "card-fraud", "--json", "--home", tmp_path)
    assert "no agent has run in this home yet" in Sandbox(environ=injected).flagstream(*status).stderr
    mistyped = Sandbox(environ={**injected, "FLAGSTREAM_KAFAK": "kafka:9092"}).flagstream(*status)
    assert mistyped.returncode == 2
    assert "FLAGSTREAM_KAFAK: unknown variable" in mistyped.stderr


def _flagstream(*arguments: object) -> tuple[str, ...]:
    return (*FLAGSTREAM, *map(str, arguments))
