"""`flagstream maintain`: what gathers in the tables of a lake, worked off once."""

from __future__ import annotations

from deltalake.exceptions import CommitFailedError

from schemas.errors import ConfigurationError
from schemas.lake_tables import TABLES
from streaming.delta.lake_reader import LakeReader
from streaming.delta.maintenance import clear, maintain
from streaming.home.placed_agent import PlacedAgent
from streaming.output.facts import show_facts

_LEFT = "left to who maintains it"


def maintain_tables(agent: PlacedAgent, *, as_json: bool) -> None:
    """Compact, clear and shorten each table where enough has gathered, and print what was done.

    A running agent does the same between its batches; one process maintains a table at a time.

    Raises:
        ConfigurationError: the agent has no lake yet.
        DataLossError: the log of a table is torn.
        DiskError: the disk takes nothing.
    """
    reader = LakeReader.of(agent)
    known = [table for table in TABLES if reader.table(table) is not None]
    if not known:
        raise ConfigurationError("there is no lake here yet", where=str(reader.lake))
    done = []
    for table in known:
        place = reader.place(table)
        try:
            removed, compacted = clear(place), maintain(place)
        except CommitFailedError:
            removed, compacted = None, False
        done.append(
            {
                "table": place.name,
                "files_removed": _LEFT if removed is None else removed,
                "compacted": compacted,
            }
        )
    show_facts({"agent": agent.name, "tables": done}, as_json=as_json)
