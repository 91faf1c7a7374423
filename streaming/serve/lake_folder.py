"""Tells a lake whose folder was there and is gone from one that has not begun, which is empty."""

from __future__ import annotations

from schemas.errors import DiskError
from streaming.home.placed_agent import PlacedAgent


class LakeFolder:
    """The folder of an agent's lake, where that is on this machine.

    Args:
        agent: its lake may not be there yet.
    """

    def __init__(self, agent: PlacedAgent) -> None:
        self._lake = agent.lake
        self._was_there = self._lake.is_local and self._lake.path.is_dir()

    def check(self) -> None:
        """Check that it did not go: what is read of it would look like nothing at all.

        Raises:
            DiskError: it was there, and is gone.
        """
        if not self._lake.is_local:
            return
        try:
            is_there = self._lake.path.is_dir()
        except OSError:  # of a disk that fails
            is_there = False
        if self._was_there and not is_there:
            raise DiskError(f"{self._lake} is gone")
        self._was_there = is_there
