"""Whether a table goes on from what was seen of it, or is another one: restored from an older copy, say.

The number of a version does not tell: a table that was restored and written to again comes to the same
numbers with other rows. An entry of the log has a mark, times and names of files of its own, so the digest of
its content tells it from every other of its number.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass

from streaming.delta.log_tail import entry_path
from streaming.delta.stored import StoredTable
from streaming.store.place import Place


@dataclass(frozen=True)
class SeenEntry:
    """The entry of a version, told from all others of its number.

    Attributes:
        version: its number.
        digest: of its content.
    """

    version: int
    digest: str

    def stands_in(self, table: Place) -> bool:
        """Whether it is still part of a table's log, so that the table goes on from there."""
        return entry_of(table, self.version) == self


class SeenLog:
    """Follows the log of one table in a folder; a table in a store is taken to be the same for ever.

    Args:
        table: seen as it stands when `goes_on` is called.
    """

    def __init__(self, table: StoredTable) -> None:
        self._table, self._version = table, table.version
        self.newest = entry_of(table.place, self._version) if table.place.is_local else None

    def goes_on(self) -> bool:
        """Return whether the table goes on from what was seen of it before; it is seen as it is from here on.

        Where nothing is left of what was seen, nobody can tell, and the answer is no.
        """
        place = self._table.place
        if not place.is_local:
            return True
        before, after = self._version, self._table.version
        stands = self.newest is not None and self.newest.stands_in(place)
        if after == before and (stands or self.newest is None):
            return True
        self._version, self.newest = after, entry_of(place, after)
        return stands and after > before


def entry_of(table: Place, version: int) -> SeenEntry | None:
    """Return what tells an entry of a table in a folder from others; None where it is gone."""
    with suppress(OSError):
        content = entry_path(table, version).read_bytes()
        return SeenEntry(version, hashlib.sha256(content).hexdigest()[:32])
    return None
