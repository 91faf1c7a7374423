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
from streaming.home.settings import LAKES
from streaming.setup.file_systems import check_file_system

LEAST_OPEN_FILES = 1024
_MOST_OPEN_FILES = 65_536
_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


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


def write_fault(folder: Path) -> OSError | None:
    """Return why nothing can be written below a folder, or None; writes nothing itself.

    Args:
        folder: need not be there yet; then its nearest parent counts.
    """
    try:
        folder.stat()
    except FileNotFoundError:
        pass
    except OSError as fault:
        return fault
    there = nearest_existing(folder)
    if not there.is_dir():
        number = errno.ENOTDIR
    elif os.access(there, os.W_OK | os.X_OK):
        return None
    else:
        number = errno.EROFS if _is_read_only(there) else errno.EACCES
    return OSError(number, os.strerror(number), str(folder))


def nearest_existing(folder: Path) -> Path:
    """Return a folder, or the nearest of its parents that is there, be it a file or a link to nowhere."""
    return next(place for place in (folder, *folder.parents) if os.path.lexists(place))


def _make(home: Path) -> None:
    try:
        fault = write_fault(home)
        if fault is None:
            home.mkdir(parents=True, exist_ok=True)
        elif not _may_come_back(home):
            raise fault
    except OSError as fault:
        if fault.errno not in _NOT_OURS:
            raise
        raise MachineError(
            f"{home}: {fault.strerror}: all state is kept there. Name a folder that this user may write with "
            "--home or FLAGSTREAM_HOME"
        ) from None


def _may_come_back(home: Path) -> bool:
    """A disk that has held an agent's state and is mounted read-only now: a run waits for that."""
    return (home / LAKES).is_dir() and _is_read_only(home)


def _is_read_only(folder: Path) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
