"""The command line as people can paste it into the shell that they are in."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path

_PROGRAM = "flagstream"


def program() -> str:
    """Return the command, by its path where the shell would not find it."""
    if shutil.which(_PROGRAM) is not None:
        return _PROGRAM
    beside, here = Path(sys.executable).with_name(_PROGRAM), Path.cwd()
    return shlex.quote(str(beside.relative_to(here) if beside.is_relative_to(here) else beside))
