"""On what kind of file system a folder lies, and whether an agent's state may lie there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from schemas.errors import MachineError

MOUNTS = Path("/proc/self/mountinfo")
HOME_SETTINGS = "--home or FLAGSTREAM_HOME"
_ESCAPED = re.compile(r"\\([0-7]{3})")
_PLACE = 4  # the field of a line that says where
# What they lack: a lock that holds on every machine, a rename that replaces nothing, data that is on disk
# once the call for it returns.
_REFUSED = frozenset({
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "ncpfs", "afs", "fuse.sshfs", "fuse.s3fs",
    "fuse.s3backer", "fuse.goofys", "fuse.gcsfuse", "fuse.rclone", "fuse.mount-s3", "fuse.blobfuse",
    "fuse.blobfuse2",
})  # fmt: skip


def file_system_of(folder: Path, mounts: Path = MOUNTS) -> str | None:
    """Return the type of the file system that a folder lies on, or will lie on; None where nobody tells.

    Args:
        folder: its links are followed.
        mounts: the kernel's table of what is mounted, see proc(5).
    """
    folder = folder.resolve()
    best, found = -1, None
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    for line in lines:
        before, dash, after = line.partition(" - ")
        fields = before.split()
        if not dash or len(fields) < _PLACE + 1:
            continue
        place = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), fields[_PLACE]))
        # Of two at the same place the later one is seen.
        if folder.is_relative_to(place) and len(place.parts) >= best:
            best, found = len(place.parts), after.split()[0]
    return found


def is_refused(kind: str | None) -> bool:
    """Say whether an agent's state must not lie on such a file system."""
    return kind in _REFUSED


def check_file_system(folder: Path, named_by: str = HOME_SETTINGS, mounts: Path = MOUNTS) -> None:
    """Refuse to keep an agent's state where others could change it unseen, or where it is not on disk.

    Args:
        folder: where state is to lie.
        named_by: the setting that says so, for errors.
        mounts: see file_system_of.

    Raises:
        MachineError: it lies on a network's file system, or its path would lead elsewhere.
    """
    really = str(folder.resolve())
    if unquote(really) != really:
        raise MachineError(
            f"{really}: a percent sign with two digits, as in %2F, leads Delta's library elsewhere. Name "
            f"another folder with {named_by}"
        )
    kind = file_system_of(folder, mounts)
    if is_refused(kind):
        raise MachineError(
            f"{folder} lies on {kind}, a file system of the network: its locks and renames do not keep two "
            f"agents apart. Name a folder on a disk of this machine with {named_by}, for example a block "
            "volume"
        )
