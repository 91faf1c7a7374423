"""A server in a process of its own for the length of a block, which begins once it answers."""

from __future__ import annotations

import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from agent.model.child_environment import child_environment
from schemas.errors import MachineError

_START_SECONDS = 60.0


@contextmanager
def running_server(
    command: Sequence[str],
    log: Path,
    endpoint: str,
    more: Mapping[str, str] | None = None,
    trusted: ssl.SSLContext | None = None,
) -> Iterator[int]:
    """Run a server and yield the id of its process.

    Args:
        command: program and arguments.
        log: what it prints goes there, and it works in that folder.
        endpoint: its address.
        more: variables that it gets besides.
        trusted: who may have issued its certificate, where it has one.

    Raises:
        MachineError: it does not answer.
    """
    with log.open("ab") as out:
        environment = {**child_environment(), **(more or {})}
        child = subprocess.Popen(command, stdout=out, stderr=out, env=environment, cwd=log.parent)
    try:
        _wait_for(partial(_answers, endpoint, trusted), child, log)
        yield child.pid
    finally:
        child.kill()
        child.wait()


def _wait_for(answers: Callable[[], bool], child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not answers():
        if child.poll() is not None or time.monotonic() > deadline:
            raise MachineError(f"{log.stem} did not come up: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.02)


def _answers(endpoint: str, trusted: ssl.SSLContext | None) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoint}/", timeout=5, context=trusted):
            return True
    except urllib.error.HTTPError as refusal:
        refusal.close()
        return True
    except OSError:
        return False
