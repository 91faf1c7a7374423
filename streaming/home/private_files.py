"""Keeps what an agent writes to the user that runs it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from agent.model.child_environment import PRIVATE_UMASK

FOLDERS = (
    "audit", "broker", "checkpoints", "deliveries", "demo", "drift", "health", "kernels", "labels", "lake",
    "llm", "models", "notices", "owner", "profiles", "sandbox", "scratch", "spark", "spool",
)  # fmt: skip
_CANNOT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def keep_private(home: Path) -> None:
    """Let this process write files for its user alone, and close the folders that earlier ones left open.

    Folders of other users, and whatever else lies in `home`, stay as they are.
    """
    os.umask(PRIVATE_UMASK)
    for name in FOLDERS:
        try:
            _close(home / name)
        except OSError as fault:
            if fault.errno not in _CANNOT:
                raise


def _close(folder: Path) -> None:
    found = folder.lstat()
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if mine and found.st_mode & _OTHERS:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
