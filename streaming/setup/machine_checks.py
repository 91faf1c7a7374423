"""What a machine must have, each checked by itself: what is there, and what to do about the difference."""

from __future__ import annotations

import platform
import re
import resource
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.model.child_environment import child_environment
from agent.model.proxies import proxy_address
from schemas.counts import count_of
from schemas.errors import MachineError
from streaming.setup.file_systems import HOME_SETTINGS, MOUNTS, file_system_of, is_refused
from streaming.setup.machine_limits import MachineLimits
from streaming.setup.process import LEAST_OPEN_FILES, write_fault

_PYTHON, _PYTHON_BELOW = (3, 11), (3, 15)
_JDK, _NEWEST_JDK = 17, 25
_DISK_BYTES = 2 * 2**30
_MEMORY_BYTES = 7 * 2**29  # what a machine sold with 4 GiB has left of it
_ANSWER_SECONDS = 3.0
_VERSION_SECONDS = 30.0
_JAVA_VERSION = re.compile(r'version "(?:1\.)?(\d+)([^"]*)"')


@dataclass(frozen=True)
class CheckResult:
    """What one check found.

    Attributes:
        name: what was checked.
        ok: whether it will do.
        found: what is there, in words.
        advice: what to do; empty when `ok`.
    """

    name: str
    ok: bool
    found: str
    advice: str = ""


def check_python(version: Sequence[int | str]) -> CheckResult:
    """Python 3.11 to 3.14; `version` starts with major and minor."""
    ok = _PYTHON <= (version[0], version[1]) < _PYTHON_BELOW
    found = f"{platform.python_version()} ({platform.machine()})"
    return check_result("Python", ok, found, "install Python 3.11, 3.12, 3.13 or 3.14")


def check_java(find: Callable[[], str]) -> CheckResult:
    """A JDK of version 17 to 25; `find` returns the java executable or raises MachineError."""
    advice = "install a JDK 17 to 25: openjdk-17-jdk (Debian/Ubuntu) or Temurin 17"
    try:
        java = find()
        said = subprocess.run(
            [java, "-version"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=_VERSION_SECONDS,
            env=child_environment(),
        ).stdout
    except (MachineError, OSError, subprocess.TimeoutExpired) as fault:
        return CheckResult("JDK", False, str(fault), advice)
    version = _JAVA_VERSION.search(said)
    found = f"{version[1]}{version[2]} ({java})" if version else f"{java} does not tell its version"
    fits = version is not None and _JDK <= int(version[1]) <= _NEWEST_JDK
    return check_result("JDK", fits, found, advice)


def check_cores(limits: MachineLimits) -> CheckResult:
    """How many cores this process may use; one is enough."""
    found = count_of(limits.cores, "core")
    if limits.cores < limits.shared_cores:
        found += f" of {limits.shared_cores}, which is what this container or user is granted"
    return CheckResult("cores", True, found)


def check_memory(limits: MachineLimits) -> CheckResult:
    """Some 4 GiB of memory: Spark's driver alone takes up to 3."""
    found = (
        f"{gibibytes(limits.memory)}, of which Spark's JVM takes up to {int(limits.heap[:-1]) / 1024:.1f} GiB"
    )
    if limits.memory < limits.shared_memory:
        found = f"{gibibytes(limits.memory)} granted to this container of {gibibytes(limits.shared_memory)}"
    return check_result("memory", limits.memory >= _MEMORY_BYTES, found, "grant 4 GiB or more")


def check_open_files(limits: tuple[int, int] | None = None) -> CheckResult:
    """At least 1,024 open files.

    Args:
        limits: soft and hard; those of this process unless given.
    """
    soft, hard = limits or resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY in (soft, hard)
    most = max(soft, hard)  # a process may raise its own
    ok = unlimited or most >= LEAST_OPEN_FILES
    advice = f"raise it to {LEAST_OPEN_FILES} or more: `ulimit -n`, LimitNOFILE= or --ulimit nofile="
    return check_result("open files", ok, "unlimited" if unlimited else f"{most:,}", advice)


def check_port(bind: str = "127.0.0.1") -> CheckResult:
    """Whether a free port can be bound on the interface everything listens on."""
    try:
        with socket.socket() as probe:
            probe.bind((bind, 0))
    except OSError as fault:
        return CheckResult(
            "ports", False, f"{bind}: {fault}", "let this user listen on the loopback interface"
        )
    return CheckResult("ports", True, f"free ports on {bind}")


def check_disk(folder: Path, free: int) -> CheckResult:
    """At least 2 GiB of `free` bytes for the folder that holds the state."""
    advice = f"free some space, or name another place than {folder} with --home"
    return check_result("disk", free >= _DISK_BYTES, f"{gibibytes(free)} free for {folder}", advice)


def check_state(folder: Path) -> CheckResult:
    """Whether the folder that holds the state can be made and written, as a run does at its start."""
    fault = write_fault(folder)
    found = f"{folder} can be written" if fault is None else f"{folder}: {fault.strerror}"
    return check_result(
        "state", fault is None, found, f"name a folder that this user may write with {HOME_SETTINGS}"
    )


def check_home(folder: Path, mounts: Path = MOUNTS) -> CheckResult:
    """Whether the state may lie where it is to lie: on a disk of this machine."""
    kind = file_system_of(folder, mounts)
    found = "unknown" if kind is None else kind
    advice = f"its locks keep no two agents apart: name another place than {folder} with --home"
    return check_result("file system", not is_refused(kind), found, advice)


def check_proxy(proxies: Mapping[str, str] | None = None) -> CheckResult:
    """Whether the proxy answers that the environment names for downloads and models.

    Args:
        proxies: scheme → address; those of the environment unless given.
    """
    named = urllib.request.getproxies() if proxies is None else proxies
    address = named.get("https") or named.get("http") or named.get("all")
    if address is None:
        return CheckResult("proxy", True, "none")
    advice = "correct HTTPS_PROXY, or unset it where the network is open"
    try:
        proxy = proxy_address(address)
    except ValueError as fault:
        return CheckResult("proxy", False, f"the address does not answer: {fault}", advice)
    try:
        with socket.create_connection((proxy.host, proxy.port), _ANSWER_SECONDS):
            return CheckResult("proxy", True, f"{proxy.host}:{proxy.port} answers")
    except (OSError, UnicodeError) as fault:
        why = getattr(fault, "strerror", None) or "nobody is there"
        return CheckResult("proxy", False, f"{proxy.host} does not answer: {why}", advice)


def check_result(name: str, ok: bool, found: str, advice: str) -> CheckResult:
    """Return what a check found, with the advice where it is needed."""
    return CheckResult(name, ok, found, "" if ok else advice)


def gibibytes(size: int) -> str:
    """Return a size in words."""
    return f"{size / 2**30:.1f} GiB"
