"""Ends groups of processes with its parent: it reads their ids, and ends them with its input."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress

import psutil


def main(lines: Iterable[str]) -> int:
    """Take one id a line; once there are no more, SIGKILL the groups whose first process is there.

    A number may have become another process's meanwhile: when it began says so.
    """
    leaders = list[psutil.Process]()
    for line in lines:
        with suppress(psutil.NoSuchProcess):
            leaders.append(psutil.Process(int(line)))
    for each in leaders:
        with suppress(ProcessLookupError, PermissionError):
            if each.is_running():
                os.killpg(each.pid, signal.SIGKILL)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin))
