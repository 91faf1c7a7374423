"""Each check of the machine says in one line what is there and, where that will not do, what to do."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.errors import MachineError
from streaming.setup import machine_checks as checks
from streaming.setup.machine_checks import CheckResult
from streaming.setup.machine_limits import MachineLimits

GIB = 2**30


@pytest.fixture
def closed_port() -> Iterator[int]:
    # Bound but not listening: nobody else can take it, and connecting is refused.
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def java_saying(folder: Path, version: str) -> str:
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho '{version}' >&2\n")
    java.chmod(0o755)
    return str(java)


def assert_fails(finding: CheckResult, *words: str) -> None:
    assert not finding.ok
    assert finding.advice
    assert "\n" not in finding.found + finding.advice
    for word in words:
        assert word in finding.found


@pytest.mark.parametrize(
    ("version", "ok"),
    [((3, 10, 9), False), ((3, 11, 0), True), ((3, 14, 1), True), ((3, 15, 0), False), ((4, 0, 0), False)],
)
def test_python(version: tuple[int, ...], ok: bool) -> None:
    assert checks.check_python(version).ok is ok


@pytest.mark.parametrize(
    ("said", "ok", "found"),
    [
        ('openjdk version "17.0.15" 2025-04-15', True, "17.0.15"),
        ('openjdk version "21.0.8" 2025-07-15', True, "21.0.8"),
        ('openjdk version "25" 2025-09-16', True, "25"),
        ('openjdk version "26" 2026-03-17', False, "26"),
        ('openjdk version "11.0.2" 2019-01-15', False, "11.0.2"),
        ('java version "1.8.0_392"', False, "8.0_392"),
        ("what?", False, "does not tell"),
    ],
)
def test_jdk_version(tmp_path: Path, said: str, ok: bool, found: str) -> None:
    finding = checks.check_java(lambda: java_saying(tmp_path, said))
    assert finding.ok is ok
    assert found in finding.found
    assert ("openjdk-17-jdk" in finding.advice) is not ok


def test_jdk_absent() -> None:
    def absent() -> str:
        raise MachineError("no java found")

    assert_fails(checks.check_java(absent), "no java found")


def test_jdk_that_cannot_be_started(tmp_path: Path) -> None:
    assert_fails(checks.check_java(lambda: str(tmp_path / "java")), "No such file")


def test_a_port_that_cannot_be_bound() -> None:
    # An address of the documentation range: no interface has it.
    assert_fails(checks.check_port("192.0.2.1"), "192.0.2.1")


@pytest.mark.parametrize(("size", "ok"), [(2 * GIB - 1, False), (2 * GIB, True)])
def test_disk_needs_two_gibibytes(size: int, ok: bool) -> None:
    assert checks.check_disk(Path("var"), size).ok is ok


@pytest.mark.parametrize(("size", "ok"), [(3 * GIB, False), (int(3.7 * GIB), True), (4 * GIB, True)])
def test_memory_needs_what_a_machine_of_four_gibibytes_has_left(size: int, ok: bool) -> None:
    assert checks.check_memory(MachineLimits(2, size, 2, size)).ok is ok


def test_a_container_s_memory_and_cores_count_not_the_machine_s() -> None:
    narrow = MachineLimits(2, GIB, 64, 256 * GIB)
    assert_fails(checks.check_memory(narrow), "1.0 GiB granted to this container of 256.0 GiB")
    assert (
        checks.check_cores(narrow).found == "2 cores of 64, which is what this container or user is granted"
    )
    assert checks.check_cores(MachineLimits(1, GIB, 1, GIB)) == CheckResult("cores", True, "1 core")


@pytest.mark.parametrize(
    ("limits", "ok"),
    [((256, 256), False), ((256, 4096), True), ((1024, resource.RLIM_INFINITY), True), ((1024, 1024), True)],
)
def test_open_files(limits: tuple[int, int], ok: bool) -> None:
    assert checks.check_open_files(limits).ok is ok


def test_a_home_on_a_network_is_named(tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    table.write_text("1 0 0:1 / /net rw - nfs4 server:/net rw\n")
    assert_fails(checks.check_home(Path("/net/var"), table), "nfs4")
    assert checks.check_home(tmp_path).ok


def test_a_proxy_that_does_not_answer_is_named(closed_port: int) -> None:
    assert checks.check_proxy({}) == CheckResult("proxy", True, "none")
    found = checks.check_proxy({"https": f"http://user:secret@127.0.0.1:{closed_port}"})
    assert_fails(found, "127.0.0.1 does not answer")
    assert "secret" not in found.found + found.advice
    assert_fails(checks.check_proxy({"http": "127.0.0.1:none"}), "does not answer")


def test_a_proxy_that_answers_will_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        port = proxy.getsockname()[1]
        assert checks.check_proxy({"https": f"127.0.0.1:{port}"}).found == f"127.0.0.1:{port} answers"
