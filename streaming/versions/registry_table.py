"""The table of spec versions: append-only, written by commands side by side, read by whoever follows it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from datetime import timedelta

import pyarrow as pa

from schemas.tables import SPECS
from streaming.delta.lake_reader import LakeReader, declared_rows
from streaming.delta.lake_table import Stamp
from streaming.delta.shared_table import SharedTable
from streaming.home.placed_agent import PlacedAgent
from streaming.store.place import Place
from streaming.versions.stages import Entry

_STREAM = "registry"
_NAMES = [each.name for each in fields(Entry)]


def registry_place(agent: PlacedAgent) -> Place:
    """Return the folder of an agent's registry."""
    return LakeReader.of(agent).place("specs")


def read_entries(place: Place) -> list[Entry]:
    """Return all that a registry holds, oldest first; nothing where there is none.

    Raises:
        ConfigurationError: another table lies there, or one of a later format.
        DataLossError: its log is gone, or the newest entry of it is torn.
        MachineError: it cannot be read.
    """
    found = declared_rows(place, "specs", _NAMES)
    rows = found.sort_by([("action", "ascending"), ("version", "ascending")]).to_pylist()
    return [Entry(**{**row, "evidence": json.loads(row["evidence"])}) for row in rows]


class RegistryTable:
    """The registry as a command writes it; the table is created when absent.

    Args:
        place: where it lies.
        retention: how long versions of the table stay readable.
    """

    def __init__(self, place: Place, retention: timedelta) -> None:
        self._place, self._table = place, SharedTable(place, SPECS, retention)

    def write(self, decide: Callable[[Sequence[Entry]], Sequence[Entry]]) -> list[Entry]:
        """Append what `decide` makes of all entries so far, as one action; it sees every earlier one.

        Where another command writes meanwhile, it is asked again.
        """
        return self._table.by_turns(lambda: self._append(decide))

    def _append(self, decide: Callable[[Sequence[Entry]], Sequence[Entry]]) -> list[Entry]:
        before = read_entries(self._place)
        action = max((each.action for each in before), default=-1) + 1
        entries = [replace(each, action=action) for each in decide(before)]
        if entries:
            rows = [{**asdict(each), "evidence": _plain(each)} for each in entries]
            self._table.append(pa.Table.from_pylist(rows, schema=SPECS), Stamp(_STREAM, action))
        return entries


def _plain(entry: Entry) -> str:
    return json.dumps(entry.evidence, sort_keys=True, default=str)
