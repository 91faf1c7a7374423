"""Tells a lake whose folder was there and is gone, or is another, from one that has not begun."""

from __future__ import annotations

from stat import S_ISDIR

from schemas.errors import DiskError
from streaming.home.placed_agent import PlacedAgent


class LakeFolder:
    """The folder of an agent's lake, where that is on this machine.

    Args:
        agent: its lake may not be there yet.
    """

    def __init__(self, agent: PlacedAgent) -> None:
        self._lake = agent.lake
        self._seen = self._identity() if self._lake.is_local else None

    def check(self) -> None:
        """Check that it is the one that was read: nothing else fits what is remembered of it.

        Raises:
            DiskError: it was there, and is gone; or another one is in its place.
        """
        if not self._lake.is_local:
            return
        found = self._identity()
        if self._seen is not None and found is None:
            raise DiskError(f"{self._lake} is gone")
        if self._seen not in (None, found):
            raise DiskError(f"{self._lake} is another folder than before: start flagstream serve again")
        self._seen = found

    def _identity(self) -> tuple[int, int] | None:
        """Return what the file system calls the folder; None where there is none, or the disk fails."""
        try:
            found = self._lake.path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if S_ISDIR(found.st_mode) else None
