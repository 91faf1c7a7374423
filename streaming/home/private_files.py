"""Keeps what an agent writes to the user that runs it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from agent.model.child_environment import PRIVATE_UMASK

FOLDERS = (
    "audit", "broker", "checkpoints", "demo", "health", "kernels", "labels", "lake", "llm", "models",
    "notices", "profiles", "sandbox", "spark", "tmp",
)  # fmt: skip
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_private(home: Path) -> None:
    """Let this process write files for its user alone, and close the folders that earlier ones left open.

    Folders of other users, and whatever else lies in `home`, stay as they are.
    """
    os.umask(PRIVATE_UMASK)
    for name in FOLDERS:
        with suppress(FileNotFoundError, PermissionError):
            _close(home / name)


def _close(folder: Path) -> None:
    found = folder.lstat()
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if mine and found.st_mode & _OTHERS:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
