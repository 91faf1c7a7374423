"""Files below a table that follow from it: one for each full span of numbers, found by what it rests on.

Beside them a note names the newest entry of the table's log that was seen when they were right. A table
that does not have this entry was restored from an older copy, or is another one: its rows need not be those
that the files hold, so all of them go. Each file says by which version it was made; one of a later version
than the note was made by somebody whose note was lost, and goes as well.
"""

from __future__ import annotations

import shutil
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from streaming.delta.faults import why_unusable
from streaming.delta.seen_log import SeenEntry, SeenLog
from streaming.delta.stored import StoredTable
from streaming.store.place import Place
from streaming.store.spool import spool_folder
from streaming.store.whole_files import replace_file

INDEX = "_index"  # Delta leaves alone what begins with an underscore
_NOTED_SECONDS = 3600.0  # entries of a log are removed when they are old, and with them what the note names

Content = TypeVar("Content")


class IndexFiles:
    """The files of one index. Of a table in a store they are this process's own.

    Args:
        table: what they follow from.
        name: of the index, one for each of a table.
        ending: of its files' names.
    """

    def __init__(self, table: StoredTable, name: str, ending: str) -> None:
        self._table, self._name, self._ending = table.place, name, ending
        self._log = SeenLog(table)
        self._noted: SeenEntry | None = None
        self._noted_at = 0.0

    @cached_property
    def folder(self) -> Path:
        """Where they lie."""
        return self._kept_in(self._table) / self._name

    @property
    def seen(self) -> SeenEntry | None:
        """The newest entry of the table's log that was seen; None in a store, or where it is gone."""
        return self._log.newest

    def goes_on(self) -> bool:
        """Return whether the table goes on from what was seen of it; else what follows from it is void."""
        same = self._log.goes_on()
        if same and self._noted is not None and time.monotonic() - self._noted_at > _NOTED_SECONDS:
            with suppress(OSError):
                self._note()
        return same

    def read(self, prefix: str, opened: Callable[[Path], Content]) -> Iterator[Content]:
        """Yield what is kept under a prefix, span by span, up to the first that is missing or damaged.

        What others have left goes first; whoever has mapped it goes on reading it.
        """
        self._noted = None
        found = {self._number(path): path for path in self._swept(prefix)}
        with suppress(OSError):
            if found:
                self._note()
        with suppress(OSError, ValueError, EOFError):
            for number in range(len(found)):
                if number not in found:
                    return
                yield opened(found[number])

    def keep(
        self, prefix: str, number: int, content: bytes, opened: Callable[[Path], Content]
    ) -> Content | None:
        """Keep a span and open it; None where the table's folder cannot be written, or has no room."""
        if self._table.is_local and self.seen is None:
            return None
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True)
            if why_unusable(self.folder, len(content)) is not None:
                return None
            self._note()
            path = self.folder / f"{prefix}{self._made_at}.{number:08}{self._ending}"
            replace_file(path, content)
            return opened(path)
        return None

    @property
    def _note_file(self) -> Path:
        return self.folder / f"seen{self._ending.replace('.', '-')}"

    @property
    def _made_at(self) -> int:
        return 0 if self.seen is None else self.seen.version

    def _note(self) -> None:
        """Say which entry was seen, unless somebody has seen a later one; before a span is kept."""
        seen = self.seen
        if seen is None or seen == self._noted:
            return
        there = self._on_note()
        if there is None or there.version < seen.version or not there.stands_in(self._table):
            self._swept("")  # a later note must not cover what no note has covered
            replace_file(self._note_file, f"{seen.version} {seen.digest}".encode())
        self._noted, self._noted_at = seen, time.monotonic()

    def _on_note(self) -> SeenEntry | None:
        with suppress(OSError, ValueError):
            version, digest = self._note_file.read_text(encoding="ascii").split()
            return SeenEntry(int(version), digest)
        return None

    def _swept(self, prefix: str) -> list[Path]:
        """Remove what nobody begins with any more; return the rest, of two for one span the newer last."""
        left: list[Path] = []
        with suppress(OSError):
            noted = self._on_note()
            through = -1 if noted is None or not noted.stands_in(self._table) else noted.version
            if not self._table.is_local:
                through = 0
            for path in sorted(self.folder.glob(f"*{self._ending}"), key=self._version):
                if path.name.startswith(prefix) and 0 <= self._version(path) <= through:
                    left.append(path)
                else:
                    path.unlink(missing_ok=True)
        return left

    def _version(self, path: Path) -> int:
        """Return by which version of the table a span was made, -1 for files of an earlier kind."""
        part = path.name.removesuffix(self._ending).split(".")[-2:][0]
        return int(part) if part.isdecimal() else -1

    def _number(self, path: Path) -> int:
        return int(path.name.removesuffix(self._ending).split(".")[-1])

    def _kept_in(self, table: Place) -> Path:
        if table.is_local:
            return table.path / INDEX
        folder = spool_folder("flagstream-index-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder / INDEX


def remove_indexes(table: Place) -> None:
    """Remove every index of a table: of rows that were changed or taken out nothing is left there."""
    if table.is_local:
        shutil.rmtree((table / INDEX).path, ignore_errors=True)
