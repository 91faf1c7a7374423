"""Makes a process fit to write an agent's state, or says why it cannot: before anything is claimed."""

from __future__ import annotations

import errno
import os
import resource
import tempfile
from contextlib import suppress
from pathlib import Path

from schemas.counts import count_of
from schemas.errors import MachineError
from streaming.setup.file_systems import check_file_system

LEAST_OPEN_FILES = 1024
_MOST_OPEN_FILES = 65_536
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS)


def prepare_process(home: Path) -> None:
    """Check the folder of all state, raise the limit of open files, find a place for temporary files.

    Raises:
        MachineError: the folder cannot be made or written, lies on a file system of the network, or the
            process may open too few files.
    """
    check_file_system(home)
    _make(home)
    raise_open_files()
    use_temporary_folder(home)


def raise_open_files() -> int:
    """Raise this process's limit of open files as far as it may, and return it.

    Raises:
        MachineError: it is too low for an agent.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < LEAST_OPEN_FILES:
        raise MachineError(
            f"this process may open {count_of(most, 'file')}, {LEAST_OPEN_FILES} are needed: raise the "
            "limit, for example with `ulimit -n`, LimitNOFILE= or --ulimit nofile="
        )
    return most


def use_temporary_folder(home: Path) -> None:
    """Keep temporary files below `home` where the machine has no place for them; children do as well."""
    try:
        usual = Path(tempfile.gettempdir())
    except FileNotFoundError:
        usual = Path.cwd()
    if usual == Path.cwd() and not os.environ.get("TMPDIR"):
        own = home / "scratch"
        with suppress(OSError):  # of a disk that takes nothing just now
            own.mkdir(exist_ok=True)
            tempfile.tempdir = os.environ["TMPDIR"] = str(own)


def _make(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not os.access(home, os.W_OK | os.X_OK) and not _may_come_back(home):
            number = errno.EROFS if _is_read_only(home) else errno.EACCES
            raise OSError(number, os.strerror(number), str(home))
    except OSError as fault:
        if fault.errno not in _NOT_OURS:
            raise
        raise MachineError(
            f"{home}: {fault.strerror}: all state is kept there. Name a folder that this user may write with "
            "--home or FLAGSTREAM_HOME"
        ) from None


def _may_come_back(home: Path) -> bool:
    """A disk that has held an agent's state and is mounted read-only now: a run waits for that."""
    return (home / "lake").is_dir() and _is_read_only(home)


def _is_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
