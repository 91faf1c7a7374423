"""Who runs this process: a container may give it a user that has no name."""

from __future__ import annotations

import getpass
import os
import pwd


def user_name() -> str:
    """Return the name of this process's user; `uid:N` where neither environment nor machine knows one."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the latter from Python 3.13 on
        return f"uid:{os.getuid()}"


def is_known() -> bool:
    """Say whether the machine has a name for this process's user."""
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        return False
    return True
