"""Writes a version's memory to its checkpoints, in the background."""

from __future__ import annotations

from streaming.batch.memory import Memory
from streaming.detection import checkpoints
from streaming.service.health import Condition, Health
from streaming.service.worker import Worker
from streaming.store.folders import Folders


class CheckpointWriter:
    """Writes checkpoints to one place, one at a time.

    Args:
        folders: where they lie.
        health: hears when one cannot be written.

    Attributes:
        reached: `sequence` of the first row that the newest one lacks.
    """

    def __init__(self, folders: Folders, health: Health | None = None) -> None:
        self.folders, self.reached = folders, 0
        self._health = health or Health()
        self._writing: Worker | None = None

    def at(self, folders: Folders) -> CheckpointWriter:
        """Return a writer for another place."""
        return CheckpointWriter(folders, self._health)

    def write_if_due(self, memory: Memory, rows: int) -> None:
        """Begin to write once so many rows were stored since the last one.

        Only after a batch of the memory's own: then the patterns remembered are all of those in force.
        """
        if memory.has_decided and memory.next_sequence - self.reached >= rows:
            self.write(memory)

    def write(self, memory: Memory) -> None:
        """Begin to write the memory as it stands, unless a checkpoint is being written."""
        if self._writing is not None and self._writing.is_working:
            return
        self.reached = memory.next_sequence
        snapshot = memory.snapshot()

        def write() -> None:
            checkpoints.write(snapshot, self.folders)

        self._writing = Worker("checkpoint", write, Condition.CHECKPOINT_FAILING, self._health, fatal=())
        self._writing.start()

    def close(self) -> None:
        """Wait for a checkpoint that is being written."""
        if self._writing is not None:
            self._writing.close()
