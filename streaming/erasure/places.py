"""Everything below an agent's lake and home that may hold what events have said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from schemas.lake_tables import TABLES, Table
from streaming.delta.lake_reader import LakeReader
from streaming.delta.log_files import LOG
from streaming.delta.maintenance import tables_below
from streaming.delta.remote_log import newest_entry
from streaming.detection import checkpoints
from streaming.home.placed_agent import PlacedAgent
from streaming.store.folders import Folders
from streaming.store.opening import folders_of
from streaming.store.place import Place

# They hold specs, counts, names and hashes, and the audit log a chain that no row can be changed in.
KEPT: tuple[Table, ...] = ("batches", "specs", "audit", "late", "tokens")


@dataclass(frozen=True)
class ErasablePlaces:
    """Where an agent's data lies.

    Attributes:
        agent: whose spec names the tables.
    """

    agent: PlacedAgent

    @property
    def lake(self) -> Place:
        """The lake."""
        return self.agent.lake

    @property
    def reader(self) -> LakeReader:
        """Reads the lake as it is now."""
        return LakeReader.of(self.agent)

    def tables(self) -> Iterator[Place]:
        """Yield the tables of the lake, and those of sandboxes, that may hold ids."""
        kept = {self.reader.place(name).name for name in KEPT}
        found = (each for each in tables_below(self.lake) if each.name not in kept)
        # In a store folders without tables are among them.
        yield from (each for each in found if each.is_local or newest_entry(each) >= 0)
        for log in sorted(self.agent.settings.sandbox(self.agent.name).glob(f"**/{LOG}")):
            yield Place.local(log.parent)

    def is_shared(self, table: Place) -> bool:
        """Whether commands may write to a table meanwhile, which nobody claims."""
        names = {self.reader.place(name).name for name, each in TABLES.items() if each.writer != "agent"}
        return table.name in names or table.parent != self.lake

    def checkpoints(self) -> list[Folders]:
        """Return the folders of profile checkpoints, of versions in every stage."""
        kept = folders_of(self.agent.settings.profiles(self.agent.name), self.agent.settings.spool)
        return list(checkpoints.all_below(kept))

    @property
    def snapshots(self) -> Folders:
        """The agent's snapshots."""
        return folders_of(self.agent.settings.snapshots(self.agent.name), self.agent.settings.spool)

    @property
    def notices(self) -> Path:
        """What plans have sent to the agent's own log."""
        return self.agent.settings.home / "notices" / f"{self.agent.name}.jsonl"
