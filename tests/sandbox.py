"""Commands run on a hostile machine: namespaces make of this one what a hardened container has."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NOBODY = 54_321  # a user without a name
FLAGSTREAM = (sys.executable, "-c", "from streaming.cli.root import main; main()")
_MACHINE = ("PATH", "LANG", "LC_ALL", "JAVA_HOME", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Sandbox:
    """A machine within this one.

    Attributes:
        setup: shell lines that are run as root before the command, among mounts of its own.
        nameless: whether the command is run by a user that has no name and no rights.
        environ: variables beside the few that a container has; there is no HOME.
    """

    setup: Sequence[str] = ()
    nameless: bool = False
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *command: object, seconds: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run a command and return what it said."""
        return subprocess.run(
            self.command(*command),
            env=self.environment(),
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )

    def flagstream(self, *arguments: object, seconds: float = 240.0) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return self.run(*FLAGSTREAM, *arguments, seconds=seconds)

    def command(self, *command: object) -> list[str]:
        """Return the whole command."""
        user = (
            ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--"]
            if self.nameless
            else []
        )
        lines = ["set -e", "mount --make-rprivate /", *self.setup, f'exec {shlex.join(user)} "$@"']
        return ["unshare", "--mount", "sh", "-c", "\n".join(lines), "sh", *map(str, command)]

    def environment(self) -> dict[str, str]:
        """Return the command's whole environment."""
        given = {name: os.environ[name] for name in _MACHINE if name in os.environ}
        return {**given, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), **self.environ}


def hardened(state: Path, shared_memory: str = "64k") -> Sandbox:
    """Return a machine on which nothing but one folder can be written, by a user without a name."""
    setup = [
        "mount -o remount,ro,bind /",
        f"mount -t tmpfs -o size=2g tmpfs {shlex.quote(str(state))}",
        f"mount -t tmpfs -o size={shared_memory} tmpfs /dev/shm",
    ]
    return Sandbox(setup, nameless=True)


def require_namespaces() -> None:
    """Skip a test where the kernel gives this user no namespaces of its own."""
    tried = Sandbox(["mount -t tmpfs tmpfs /mnt"], nameless=True)
    done = tried.run("id", "-u")
    if done.stdout.strip() != str(NOBODY):
        pytest.skip(f"needs mount and user namespaces: {done.stderr.strip()}")
