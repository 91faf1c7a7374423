"""Child processes get no keys, and what an agent writes is for its user alone."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from agent.model.child_environment import child_environment
from agent.model.processes import Service
from schemas.errors import MachineError
from streaming.cli.root import app
from streaming.home.placed_agent import PlacedAgent
from streaming.home.private_files import FOLDERS, keep_private
from streaming.home.settings import Settings
from streaming.jvm.launching import launch_jvm
from streaming.kafka.broker import EmbeddedBroker
from streaming.setup.downloads import _run_ivy
from streaming.testing.small_lake import build_lake, spec_of

CANARY = "canary-4711"
KEYS = (
    "OPENAI_API_KEY",
    "AWS_SECRET_ACCESS_KEY",
    "DATABRICKS_TOKEN",
    "FLAGSTREAM_AUDIT_KEY",
    "DESK_KEY",
    "HTTPS_PROXY",
    "KAFKA_OPTS",
)
TELLS = "import os, pathlib; pathlib.Path('{path}').write_text(repr(dict(os.environ)))"


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, f"{CANARY}-that-is-long-enough-to-be-a-key")


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Begin with what most machines have, and leave the tests' own as it was."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service("child", tmp_path / "child")
    yield service
    service.stop()


def test_a_child_has_no_keys_in_its_environment(service: Service) -> None:
    def environment() -> str:
        started = json.loads((service.folder / "child.json").read_text(encoding="utf-8"))
        return Path(f"/proc/{started['pid']}/environ").read_bytes().decode()

    # Empty until the child is another program than the one it was forked from.
    service.start([sys.executable, "-c", "import signal; signal.pause()"], {}, lambda: environment() != "")
    assert "PATH=" in environment()
    assert CANARY not in environment()


def test_what_a_child_writes_is_for_its_user_alone(service: Service, tmp_path: Path) -> None:
    written = tmp_path / "written"
    code = f"open({str(written)!r}, 'w').close(); import signal; signal.pause()"
    service.start([sys.executable, "-c", code], {}, written.exists)
    assert stat.S_IMODE(written.stat().st_mode) == 0o600


def test_neither_the_broker_s_tool_nor_ivy_gets_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java, told = tmp_path / "bin" / "java", tmp_path / "told"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\nexport -p >> {told}\nexit 3\n", encoding="utf-8")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MachineError, match="formatting"):
        EmbeddedBroker(tmp_path / "broker", tmp_path)._format()
    assert _run_ivy([str(java)], 1, print).startswith("Ivy ended with 3")
    environment = told.read_text(encoding="utf-8")
    assert environment.count("export PATH=") == 2
    assert CANARY not in environment


def test_spark_s_jvm_gets_no_keys_but_those_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java, told = tmp_path / "bin" / "java", tmp_path / "told"
    java.parent.mkdir()
    java.write_text(f"#!/bin/sh\nexport -p >> {told}\nexit 3\n", encoding="utf-8")
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("KAFKA_LOGIN", "needed-by-the-jvm")
    jvm = launch_jvm([], [], {}, needed={"KAFKA_LOGIN"})
    with pytest.raises(MachineError, match="did not come up"):
        jvm.connection()
    environment = told.read_text(encoding="utf-8")
    assert "needed-by-the-jvm" in environment
    assert CANARY not in environment


@given(st.dictionaries(st.sampled_from(["PATH", "LC_ALL", "HOME"]) | st.text(min_size=1), st.text()))
def test_only_named_variables_are_passed_on(environ: dict[str, str]) -> None:
    named = {"PATH", "LC_ALL", "HOME"} & environ.keys()
    found = child_environment(environ)
    assert named <= found.keys()
    assert not any(
        word in name for name in found for word in ("KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL")
    )


def readable_by_others(folder: Path) -> list[Path]:
    """Files that other users could open: each folder on the way lets them in."""
    open_ones = []
    for path in (each for each in folder.rglob("*") if each.is_file()):
        way = [path, *path.relative_to(folder).parents[:-1]]
        modes = [path.stat().st_mode & 0o044, *((folder / each).stat().st_mode & 0o011 for each in way[1:])]
        if all(modes):
            open_ones.append(path)
    return open_ones


def test_a_lake_is_its_user_s_alone(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    keep_private(settings.home)
    build_lake(PlacedAgent(settings, spec_of()), rows=120)
    assert readable_by_others(settings.home) == []
    assert stat.S_IMODE(settings.home.stat().st_mode) == 0o700


def test_a_lake_that_was_open_is_closed_by_the_next_command(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path / "home", {})
    build_lake(PlacedAgent(settings, spec_of()), rows=120)
    kept = settings.home / "quarterly" / "report.txt"  # somebody else's business
    kept.parent.mkdir()
    kept.write_text("x", encoding="utf-8")
    assert len(readable_by_others(settings.home)) > 5
    CliRunner().invoke(app, ["audit", "show", "--home", str(settings.home)])
    assert readable_by_others(settings.home) == [kept]


def test_no_folder_is_closed_through_a_link_nor_made(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    home = tmp_path / "home"
    home.mkdir()
    (home / "lake").symlink_to(elsewhere)
    keep_private(home)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755
    assert [each.name for each in home.iterdir()] == ["lake"]


def test_every_folder_below_a_home_is_known(tmp_path: Path) -> None:
    settings = Settings.load(tmp_path, {})
    places = [
        settings.lake("a"), settings.checkpoint("a"), settings.profiles("a"), settings.models("a"),
        settings.sandbox("a"), settings.audit("a"), settings.health("a"), settings.spark,
        EmbeddedBroker.of(settings).folder,
    ]  # fmt: skip
    assert {Path(str(place)).relative_to(settings.home).parts[0] for place in places} <= set(FOLDERS)
