"""Keeps what an agent writes to the user that runs it; documents without secrets go by that user's umask."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from agent.model.child_environment import PRIVATE_UMASK

FOLDERS = (
    "audit", "broker", "checkpoints", "deliveries", "demo", "drift", "health", "kernels", "labels", "lake",
    "llm", "models", "notices", "owner", "profiles", "sandbox", "scratch", "spark", "spool",
)  # fmt: skip
_CANNOT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS)
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_READ_AND_WRITE, _WHOLE_REACH = 0o666, 0o777
_users_umask: list[int] = []  # what it was before the first call of keep_private, where that was another


def keep_private(home: Path) -> None:
    """Let this process write files for its user alone, and close the folders that earlier ones left open.

    Folders of other users, and whatever else lies in `home`, stay as they are.
    """
    before = os.umask(PRIVATE_UMASK)
    if before != PRIVATE_UMASK:  # not by an earlier call
        _users_umask[:] = [before]
    for name in FOLDERS:
        try:
            _close(home / name)
        except OSError as fault:
            if fault.errno not in _CANNOT:
                raise


def open_to_others(written: Iterable[Path]) -> None:
    """Give documents that were just made the rights that their user's umask gives to new files and folders.

    For contracts, specs, rules, policies and pages about them, which colleagues read and repositories hold:
    they name the variables and files that hold secrets, and hold none themselves.
    """
    for umask in _users_umask:
        for each in written:
            reach = _WHOLE_REACH if each.is_dir() else _READ_AND_WRITE
            with suppress(OSError):  # where files have no rights of their own they cannot be given any
                each.chmod(reach & ~umask)


def _close(folder: Path) -> None:
    found = folder.lstat()
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if mine and found.st_mode & _OTHERS:
        folder.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
